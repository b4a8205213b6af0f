"""Work that several callers want at once is done once; each is told of its progress."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from unitvec.store.progress import Progress, Report

T = TypeVar("T")


class Abandoned(Exception):
    """Nobody waits for this work any more."""


class _Job(Generic[T]):
    def __init__(self, work: Callable[[Report], T]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._listeners: list[queue.SimpleQueue[Progress | None]] = []
        self._told: list[Progress] = []  # the last word on each step, for those who come later
        self._result: T | None = None
        self._error: BaseException | None = None
        self._is_done = False
        self.is_abandoned = False

    def run(self) -> None:
        try:
            self._result = self._work(self._tell)
        except BaseException as error:
            self._error = error
        with self._lock:
            self._is_done = True
            for listener in self._listeners:
                listener.put(None)

    def join(self) -> queue.SimpleQueue[Progress | None]:
        listener: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        with self._lock:
            for progress in self._told:
                listener.put(progress)
            if self._is_done:
                listener.put(None)
            self._listeners.append(listener)
        return listener

    def leave(self, listener: queue.SimpleQueue[Progress | None]) -> None:
        with self._lock:
            self._listeners.remove(listener)
            self.is_abandoned = not self._listeners

    def result(self) -> T:
        if self._error:
            raise self._error
        return self._result  # type: ignore[return-value]  # without an error it is there

    def _tell(self, progress: Progress) -> None:
        with self._lock:
            if not self._listeners:
                raise Abandoned
            if self._told and self._told[-1].status == progress.status:
                self._told.pop()
            self._told.append(progress)
            for listener in self._listeners:
                listener.put(progress)


class Shared(Generic[T]):
    """Runs work by key: while one of a key is under way, others of that key join it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[Hashable, _Job[T]] = {}

    def run(self, key: Hashable, work: Callable[[Report], T], report: Report) -> T:
        """The result of ``work``, or its error.

        Args:
            key: what the work is.
            work: done in a thread of its own; what it reports goes to all who wait for it, and raises once
                nobody does.
            report: may raise to leave; the work goes on for the others.
        """
        with self._lock:
            job = self._jobs.get(key)
            is_new = job is None or job.is_abandoned
            if job is None or job.is_abandoned:
                job = self._jobs[key] = _Job(work)
            listener = job.join()  # before it starts: work without listeners stops
        if is_new:
            threading.Thread(target=self._run, args=(key, job), daemon=True).start()
        try:
            while (progress := listener.get()) is not None:
                report(progress)
        finally:
            with self._lock:
                job.leave(listener)
        return job.result()

    def _run(self, key: Hashable, job: _Job[T]) -> None:
        job.run()
        with self._lock:
            if self._jobs.get(key) is job:
                del self._jobs[key]
