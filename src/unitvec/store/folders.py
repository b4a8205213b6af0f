"""unitvec's own store: model folders as sentence-transformers saves them, which Ollama cannot run.

``names/HOST/NAMESPACE/MODEL/TAG`` is a small JSON (which folder, parameters, where it came from) and
``folders/sha256-HEX`` the folder, named by what is in it. A copy under another name costs a JSON, and a folder
is in place at once or not at all. ``unitvec.json`` in it keeps each file's digest, size and time of change:
files that look changed are hashed again before they are served.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from unitvec.checkpoint import huggingface
from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.errors import InvalidCheckpoint
from unitvec.store import files
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.tree import Tree

_STAMPS = "unitvec.json"
_FOLDER = re.compile(r"sha256-[0-9a-f]{64}")


class FolderStore:
    """The store under ``root``, made when the first model comes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names = Tree(root / "names")
        self._folders = root / "folders"

    def find(self, name: Name) -> StoredModel | None:
        """The model of a name.

        Raises:
            InvalidCheckpoint: its description is damaged.
        """
        path = self._names.find(name)
        return None if path is None else self._describe(Name.from_path(path.relative_to(self._names.root)), path)

    def list(self) -> list[StoredModel]:
        """All models that are described well enough to be shown."""
        models = []
        for name, path in self._names.walk():
            try:
                models.append(self._describe(name, path))
            except InvalidCheckpoint:
                continue
        return models

    def put(self, name: Name, folder: Path, parameters: Mapping[str, Any], source: str) -> StoredModel:
        """Takes a folder of model files over: it must lie in a ``workspace`` and is gone from there afterwards.

        Raises:
            InvalidCheckpoint: the folder holds no model that can be run; the store is as it was.
            OSError: the disk is full or read-only.
        """
        huggingface.read(folder)
        stamps = {str(path.relative_to(folder)): _stamp(path) for path in sorted(folder.rglob("*")) if path.is_file()}
        contents = {path: stamp["sha256"] for path, stamp in stamps.items()}
        digest = hashlib.sha256(orjson.dumps(contents, option=orjson.OPT_SORT_KEYS)).hexdigest()
        files.write(folder / _STAMPS, orjson.dumps(stamps, option=orjson.OPT_INDENT_2))
        description = {"folder": f"sha256-{digest}", "parameters": dict(parameters), "source": source}
        with self._locked():
            place = self._folders / f"sha256-{digest}"
            self._folders.mkdir(parents=True, exist_ok=True)
            if not _is_whole(name, place):
                if place.exists():
                    place.rename(folder.parent / f"{folder.name}-damaged")
                folder.rename(place)
                files.sync_folder(self._folders)
            self._write(name, description)
        found = self.find(name)
        assert found is not None
        return found

    def copy(self, source: Name, target: Name, parameters: Mapping[str, Any] | None = None) -> bool:
        """Gives a model another name as well, with more parameters perhaps; False where there is no such model.

        Raises:
            InvalidCheckpoint: its description is damaged.
        """
        with self._locked():
            path = self._names.find(source)
            if path is None:
                return False
            description = _read(path)
            if parameters:
                description["parameters"] = dict(description.get("parameters", {})) | dict(parameters)
            self._write(target, description)
            return True

    def remove(self, name: Name) -> bool:
        """Takes a name away, and its folder when no other name needs it; False where there is no such model."""
        if self._names.find(name) is None:
            return False
        with self._locked():
            old = self._folder_of(name)
            removed = self._names.remove(name)
            if old is not None:
                self._collect(old)
            return removed

    def is_complete(self, name: Name) -> bool:
        """Whether all that a model needs is here, as far as can be told without reading it."""
        try:
            model = self.find(name)
            if model is None:
                return False
            stamps = _read(Path(model.weights) / _STAMPS)
            return all((Path(model.weights) / path).stat().st_size == stamp["size"] for path, stamp in stamps.items())
        except (InvalidCheckpoint, OSError, KeyError, TypeError):
            return False

    def verify(self, name: Name, verified: Callable[[str, int], None]) -> None:
        """Reads all files of a model; ``verified`` is told of the digest and size of each that is whole.

        Raises:
            InvalidCheckpoint: one is missing or damaged.
        """
        model = self.find(name)
        if model is not None:
            verify(name, Path(model.weights), thorough=True)
            for stamp in _read(Path(model.weights) / _STAMPS).values():
                verified(f"sha256:{stamp['sha256']}", stamp["size"])

    def workspace(self) -> AbstractContextManager[Path]:
        """A folder to build a model in before ``put``: a context manager that gives its path."""
        return files.workspace(self.root)

    def _locked(self) -> AbstractContextManager[None]:
        return files.locked(self.root / ".lock")

    def _folder_of(self, name: Name) -> Path | None:
        """Where a name's files are; None where there is none, or that is not known."""
        path = self._names.find(name)
        with contextlib.suppress(InvalidCheckpoint):
            folder = _read(path).get("folder") if path else None
            return self._folders / folder if isinstance(folder, str) and _FOLDER.fullmatch(folder) else None
        return None

    def _write(self, name: Name, description: Mapping[str, Any]) -> None:
        old = self._folder_of(name)
        self._names.write(name, orjson.dumps(description))
        if old is not None:
            self._collect(old)

    def _collect(self, old: Path) -> None:
        """Removes a folder, unless a name needs it."""
        if old.is_dir() and old not in {self._folder_of(name) for name, _ in self._names.walk()}:
            with files.workspace(self.root) as grave:
                old.rename(grave / old.name)

    def _describe(self, name: Name, path: Path) -> StoredModel:
        try:
            data = path.read_bytes()
            modified = path.stat().st_mtime
            description = _read(path)
            folder = self._folders / Path(description["folder"]).name
            stamps = _read(folder / _STAMPS)
            size = sum(stamp["size"] for stamp in stamps.values())
            parameters = dict(description["parameters"])
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidCheckpoint(f"damaged model {name.short}: cannot read {path}: {error}") from None
        return StoredModel(
            name=name,
            digest=hashlib.sha256(data).hexdigest(),
            size=size,
            modified_at=datetime.fromtimestamp(modified, UTC).astimezone(),
            weights=str(folder),
            open=partial(_open, name, folder),
            parameters=parameters,
        )


def _open(name: Name, folder: Path) -> Checkpoint:
    verify(name, folder)
    return huggingface.read(folder)


def verify(name: Name, folder: Path, *, thorough: bool = False) -> None:
    """Makes sure that a folder's files are what they were when they came; ``thorough`` reads them all.

    Raises:
        InvalidCheckpoint: one is missing or has changed.
    """
    stamps, touched = _read(folder / _STAMPS), False
    for relative, stamp in stamps.items():
        try:
            status = (folder / relative).stat()
            if not thorough and (status.st_size, status.st_mtime_ns) == (stamp["size"], stamp["mtime_ns"]):
                continue
            found = _stamp(folder / relative)
        except OSError as error:
            raise InvalidCheckpoint(f"damaged model {name.short}: {error}; remove it and fetch it again") from None
        if found["sha256"] != stamp["sha256"]:
            raise InvalidCheckpoint(
                f"damaged model {name.short}: {folder / relative} has changed since it was fetched; "
                "remove it and fetch it again"
            )
        stamps[relative], touched = found, True
    if touched:  # copied to another disk, say: not to be hashed at every start
        with contextlib.suppress(OSError):  # a read-only store is hashed again
            files.write(folder / _STAMPS, orjson.dumps(stamps, option=orjson.OPT_INDENT_2))


def _is_whole(name: Name, folder: Path) -> bool:
    try:
        verify(name, folder, thorough=True)
    except InvalidCheckpoint:
        return False
    return True


def _stamp(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    status = path.stat()
    return {"sha256": digest, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"cannot read {path}: {error}") from None
    return content
