"""Feeds the batcher's micro-batches to the engines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitvec.engine.onnx import FloatArray
from unitvec.errors import Overloaded
from unitvec.serving.batcher import Batcher, Ids, MicroBatch, Request

Run = Callable[[Any, Sequence[Ids]], FloatArray]

BUSY = "server busy, please try again.  maximum pending requests exceeded"  # Ollama's own words, both spaces


@dataclass
class Counters:
    """What a runner has done since it started."""

    requests: int = 0
    rejected: int = 0
    cancelled: int = 0
    texts: int = 0
    tokens: int = 0
    batches: int = 0
    attention_places: int = 0  # all of [B, S] of all micro-batches; what exceeds tokens is padding
    wait_seconds: float = 0.0  # from submission to the first text's run, summed over requests
    run_seconds: float = 0.0  # summed over micro-batches


class _Job(Request):
    """A request, and the place where its vectors gather."""

    def __init__(self, model: Hashable, client: Hashable, ids: Sequence[Ids], width: int) -> None:
        super().__init__(model, client, ids)
        self.vectors: FloatArray = np.empty((len(ids), width), np.float32)
        self.unfinished = len(ids)
        self.future: Future[FloatArray] = Future()
        self.submitted = time.monotonic()
        self.started: float | None = None


class Runner:
    """Threads that run what the batcher gives them.

    There is one thread more than micro-batches that run at a time: while it hands results out, the
    next run has begun.

    Args:
        batcher: the scheduling rule; only the runner may touch it.
        run: takes a model (as given to ``submit``) and token ids, gives float32 [texts, width].
        workers: micro-batches that run at a time.
        max_requests: requests that may wait before the next is turned away.
        max_tokens: tokens that may wait; one request is let in whatever its size.
    """

    def __init__(self, batcher: Batcher, run: Run, *, workers: int, max_requests: int, max_tokens: int) -> None:
        self._batcher = batcher
        self._run = run
        self.max_requests = max_requests
        self._max_tokens = max_tokens
        self._changed = threading.Condition()
        self._free = workers
        self._closed = False
        self.counters = Counters()
        self._threads = [threading.Thread(target=self._work, name=f"run-{n}", daemon=True) for n in range(workers + 1)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests and tokens that wait for a run."""
        return self._batcher.waiting_requests, self._batcher.waiting_tokens

    def submit(self, model: Hashable, width: int, ids: Sequence[Ids], client: Hashable = None) -> Future[FloatArray]:
        """Have texts run.

        Args:
            model: texts for the same one share micro-batches, equal texts their vectors.
            width: the length of its vectors.
            ids: token ids of each text, none empty.
            client: requests of one client share its turns.

        Returns:
            A future of float32 [len(ids), width]. Cancelling it drops what has not run yet.

        Raises:
            Overloaded: too much waits already.
        """
        job = _Job(model, client, ids, width)
        if not ids:
            job.future.set_result(job.vectors)
            return job.future
        tokens = sum(map(len, ids))
        with self._changed:
            requests, waiting = self.waiting
            if requests >= self.max_requests or (requests and waiting + tokens > self._max_tokens):
                self.counters.rejected += 1
                raise Overloaded(BUSY)
            self.counters.requests += 1
            self._batcher.add(job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._cancelled(job) if future.cancelled() else None)
        return job.future

    def forget(self, model: Hashable) -> None:
        """A model has been unloaded."""
        with self._changed:
            self._batcher.forget(model)

    def close(self) -> None:
        """Run what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _cancelled(self, job: _Job) -> None:
        with self._changed:
            self._batcher.cancel(job)
            self.counters.cancelled += 1

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            began = time.monotonic()
            try:
                vectors = self._run(batch.model, [text.ids for text in batch.texts])
            except Exception as error:  # whatever it is, those who wait for it must hear of it
                self._fail(batch, error)
            else:
                self._finish(batch, vectors, time.monotonic() - began)

    def _take(self) -> MicroBatch | None:
        with self._changed:
            while True:
                batch = self._batcher.next() if self._free else None
                if batch is not None:
                    break
                if self._closed and not self._batcher.waiting_requests:
                    self._changed.notify_all()
                    return None
                self._changed.wait()
            self._free -= 1
            now = time.monotonic()
            for text in batch.texts:
                for job, _ in text.claims:
                    assert isinstance(job, _Job)
                    if job.started is None:
                        job.started = now
                        self.counters.wait_seconds += now - job.submitted
            return batch

    def _finish(self, batch: MicroBatch, vectors: FloatArray, seconds: float) -> None:
        with self._changed:
            self._free += 1
            shares = self._batcher.done(batch, seconds)
            self._changed.notify()  # the other thread begins the next run; this one hands out
            counters = self.counters
            counters.batches += 1
            counters.texts += len(batch.texts)
            counters.tokens += batch.tokens
            counters.attention_places += len(batch.texts) * max(len(text.ids) for text in batch.texts)
            counters.run_seconds += seconds
        for job, pairs in shares:
            assert isinstance(job, _Job)
            index, row = np.array(pairs).T
            job.vectors[index] = vectors[row]
            with self._changed:  # two threads may hold parts of one request
                job.unfinished -= len(pairs)
                whole = not job.unfinished
            if whole and job.future.set_running_or_notify_cancel():
                job.future.set_result(job.vectors)

    def _fail(self, batch: MicroBatch, error: Exception) -> None:
        with self._changed:
            self._free += 1
            jobs = [job for job, _ in self._batcher.done(batch, None)]
            for job in jobs:
                self._batcher.cancel(job)
            self._changed.notify()
        for job in jobs:
            assert isinstance(job, _Job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
