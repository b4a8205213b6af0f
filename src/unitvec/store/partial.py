"""A blob that is not whole yet: ``sha256-HEX-partial``, and what of it has arrived in ``sha256-HEX-partial-N``.

Both are as Ollama keeps them, so that each can go on where the other was stopped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from unitvec.store import files

_MIN_PART = 16 << 20
_MAX_PARTS = 64


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
        files.write(self._state(part.number), orjson.dumps(value), durable=False)

    def restart(self, *, undivided: bool = False) -> None:
        """Forgets all that has arrived."""
        self._forget()
        self.parts = self._divide(self.size if undivided else _MIN_PART)

    def finish(self, target: Path) -> None:
        """Gives the verified file its name."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        self.path.chmod(0o644)
        os.replace(self.path, target)
        self._forget()  # only now: without them, all would be fetched again
        files.sync_folder(target.parent)

    def _divide(self, smallest: int = _MIN_PART) -> list[Part]:
        step = max(smallest, -(-self.size // _MAX_PARTS), 1)
        offsets = range(0, self.size, step)
        parts = [Part(n, offset, min(step, self.size - offset)) for n, offset in enumerate(offsets)]
        for part in parts:
            self.save(part)
        return parts

    def _load(self) -> list[Part]:
        parts = []
        for path in self._states():
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
        self._forget()
        return self._divide()

    def _forget(self) -> None:
        for path in self._states():
            path.unlink(missing_ok=True)

    def _states(self) -> list[Path]:
        return list(self.path.parent.glob(f"{self.path.name}-*"))

    def _state(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}-{number}")


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
        yield Partial(path, size) if ours else None
