"""Brings a blob from a registry: several ranges at once, resumed where they stopped, hashed while they arrive."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable

from unitvec.errors import FetchFailed
from unitvec.store.blobs import Blobs
from unitvec.store.manifest import Layer
from unitvec.store.partial import Part, Partial, opened
from unitvec.store.progress import Progress, Report
from unitvec.store.registry import Body, NoRanges, Registry, Transient

_CONNECTIONS = 4
_TRIES = 6
_SAVE_BYTES, _SAVE_SECONDS = 4 << 20, 0.2  # how often a range's state is kept; what came since is lost by a kill
_TICK = 0.1  # seconds between two reports
_PATIENCE = 2.0
_PIECE = 1 << 20


def download(registry: Registry, layer: Layer, blobs: Blobs, report: Report) -> None:
    """Brings a blob in. What arrives is kept if this fails, for the next try to go on with.

    Args:
        registry: where from.
        layer: which; takes the place of a damaged one. One that another process has brought meanwhile is kept.
        blobs: where to.
        report: told several times a second; where it raises, the download stops.

    Raises:
        FetchFailed: the registry stays away, or sends other bytes than it should.
        OSError: the disk is full, or cannot be written.
    """

    step = f"pulling {layer.digest[7:19]}"

    def tell(completed: int) -> None:
        report(Progress(step, layer.digest, layer.size, completed))

    with opened(blobs.partial(layer.digest), layer.size, lambda: report(Progress(step, layer.digest))) as partial:
        if partial and blobs.is_whole(layer.digest):
            partial.discard()
        elif partial:
            _fill(registry, layer, partial, tell)
            partial.finish(blobs.path(layer.digest))
    tell(layer.size)


def _fill(registry: Registry, layer: Layer, partial: Partial, tell: Callable[[int], None]) -> None:
    """Makes the file whole and right."""
    resumed, tries = partial.completed > 0, 0
    while True:
        try:
            found = _Transfer(registry, layer.digest, partial).run(tell)
        except NoRanges:  # then a cut means the start again
            tries += 1
            if tries > _TRIES:
                raise
            partial.restart(undivided=True)
            continue
        if found == layer.digest:
            return
        partial.restart()
        if not resumed:
            raise FetchFailed(f"digest mismatch, file must be downloaded again: want {layer.digest}, got {found}")
        resumed = False  # what lay here may have been the wrong part


class _Transfer:
    """One go at the missing ranges: a few threads that fetch, one that hashes behind them, this one that tells."""

    def __init__(self, registry: Registry, digest: str, partial: Partial) -> None:
        self._registry = registry
        self._digest = digest
        self._partial = partial
        self._todo = [part for part in reversed(partial.parts) if not part.is_whole]
        self._changed = threading.Condition()
        self._bodies: set[Body] = set()
        self._error: BaseException | None = None
        self._stopped = False
        self._hasher = hashlib.sha256()
        self._hashed = 0

    def run(self, tell: Callable[[int], None]) -> str:
        """Fetches what is missing; gives the digest of the whole file."""
        targets = [self._hash, *[self._fetch_parts] * min(_CONNECTIONS, len(self._todo))]
        threads = [threading.Thread(target=self._guarded, args=(target,), daemon=True) for target in targets]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                tell(self._partial.completed)
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._hashed == self._partial.size, _TICK)
                if self._stopped or self._hashed == self._partial.size:
                    break
        finally:
            self._stop()
            for thread in threads:
                thread.join(_PATIENCE)  # one that still waits for an answer writes nothing any more
        if self._error:
            raise self._error
        return f"sha256:{self._hasher.hexdigest()}"

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._stop(error)

    def _stop(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._error = self._error or (None if self._stopped else error)
            self._stopped = True
            for body in self._bodies:
                body.abort()
            self._changed.notify_all()

    def _fetch_parts(self) -> None:
        while True:
            with self._changed:
                if self._stopped or not self._todo:
                    return
                part = self._todo.pop()
            failures = 0
            while not part.is_whole and not self._stopped:
                before = part.completed
                try:
                    self._fetch(part)
                except Transient as error:
                    failures = 1 if part.completed > before else failures + 1
                    if failures >= _TRIES:
                        raise
                    self._pause(error.retry_after or 0.2 * 2**failures * random.uniform(0.5, 1.5))  # noqa: S311

    def _fetch(self, part: Part) -> None:
        saved, saved_at = part.completed, time.monotonic()
        body: Body | None = None
        with self._partial.path.open("r+b", buffering=0) as file:
            file.seek(part.start)
            try:
                with self._registry.open(self._digest, part.start, part.stop, self._partial.size) as body:
                    with self._changed:
                        self._bodies.add(body)
                    for chunk in body:
                        if self._stopped:
                            return
                        piece = memoryview(chunk)[: part.size - part.completed]
                        while piece:
                            written = file.write(piece) or 0
                            piece = piece[written:]
                            part.completed += written
                        with self._changed:
                            self._changed.notify_all()
                        if part.is_whole:
                            return
                        now = time.monotonic()
                        if part.completed - saved >= _SAVE_BYTES or now - saved_at >= _SAVE_SECONDS:
                            self._partial.save(part)
                            saved, saved_at = part.completed, now
                raise Transient(f"{self._digest} was cut off")
            finally:
                with self._changed:
                    self._bodies.discard(body) if body else None
                if part.completed > saved:
                    with contextlib.suppress(OSError):  # a full disk; what was kept before is true as well
                        self._partial.save(part)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, min(seconds, 30.0))

    def _hash(self) -> None:
        buffer = bytearray(_PIECE)
        with self._partial.path.open("rb", buffering=0) as file:
            while self._hashed < self._partial.size:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._partial.frontier > self._hashed)
                if self._stopped:
                    return
                count = file.readinto(memoryview(buffer)[: self._partial.frontier - self._hashed]) or 0
                self._hasher.update(memoryview(buffer)[:count])
                self._hashed += count
        with self._changed:
            self._changed.notify_all()
