"""What embeds the texts of windows: this process, servers, or actors elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from unitvec.bulk.window import Embedded


class Executor(Protocol):
    """An :data:`unitvec.bulk.window.Embed` with a model behind it.

    Attributes:
        digest: the model's; see :class:`unitvec.store.model.StoredModel`.
        width: the length of the vectors that it gives.
        ahead: windows that are to be under way at a time, each in a thread of its own, so that it never waits for one.
    """

    digest: str
    width: int
    ahead: int

    def __call__(self, texts: Sequence[str]) -> Embedded:
        """Embed texts, all different, perhaps none. Called from several threads at once.

        Raises:
            UnitvecError: going on is of no use.
        """

    def close(self) -> None:
        """Drop what waits; a call that is under way ends soon, with any error. May be called again."""
