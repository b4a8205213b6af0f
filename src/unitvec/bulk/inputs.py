"""What ``--input`` stands for: files, folders and patterns, and of which kind they are."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from unitvec.errors import InvalidRequest

STDIN = "-"
KINDS = ("parquet", "jsonl", "csv", "tsv", "lines")
_SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "lines",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_ENDS = 64 << 10  # bytes of a file's beginning, and of its end, that tell it from another


@dataclass(frozen=True)
class InputFile:
    """A file as it was when the work began.

    Attributes:
        path: as the user wrote it, or as it was found in his folder.
        size: bytes.
        changed: when, in nanoseconds since 1970.
        digest: of its first and its last 64 KiB.
    """

    path: str
    size: int
    changed: int
    digest: str

    @classmethod
    def of(cls, path: str) -> InputFile:
        """The file as it is now.

        Raises:
            InvalidRequest: it cannot be read.
        """
        try:
            with open(path, "rb") as file:
                state = os.fstat(file.fileno())
                hashed = blake2b(file.read(_ENDS), digest_size=16)
                file.seek(max(0, state.st_size - _ENDS))
                hashed.update(file.read(_ENDS))
        except OSError as error:
            raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from None
        return cls(path, state.st_size, state.st_mtime_ns, hashed.hexdigest())


def find(asked: Sequence[str], ours: Sequence[Path] = ()) -> list[str]:
    """The files that are meant, each once: those of a folder or pattern by name, the rest as they were given.

    Args:
        asked: files, folders, patterns, or ``-`` by itself for standard input.
        ours: what the command writes, which is no input of it even where it lies in an input folder.

    Raises:
        InvalidRequest: one stands for no file, or ``-`` is not alone.
    """
    if STDIN in asked:
        if len(asked) > 1:
            raise InvalidRequest("standard input (-) cannot be read together with files")
        return [STDIN]
    written = {path.resolve() for path in ours}
    files: dict[str, None] = {}
    for one in asked:
        if os.path.isdir(one):
            found = sorted(str(path) for path in Path(one).iterdir() if path.is_file() and _is_known(path))
            missing = f"the folder {one} has no {', '.join(_SUFFIXES)} file in it"
        elif os.path.exists(one):
            found, missing = [one], ""
        else:
            found = sorted(path for path in glob.glob(one, recursive=True) if os.path.isfile(path))
            missing = f"no such file: {one}"
        if not found:
            raise InvalidRequest(missing)
        files |= dict.fromkeys(path for path in found if Path(path).resolve() not in written)
    if not files:
        raise InvalidRequest(f"there is nothing to embed in {', '.join(asked)} but what this command writes")
    return list(files)


def kind_of(files: Sequence[str], asked: str | None) -> str:
    """One of ``KINDS``: as asked, else by the names; standard input is lines.

    Raises:
        InvalidRequest: a name says nothing, or the files are of several kinds.
    """
    if asked or files == [STDIN]:
        return asked or "lines"
    kinds = {}
    for file in files:
        suffix = _suffix(Path(file))
        if suffix not in _SUFFIXES:
            raise InvalidRequest(f"what kind of file is {file}? Say it with --input-format: {', '.join(KINDS)}")
        kinds[_SUFFIXES[suffix]] = file
    if len(kinds) > 1:
        (one, first), (other, second), *_ = kinds.items()
        raise InvalidRequest(f"{first} is {one} and {second} is {other}: give files of one kind at a time")
    return next(iter(kinds))


def _is_known(path: Path) -> bool:
    return _suffix(path) in _SUFFIXES and not path.name.startswith(".")


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix
