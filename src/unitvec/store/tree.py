"""A tree of small files by name, ``HOST/NAMESPACE/MODEL/TAG``: how Ollama keeps its manifests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from unitvec.errors import InvalidCheckpoint, InvalidRequest
from unitvec.store import files
from unitvec.store.name import Name


class Tree:
    """The tree under ``root``, which need not be there yet. Names that differ in case only are one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: Name) -> Path | None:
        """The file of a name, whatever its case on the disk.

        Raises:
            InvalidCheckpoint: it is not ours to know.
        """
        path = self.root / name.path
        try:
            if path.is_file():
                return path
            return next((path for path in self._fold(self.root, name.path.parts) if path.is_file()), None)
        except PermissionError as error:
            raise InvalidCheckpoint(f"cannot read {error.filename}: {error.strerror}") from None

    def walk(self) -> Iterator[tuple[Name, Path]]:
        """All names and their files; what is not called as a model is passed over."""
        for path in self.root.glob("*/*/*/*"):
            with contextlib.suppress(InvalidRequest, PermissionError):
                name = Name.from_path(path.relative_to(self.root))
                if path.is_file():
                    yield name, path

    def write(self, name: Name, data: bytes) -> None:
        """Puts a name's file in place, over the one that is there."""
        files.write(self.find(name) or self.root / name.path, data)

    def remove(self, name: Name) -> bool:
        """Takes a name's file away, and the folders that are empty then; False where there is none."""
        path = self.find(name)
        if path is None:
            return False
        path.unlink()
        for folder in list(path.parents)[:3]:
            try:
                folder.rmdir()
            except OSError:  # not empty
                break
        return True

    def _fold(self, folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
        """Paths that equal ``parts`` but for case."""
        if not parts:
            yield folder
            return
        try:
            entries = sorted(entry for entry in folder.iterdir() if entry.name.lower() == parts[0].lower())
        except OSError:
            return
        for entry in entries:
            yield from self._fold(entry, parts[1:])
