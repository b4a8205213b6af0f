"""What the API asks of whatever embeds for it: the service of this process, or a cluster's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unitvec.checkpoint.checkpoint import Details
from unitvec.engine.onnx import FloatArray
from unitvec.models.config import Dtype
from unitvec.serving.batcher import Ids
from unitvec.serving.counters import Counters
from unitvec.store.name import Name

# What was done: a name, begin and end on the clock of ``time.perf_counter_ns``.
Step = tuple[str, int, int]


@dataclass(frozen=True)
class Embeddings:
    """The answer to one request.

    Attributes:
        vectors: float32 [texts, dimensions], each of unit length.
        tokens: how many tokens were run, special ones included.
        load_nanoseconds: how long the model took to be there.
        steps: what was done, on the clock of this process.
    """

    vectors: FloatArray
    tokens: int
    load_nanoseconds: int
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Running:
    """A model in memory.

    Attributes:
        name: what it is called.
        digest: of its files, as :class:`unitvec.store.model.StoredModel` has it.
        bytes: memory that its weights take.
        details: for people.
        expires_in: seconds until it goes if nobody asks for it again; inf for never.
        context: tokens that a text for it is cut to.
        dtype: what it computes in.
    """

    name: Name
    digest: str
    bytes: int
    details: Details
    expires_in: float
    context: int
    dtype: Dtype


@dataclass(frozen=True)
class Figures:
    """How a backend does at a moment.

    Attributes:
        requests: that wait for a run.
        tokens: that wait for a run.
        oldest: seconds that the oldest of them has waited.
        running_texts: that run.
        running_tokens: that run.
        room: requests that may wait before the next is turned away.
        counters: sums since the start.
        running: models in memory, first the one that stays longest.
    """

    requests: int
    tokens: int
    oldest: float
    running_texts: int
    running_tokens: int
    room: int
    counters: Counters
    running: list[Running]


class Backend(Protocol):
    """Embeds, for any number of callers at once.

    Attributes:
        counters: what this process counts.
        max_requests: requests that one process lets wait.
    """

    @property
    def counters(self) -> Counters:
        """See the class."""

    @property
    def max_requests(self) -> int:
        """See the class."""

    async def embed(
        self,
        name: Name,
        texts: Sequence[str] | Sequence[Ids],
        *,
        truncate: bool = True,
        dimensions: int = 0,
        context: int | None = None,
        keep_alive: float | None = None,
        client: Hashable = None,
    ) -> Embeddings:
        """Embed texts, or token ids where the caller has tokenized himself.

        Args:
            name: the model.
            texts: may be empty: then the model is only loaded.
            truncate: cut what is longer than the context; otherwise that is an error.
            dimensions: cut the vectors to that length and renormalize; out of range changes nothing.
            context: tokens a text may have, at most what the model can; None for its own setting.
            keep_alive: seconds that the model stays in memory after this; None for the default.
            client: who asks; see :class:`unitvec.serving.batcher.Request`.

        Raises:
            ModelNotFound, InvalidCheckpoint, InvalidRequest, Overloaded: each with its message.
        """

    async def running(self) -> list[Running]:
        """The models in memory, first the one that stays longest."""

    async def stop(self, name: Name) -> bool:
        """Unload a model once nobody uses it; False when it is not in memory."""

    async def changed(self, name: Name, *, there: bool) -> None:
        """A name stands for another model now, or for none: unload what it stood for; load anew what is pinned."""

    async def figures(self) -> Figures:
        """How it does now."""
