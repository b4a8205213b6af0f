"""What is told about work that takes a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A step, in Ollama's words.

    Attributes:
        status: ``pulling manifest``, ``pulling 3be9f307d21a``, ``success``.
        digest: ``sha256:HEX`` of what is being moved.
        total: its bytes.
        completed: how many of them are there.
    """

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None

    def to_json(self) -> dict[str, str | int]:
        """A line of ``/api/pull``'s answer; Ollama leaves out what is zero."""
        fields = {"status": self.status, "digest": self.digest, "total": self.total, "completed": self.completed}
        return {key: value for key, value in fields.items() if value}


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Tells nobody."""
