"""Ollama's store, read and written in place: ``manifests/HOST/NAMESPACE/MODEL/TAG`` and ``blobs/sha256-HEX``.

A running Ollama may share it, and it may lie on a disk that cannot be written. Manifests come and go under a lock
that all of unitvec's processes respect; a manifest is only written while all its blobs are there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.errors import InvalidCheckpoint
from unitvec.store import files, manifest
from unitvec.store.blobs import Blobs
from unitvec.store.claims import Claims
from unitvec.store.manifest import Layer, Manifest
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.tree import Tree


class OllamaStore:
    """The store under ``root``, which need not be there yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = Blobs(root / "blobs")
        self._manifests = Tree(root / "manifests")
        self._claims = Claims(root / ".unitvec-claims", self._locked)
        self._small: dict[Layer, bytes] = {}  # parameters and templates, which many models share

    @property
    def is_writable(self) -> bool:
        """Whether models can be added: it can be written, or made."""
        wanted = [self.root, self.blobs.root, self._manifests.root]
        return all(os.access(_existing(folder), os.W_OK) for folder in wanted)

    def find(self, name: Name) -> StoredModel | None:
        """The model of a name.

        Raises:
            InvalidCheckpoint: its manifest, or a small blob that it names, is damaged or missing.
        """
        path = self._manifests.find(name)
        if path is None:
            return None
        try:
            return self._describe(Name.from_path(path.relative_to(self._manifests.root)), path)
        except InvalidCheckpoint:
            if path.exists():
                raise
            return None  # removed meanwhile

    def list(self) -> list[StoredModel]:
        """All models that are described well enough to be shown."""
        models = []
        for name, path in self._manifests.walk():
            try:
                models.append(self._describe(name, path))
            except InvalidCheckpoint:
                continue
        return models

    def manifest(self, name: Name) -> Manifest | None:
        """The manifest of a name.

        Raises:
            InvalidCheckpoint: it is damaged.
        """
        path = self._manifests.find(name)
        return None if path is None else _read(path, name)

    def put(self, name: Name, new: Manifest) -> tuple[Layer, ...]:
        """Makes a model of blobs that are here, in the place of the one of that name.

        Returns:
            The blobs that are missing; while there are any, nothing was done.
        """
        with self._locked():
            missing = tuple(layer for layer in new.blobs if self.blobs.lacks(layer))
            if not missing:
                old = self._old(name)
                self._manifests.write(name, new.data)
                self._collect(old)
            return missing

    def copy(self, source: Name, target: Name) -> bool:
        """Gives a model another name as well; False where there is no such model."""
        with self._locked():
            path = self._manifests.find(source)
            if path is None:
                return False
            if source != target:
                old = self._old(target)
                self._manifests.write(target, path.read_bytes())
                self._collect(old)
            return True

    def remove(self, name: Name) -> bool:
        """Takes a model away, and the blobs that no other needs; False where there is no such model."""
        if self._manifests.find(name) is None:
            return False
        with self._locked():
            old = self._old(name)
            removed = self._manifests.remove(name)
            self._collect(old)
            return removed

    @contextlib.contextmanager
    def claiming(self, wanted: Manifest) -> Iterator[None]:
        """Keeps a manifest's blobs from being removed while they come or are sent."""
        with contextlib.ExitStack() as stack:
            if self.is_writable:  # else nothing is removed either
                stack.enter_context(self._claims.hold([layer.digest for layer in wanted.blobs]))
            yield

    def is_complete(self, name: Name) -> bool:
        """Whether all that a model needs is here, as far as can be told without reading it."""
        try:
            found = self.manifest(name)
        except InvalidCheckpoint:
            return False
        return found is not None and not any(self.blobs.lacks(layer) for layer in found.blobs)

    def verify(self, name: Name, verified: Callable[[str, int], None]) -> None:
        """Reads all blobs of a model; ``verified`` is told of the digest and size of each that is whole.

        Raises:
            InvalidCheckpoint: one is missing or damaged.
        """
        found = self.manifest(name)
        for layer in found.blobs if found else ():
            self.blobs.verify(layer)
            verified(layer.digest, layer.size)

    def _locked(self) -> AbstractContextManager[None]:
        return files.locked(self.root / ".unitvec-lock")

    def _old(self, name: Name) -> Manifest | None:
        try:
            return self.manifest(name)
        except InvalidCheckpoint:
            return None  # what it names is not known

    def _collect(self, old: Manifest | None) -> None:
        """Removes the blobs of a manifest that is gone, unless another one names them."""
        if old is None:
            return
        needed = self._needed()
        for layer in old.blobs:
            if layer.digest not in needed:
                self.blobs.remove(layer.digest)

    def _needed(self) -> set[str]:
        needed = self._claims.held()
        for name, path in self._manifests.walk():
            try:
                needed |= {layer.digest for layer in _read(path, name).blobs}
            except InvalidCheckpoint:
                continue
        return needed

    def _describe(self, name: Name, path: Path) -> StoredModel:
        found = _read(path, name)
        model = found.of_type(manifest.MODEL)
        templates = found.of_type(manifest.TEMPLATE, manifest.PROMPT)
        try:
            modified = path.stat().st_mtime
            parameters: dict[str, Any] = {}
            for layer in found.of_type(manifest.PARAMS):
                parameters |= orjson.loads(self._read_small(layer))
        except (OSError, ValueError, TypeError) as error:
            raise InvalidCheckpoint(f"damaged model {name.short}: its parameters: {error}") from None
        texts = {"template": self._read_small(templates[-1]).decode(errors="replace")} if templates else {}
        return StoredModel(
            name=name,
            digest=found.digest,
            size=found.size,
            modified_at=datetime.fromtimestamp(modified, UTC).astimezone(),
            weights=str(self.blobs.path(model[0].digest)) if model else "",
            open=partial(self._open, name, found),
            parameters=parameters,
            **texts,
        )

    def _read_small(self, layer: Layer) -> bytes:
        if layer not in self._small:
            self._small[layer] = self.blobs.read(layer)
        return self._small[layer]

    def _open(self, name: Name, found: Manifest) -> Checkpoint:
        models = found.of_type(manifest.MODEL)
        unknown = [layer for layer in found.layers if layer.media_type.endswith((".adapter", ".projector", ".tensor"))]
        if len(models) != 1 or unknown:
            parts = ", ".join(layer.media_type.rpartition(".")[2] for layer in models + unknown) or "no weights"
            raise InvalidCheckpoint(f"model {name.short} cannot be run: it consists of {parts}, not of one GGUF file")
        if self.blobs.lacks(models[0]):
            raise InvalidCheckpoint(
                f"damaged model {name.short}: blob {models[0].digest} is missing or cut off; pull it again"
            )
        from unitvec.checkpoint import gguf  # not needed to list models

        return gguf.read(self.blobs.path(models[0].digest))


def _read(path: Path, name: Name) -> Manifest:
    try:
        with path.open("rb") as file:
            return Manifest.parse(file.read(manifest.MAX_SIZE))
    except OSError as error:
        raise InvalidCheckpoint(f"damaged model {name.short}: cannot read {path}: {error.strerror}") from None
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"damaged model {name.short}: {error.message} in {path}") from None


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
