"""A model that lies in a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.store.name import Name


@dataclass(frozen=True)
class StoredModel:
    """A model at hand, its weights not read yet.

    Attributes:
        name: what it is called.
        digest: 64 hexadecimal digits, the SHA-256 of its manifest: equal digests are equal models.
        size: bytes on disk.
        modified_at: when it came here.
        parameters: what its makers set, ``{"num_ctx": 256}``.
        template: its prompt template, ``{{ .Prompt }}`` where it has none.
        weights: the path that ``/api/show`` puts behind FROM.
        open: reads its files; raises InvalidCheckpoint where they are damaged or of a kind that cannot be run.
    """

    name: Name
    digest: str
    size: int
    modified_at: datetime
    weights: str
    open: Callable[[], Checkpoint]
    parameters: dict[str, Any] = field(default_factory=dict)
    template: str = "{{ .Prompt }}"
