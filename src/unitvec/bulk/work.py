"""The folder beside an output in which its parts gather, until they are all there.

``OUTPUT.parts/`` holds ``plan.json`` (what is done there), ``lock`` (held by the one who does it) and a file for each
part that is done. A part is written under another name and renamed once it is on the disk, so that a file of a part's
name is whole whatever happened; no part is ever written twice. The output is built in the folder too, and gets its
name when it is whole. What has no ``plan.json`` is rubbish: it is the first to be written and the first to go.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import orjson

from unitvec.bulk.plan import Plan
from unitvec.bulk.window import Part, Position
from unitvec.errors import InvalidRequest, UnitvecError
from unitvec.store import files

T = TypeVar("T")

_PLAN = "plan.json"
_LOCK = "lock"


@dataclass(frozen=True)
class Done:
    """What is known of a part without its vectors.

    Attributes:
        number: its window's.
        end: where the next window begins.
        rows: how many it has.
        refused: how many of them have no vector.
        texts: how many different texts were embedded.
        tokens: how many tokens were run.
        width: of its vectors.
    """

    number: int
    end: Position
    rows: int
    refused: int
    texts: int
    tokens: int
    width: int

    @classmethod
    def of(cls, part: Part) -> Done:
        """What is known of ``part``."""
        rows, width = part.vectors.shape
        return cls(part.number, part.end, rows, len(part.refused), part.texts, part.tokens, width)


class Work:
    """The parts of one output. Made by :func:`opened`; several threads and processes may write different parts.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def numbers(self) -> list[int]:
        """Those of the parts that are there."""
        return sorted(int(path.stem) for path in self.folder.glob("*.npz") if path.stem.isdigit())

    def write(self, part: Part) -> Done:
        """Keep a part.

        Raises:
            NoSpace, NotWritable: it cannot be.
        """
        about = orjson.dumps(
            {
                "start": _list(part.start),
                "end": _list(part.end),
                "shape": part.vectors.shape,
                "refused": list(part.refused.items()),
                "texts": part.texts,
                "tokens": part.tokens,
            }
        )
        with files.writing(self.folder), files.replacing(self._path(part.number)) as file:
            np.savez(
                file,
                about=np.frombuffer(about, np.uint8),
                carried=np.frombuffer(part.carried, np.uint8),
                vectors=part.vectors,
            )
        return Done.of(part)

    def read(self, number: int) -> Part:
        """A part that was written.

        Raises:
            UnitvecError: its file is damaged.
        """

        def take(arrays: Any) -> Part:
            about = orjson.loads(arrays["about"].tobytes())
            return Part(
                number,
                Position(*about["start"]),
                Position(*about["end"]),
                arrays["vectors"],
                dict(about["refused"]),
                arrays["carried"].tobytes(),
                about["texts"],
                about["tokens"],
            )

        return self._read(number, take)

    def about(self, number: int) -> Done:
        """As :meth:`read`, without the vectors."""

        def take(arrays: Any) -> Done:
            about = orjson.loads(arrays["about"].tobytes())
            rows, width = about["shape"]
            end = Position(*about["end"])
            return Done(number, end, rows, len(about["refused"]), about["texts"], about["tokens"], width)

        return self._read(number, take)

    def put(self, path: Path, write: Callable[[IO[bytes]], None]) -> None:
        """Build a file of the output, and give it its name at once when it is whole.

        Raises:
            NoSpace, NotWritable: it cannot be.
        """
        with files.writing(path.parent), files.replacing(path, within=self.folder) as file:
            write(file)

    def remove(self) -> None:
        """Take the folder away, with all that is in it."""
        self.empty()
        (self.folder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody has put something in it
            self.folder.rmdir()

    def empty(self) -> None:
        """Take all away that was done."""
        (self.folder / _PLAN).unlink(missing_ok=True)
        for pattern in ("*.npz", f"{files.TEMPORARY}*"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def plan(self) -> Plan | None:
        """What is done there, None where nothing is.

        Raises:
            UnitvecError: its file is damaged.
        """
        path = self.folder / _PLAN
        try:
            return Plan.from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise UnitvecError(f"{path} is damaged: begin anew with --restart") from None

    def begin(self, plan: Plan) -> None:
        """Start with nothing done."""
        self.empty()
        files.write(self.folder / _PLAN, plan.to_json())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:09}.npz"

    def _read(self, number: int, take: Callable[[Any], T]) -> T:
        path = self._path(number)
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                return take(arrays)
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile):
            raise UnitvecError(f"{path} is damaged: delete it, and run the same command again") from None


def folder_of(output: Path) -> Path:
    """Where the parts of an output gather."""
    return output.with_name(f"{output.name}.parts")


@contextlib.contextmanager
def opened(output: Path, plan: Plan, *, restart: bool) -> Iterator[Work]:
    """The work on an output: what was done of it before, if it was the same, else nothing.

    Args:
        output: the file that is to be made.
        plan: what is to be done.
        restart: forget what was done, and replace an output that is there.

    Raises:
        InvalidRequest: another run is at it; or something else was done before; or the output is there.
        NoSpace, NotWritable: nothing can be written there.
    """
    work = Work(folder_of(output))
    with _locked(work.folder, output):
        before = None if restart else work.plan()
        if before is not None and before.can_resume and work.numbers():
            if changed := plan.changed_from(before):
                raise InvalidRequest(
                    f"{work.folder} holds the unfinished work of another run: {changed}. "
                    "Begin anew with --restart, or write to another output"
                )
        else:
            if output.exists() and not restart:
                raise InvalidRequest(f"{output} is there already: replace it with --restart, or write to another")
            with files.writing(work.folder):
                work.begin(plan)
        try:
            yield work
        finally:
            if not plan.can_resume:
                work.remove()


@contextlib.contextmanager
def _locked(folder: Path, output: Path) -> Iterator[None]:
    path = folder / _LOCK

    def refuse() -> None:
        raise InvalidRequest(f"another run is writing {output}")

    with contextlib.ExitStack() as held:
        while True:
            with files.writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(path.open("ab"))
            files.lock(file, refuse)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break  # else the one who held it has just finished, and taken it away
        yield


def _list(position: Position) -> tuple[int, int, int]:
    return position.file, position.row, position.offset
