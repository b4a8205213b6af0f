"""Feeds the batcher's micro-batches to the engines."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from unitvec.engine.onnx import FloatArray
from unitvec.errors import InvalidRequest, Overloaded, UnitvecError
from unitvec.serving.batcher import Batcher, Ids, MicroBatch, Request
from unitvec.serving.counters import Counters

Run = Callable[[Any, Sequence[Ids], bool], FloatArray]

BUSY = "server busy, please try again.  maximum pending requests exceeded"  # Ollama's own words, both spaces


class _Job(Request):
    """A request, and the place where its vectors gather."""

    def __init__(self, model: Hashable, client: Hashable, ids: Sequence[Ids], width: int) -> None:
        super().__init__(model, client, ids)
        self.vectors: FloatArray = np.empty((len(ids), width), np.float32)
        self.unfinished = len(ids)
        self.future: Future[FloatArray] = Future()
        self.submitted = time.monotonic()
        self.started = False


class Runner:
    """Threads that run what the batcher gives them.

    There are two threads more than micro-batches that run at a time: while one hands results out, the
    next run has begun; and one may have to run beside the others (:meth:`Batcher.beside`).

    Args:
        batcher: the scheduling rule; only the runner may touch it.
        run: takes a model (as given to ``submit``), token ids and whether nothing else runs; gives float32
            [texts, width].
        workers: micro-batches that run at a time.
        max_requests: requests that may wait before the next is turned away.
        max_tokens: tokens that may wait; one request is let in whatever its size.
        counters: what it keeps up.
    """

    def __init__(
        self, batcher: Batcher, run: Run, *, workers: int, max_requests: int, max_tokens: int, counters: Counters
    ) -> None:
        self._batcher = batcher
        self._run = run
        self.max_requests = max_requests
        self._max_tokens = max_tokens
        self._changed = threading.Condition()
        self._free = workers
        self._beside: MicroBatch | None = None
        self._closed = False
        self._jobs: dict[_Job, None] = {}  # all that are not answered yet, by age
        self._held: Counter[Hashable] = Counter()  # how many of them each client has
        self.counters = counters
        self._threads = [threading.Thread(target=self._work, name=f"run-{n}", daemon=True) for n in range(workers + 2)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests and tokens that wait for a run."""
        return self._batcher.waiting_requests, self._batcher.waiting_tokens

    @property
    def closed(self) -> bool:
        """It takes nothing more: it was told so, or it failed."""
        return self._closed

    @property
    def running(self) -> tuple[int, int]:
        """Texts and tokens that run."""
        with self._changed:
            return self._batcher.running_texts, self._batcher.running_tokens

    def oldest(self) -> float:
        """Seconds that the request which has waited longest for its first run has waited; 0 when none does."""
        with self._changed:
            since = next((job.submitted for job in self._jobs if not job.started), None)
        return 0.0 if since is None else time.monotonic() - since

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
            Overloaded: too much waits already. A client that has less than its share of a full queue is still
                let in, so that one cannot lock the others out.
            InvalidRequest: a text is too long for the memory there is.
            UnitvecError: the runner is closed.
        """
        job = _Job(model, client, ids, width)
        if not ids:
            job.future.set_result(job.vectors)
            return job.future
        longest = max(map(len, ids))
        if (needed := self._batcher.cost(model, 1, longest, longest)) > self._batcher.memory:
            raise InvalidRequest(
                f"a text of {longest} tokens needs {_mebibytes(needed)} of memory to run and there are "
                f"{_mebibytes(self._batcher.memory)}: cut it, or leave models less memory (unitvec serve --memory)"
            )
        with self._changed:
            if self._closed:
                raise UnitvecError("nothing runs here any more: closed")
            self._admit(client, job.tokens)
            self.counters.requests += 1
            self._batcher.add(job)
            self._jobs[job] = None
            self._held[client] += 1
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._cancelled(job) if future.cancelled() else None)
        return job.future

    def check(self, client: Hashable, tokens: int, *, inside: int = 0, own: int = 0) -> None:
        """Turn a request away before work is spent on it.

        Args:
            client: who asks.
            tokens: at least so many will come.
            inside: requests that have been let in and are not answered; those that were not submitted yet will be.
            own: how many of them are the client's.

        Raises:
            Overloaded: ``submit`` would raise it now.
        """
        with self._changed:
            self._admit(client, tokens, max(0, inside - len(self._jobs)), own)

    def forget(self, model: Hashable) -> None:
        """A model has been unloaded."""
        with self._changed:
            self._batcher.forget(model)

    def close(self, *, drop: bool = False) -> None:
        """Run what waits, or ``drop`` it, then end the threads."""
        with self._changed:
            self._closed = True
            waiting = list(self._jobs) if drop else []
            self._changed.notify_all()
        for job in waiting:
            job.future.cancel()
        for thread in self._threads:
            thread.join()

    def _admit(self, client: Hashable, tokens: int, coming: int = 0, own: int = 0) -> None:
        if self._is_full(client, tokens, coming, own):
            self.counters.rejected += 1
            raise Overloaded(BUSY)

    def _is_full(self, client: Hashable, tokens: int, coming: int, own: int) -> bool:
        requests, waiting = self.waiting
        if requests + coming < self.max_requests:
            return bool(requests) and waiting + tokens > self._max_tokens
        others = len(self._held) - (client in self._held)
        return max(own, self._held[client]) >= self.max_requests // (others + 1) or waiting + tokens > self._max_tokens

    def _cancelled(self, job: _Job) -> None:
        with self._changed:
            self._batcher.cancel(job)
            self._forget_job(job)
            self.counters.cancelled += 1
            self._changed.notify_all()  # one who closes may wait for nothing more

    def _forget_job(self, job: _Job) -> None:
        if job in self._jobs:
            del self._jobs[job]
            self._held[job.client] -= 1
            if not self._held[job.client]:
                del self._held[job.client]

    def _work(self) -> None:
        try:
            self._run_batches()
        except Exception:  # a fault of the scheduler itself: nobody may wait for ever on a thread that is gone
            logging.getLogger("unitvec").critical("the scheduler failed", exc_info=True)
            with self._changed:
                self._closed = True
                jobs = list(self._jobs)
            for job in jobs:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(UnitvecError("internal error: the scheduler failed"))

    def _run_batches(self) -> None:
        while (batch := self._take()) is not None:
            self._run_batch(batch)
            del batch  # an unloaded model must not live on in a thread that waits

    def _run_batch(self, batch: MicroBatch) -> None:
        began = time.monotonic()
        try:
            vectors = self._run(batch.model, [text.ids for text in batch.texts], batch.alone)
        except Exception as error:  # whatever it is, those who wait for it must hear of it
            self._fail(batch, error)
        else:
            self._finish(batch, vectors, time.monotonic() - began)

    def _take(self) -> MicroBatch | None:
        with self._changed:
            while True:
                now = time.monotonic()
                if self._free:
                    batch = self._batcher.next(now)
                    self._free -= batch is not None
                else:
                    batch = None if self._beside else self._batcher.beside(now)
                    self._beside = self._beside or batch
                if batch is not None:
                    if self._free and self._batcher.waiting_requests:
                        self._changed.notify()  # one request may have work for all
                    break
                if self._closed and not self._batcher.waiting_requests:
                    self._changed.notify_all()
                    return None
                self._changed.wait()
            for text in batch.texts:
                for job, _ in text.claims:
                    assert isinstance(job, _Job)
                    if not job.started:
                        job.started = True
                        self.counters.wait_seconds += now - job.submitted
            return batch

    def _finish(self, batch: MicroBatch, vectors: FloatArray, seconds: float) -> None:
        with self._changed:
            # Two that shared the cores tell nothing of how fast the model is by itself.
            shares = self._release(batch, None if self._beside else seconds)
            self._changed.notify()  # another thread begins the next run; this one hands out
            self.counters.ran([len(text.ids) for text in batch.texts], seconds)
        for job, pairs in shares:
            assert isinstance(job, _Job)
            index, row = np.array(pairs).T
            job.vectors[index] = vectors[row]
            with self._changed:  # two threads may hold parts of one request
                job.unfinished -= len(pairs)
                whole = not job.unfinished
                if whole:
                    self._forget_job(job)
            if whole and job.future.set_running_or_notify_cancel():
                job.future.set_result(job.vectors)

    def _fail(self, batch: MicroBatch, error: Exception) -> None:
        with self._changed:
            jobs = [job for job, _ in self._release(batch, None)]
            for job in jobs:
                assert isinstance(job, _Job)
                self._batcher.cancel(job)
                self._forget_job(job)
            self._changed.notify()
        for job in jobs:
            assert isinstance(job, _Job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)

    def _release(self, batch: MicroBatch, seconds: float | None) -> list[tuple[Request, list[tuple[int, int]]]]:
        if batch is self._beside:
            self._beside = None
        else:
            self._free += 1
        return self._batcher.done(batch, seconds)


def _mebibytes(count: float) -> str:
    return f"{count / (1 << 20):.0f} MiB"
