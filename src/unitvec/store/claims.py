"""Who needs blobs that no manifest names yet, or not any more: pulls and pushes under way, in whatever process.

Each keeps a file of the digests that it needs, locked for as long as it lives. The system drops the lock of a process
that is killed, so that a file nobody has locked counts no more.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from unitvec.store import files


class Claims:
    """The claims in ``folder``, which is there only while there are any.

    Args:
        folder: where.
        locked: holds the store's lock, under which claims are made and read.
    """

    def __init__(self, folder: Path, locked: Callable[[], AbstractContextManager[None]]) -> None:
        self._folder = folder
        self._locked = locked

    @contextlib.contextmanager
    def hold(self, digests: Iterable[str]) -> Iterator[None]:
        """Keeps blobs from being removed for as long as the context lasts."""
        with self._locked():
            self.held()  # those of the dead go
            self._folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(dir=self._folder, delete=False)  # noqa: SIM115  # for all of the context
            files.try_lock(file)
            file.write("\n".join(digests).encode())
            file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError), self._locked():
                file.close()
                Path(file.name).unlink()
                self._folder.rmdir()  # unless there are others

    def held(self) -> set[str]:
        """The digests that somebody claims; to be asked under the store's lock."""
        digests: set[str] = set()
        for path in self._folder.glob("*"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if files.try_lock(file):
                    path.unlink()
                else:
                    digests.update(file.read().decode().splitlines())
        return digests
