"""Files that are whole or not there: what a crash at any point must not break."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from unitvec.errors import NoSpace, NotWritable

try:
    import fcntl
except ImportError:  # Windows: the last writer wins there, which the renames keep harmless
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp-"  # how names of files begin that are not whole yet
_DAY = 24 * 3600.0


def write(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Puts a file in place at once: its readers see the old one or the new one.

    Args:
        path: where.
        data: what.
        durable: it survives a power cut as well, which takes a while.

    Raises:
        OSError: as the file system has it; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=durable) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, within: Path | None = None, durable: bool = True) -> Iterator[IO[bytes]]:
    """As ``write``, for what is written bit by bit; where that fails, nothing has changed.

    Args:
        path: where; its folder is there.
        within: the folder, on the same file system, in which it grows; None for its own.
        durable: see ``write``.
    """
    descriptor, temporary = tempfile.mkstemp(dir=within or path.parent, prefix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes what a killed process has left half-written, once it is a day old."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A folder on the same file system to build something in; gone afterwards, with all that was not moved out."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=TEMPORARY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lock(file: IO[bytes], waiting: Callable[[], None]) -> None:
    """Locks an open file until it is closed; ``waiting`` is called several times a second until that succeeds."""
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            time.sleep(0.1)
        else:
            return


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that other processes and threads respect as well; the system drops it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Says in one line why a folder could not be written.

    Raises:
        NoSpace: its disk is full.
        NotWritable: it is read-only, or somebody else's.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no space left on the disk of {folder}") from None
        raise NotWritable(f"cannot write to {error.filename or folder}: {error.strerror or error}") from None


def require_space(folder: Path, needed: int) -> None:
    """Checks that ``needed`` bytes fit on the disk of ``folder``, which need not be there yet.

    Raises:
        NoSpace: they don't.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoSpace(f"not enough disk space in {folder}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")
