"""A blob that is not whole yet: ``sha256-HEX-partial``, and what of it has arrived in ``sha256-HEX-partial-N``.

Both are as Ollama keeps them, so that each can go on where the other was stopped.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from unitvec.store import files

_MIN_PART = 16 << 20
_MAX_PARTS = 64
_WEEK = 7 * 24 * 3600.0


@dataclass
class Part:
    """A range of the blob, fetched by one request.

    Attributes:
        number: the N of its file's name.
        offset: its first byte.
        size: its bytes.
        completed: how many of them are in the file.
    """

    number: int
    offset: int
    size: int
    completed: int = 0

    @property
    def start(self) -> int:
        """The first byte that is missing."""
        return self.offset + self.completed

    @property
    def stop(self) -> int:
        """The byte behind its last."""
        return self.offset + self.size

    @property
    def is_whole(self) -> bool:
        """Nothing is missing."""
        return self.completed == self.size


class Partial:
    """The growing file of a blob of ``size`` bytes. Made by ``opened``, which lets one process at a time have it.

    Attributes:
        parts: in the order of their offsets, together the whole blob.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._keeping = threading.Lock()
        self._is_closed = False
        self.parts = self._load()
        os.truncate(path, size)  # a hole where nothing has arrived

    @property
    def completed(self) -> int:
        """Bytes that have arrived."""
        return sum(part.completed for part in self.parts)

    @property
    def frontier(self) -> int:
        """All bytes before this one have arrived."""
        for part in self.parts:
            if not part.is_whole:
                return part.start
        return self.size

    def save(self, part: Part) -> None:
        """Keeps how far a part has come, for whoever goes on with it."""
        value = {"N": part.number, "Offset": part.offset, "Size": part.size, "Completed": part.completed}
        with self._keeping:
            if not self._is_closed:  # a thread that comes late must not leave a note of what is not there any more
                files.write(_state(self.path, part.number), orjson.dumps(value), durable=False)

    def restart(self, *, undivided: bool = False) -> None:
        """Forgets all that has arrived."""
        _forget(self.path)
        self.parts = self._divide(self.size if undivided else _MIN_PART)

    def finish(self, target: Path) -> None:
        """Gives the verified file its name."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        self.path.chmod(0o644)
        self.close()
        os.replace(self.path, target)
        _forget(self.path)  # only now: without them, all would be fetched again
        files.sync_folder(target.parent)

    def discard(self) -> None:
        """Removes what has arrived: the blob is here by other means."""
        self.close()
        self.path.unlink()
        _forget(self.path)

    def close(self) -> None:
        """Keeps no more notes."""
        with self._keeping:
            self._is_closed = True

    def _divide(self, smallest: int = _MIN_PART) -> list[Part]:
        step = max(smallest, -(-self.size // _MAX_PARTS), 1)
        offsets = range(0, self.size, step)
        parts = [Part(n, offset, min(step, self.size - offset)) for n, offset in enumerate(offsets)]
        for part in parts:
            self.save(part)
        return parts

    def _load(self) -> list[Part]:
        parts = []
        for path in _states(self.path):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                value = orjson.loads(path.read_bytes())
                parts.append(Part(*(int(value[key]) for key in ("N", "Offset", "Size", "Completed"))))
        parts.sort(key=lambda part: part.offset)
        ends = [0, *(part.stop for part in parts)]
        fits = all(
            part.offset == end and 0 <= part.completed <= part.size for part, end in zip(parts, ends, strict=False)
        )
        if parts and fits and ends[-1] == self.size:
            return parts
        _forget(self.path)
        return self._divide()


@contextlib.contextmanager
def opened(path: Path, size: int, waiting: Callable[[], None]) -> Iterator[Partial | None]:
    """The growing file, once no other process has it; None if that has finished it meanwhile.

    Args:
        path: ``sha256-HEX-partial``.
        size: bytes of the blob.
        waiting: called several times a second until then; may raise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        files.lock(file, waiting)
        try:
            ours = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            ours = False
        partial = Partial(path, size) if ours else None
        try:
            yield partial
        finally:
            if partial:
                partial.close()


def sweep(folder: Path) -> None:
    """Removes what pulls have left that nobody has gone on with for a week, and notes without their file."""
    for path in folder.glob("sha256-*-partial"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < _WEEK:
                continue
            with path.open("rb") as file:
                if files.try_lock(file):
                    path.unlink()
    for path in folder.glob("sha256-*-partial-*"):
        if not path.with_name(path.name.rpartition("-")[0]).exists():
            path.unlink(missing_ok=True)


def _states(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}-*"))


def _state(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-{number}")


def _forget(path: Path) -> None:
    for state in _states(path):
        state.unlink(missing_ok=True)
