"""The models at hand, and what their files say of them."""

from __future__ import annotations

import contextlib

from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.errors import InvalidCheckpoint, ModelNotFound
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.stores import Stores


class Catalog:
    """Reads each model's files once. Its methods read files: call them in a thread.

    Args:
        stores: where the models are.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._checkpoints: dict[str, Checkpoint] = {}

    def stored(self, name: Name) -> StoredModel:
        """The model of a name.

        Raises:
            ModelNotFound: there is none.
        """
        stored = self._stores.find(name)
        if stored is None:
            raise ModelNotFound(f"model '{name.short}' not found")
        return stored

    def checkpoint(self, stored: StoredModel) -> Checkpoint:
        """What a model's files say of it; read once a digest.

        Raises:
            InvalidCheckpoint: they are damaged, or of a kind that cannot be run.
        """
        if stored.digest not in self._checkpoints:
            self._checkpoints[stored.digest] = stored.open()
        return self._checkpoints[stored.digest]

    def list(self) -> list[tuple[StoredModel, Checkpoint]]:
        """All that can be run."""
        found = []
        for stored in self._stores.list():
            with contextlib.suppress(InvalidCheckpoint):  # what cannot be run is not offered
                found.append((stored, self.checkpoint(stored)))
        return found
