"""The runner's threads, with an engine that waits until it is told to go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from unitvec.errors import InvalidRequest, Overloaded, UnitvecError
from unitvec.serving.batcher import Batcher, Ids
from unitvec.serving.counters import Counters
from unitvec.serving.runner import Runner


class Engine:
    """Gives each text's first id as its vector. Runs one micro-batch each time it is let."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.began = threading.Semaphore(0)

    def run(self, model: object, texts: Sequence[Ids], alone: bool) -> np.ndarray:
        self.began.release()
        assert self.go.acquire(timeout=20)
        if model == "broken":
            raise RuntimeError("out of order")
        return np.array([[ids[0]] for ids in texts], np.float32)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def make(engine: Engine) -> Iterator[Callable[..., Runner]]:
    made: list[Runner] = []

    def one(
        max_requests: int = 100, max_tokens: int = 10_000, batcher: Batcher | None = None, workers: int = 1
    ) -> Runner:
        made.append(
            Runner(
                batcher or Batcher(),
                engine.run,
                workers=workers,
                max_requests=max_requests,
                max_tokens=max_tokens,
                counters=Counters(),
            )
        )
        return made[-1]

    yield one
    for _ in range(100):
        engine.go.release()
    for runner in made:
        runner.close(drop=True)


def test_one_who_joins_a_running_text_is_answered_and_forgotten(make: Callable[..., Runner], engine: Engine) -> None:
    runner = make()
    first = runner.submit("m", 1, [(1, 2, 3)])
    assert engine.began.acquire(timeout=20)
    second = runner.submit("m", 1, [(1, 2, 3)])
    engine.go.release()
    assert first.result(20) == second.result(20) == [[1]]
    assert runner.oldest() == 0
    assert runner.counters.texts == 1


def test_a_full_queue_lets_in_who_has_less_than_his_share(make: Callable[..., Runner], engine: Engine) -> None:
    runner = make(max_requests=8)
    runner.submit("m", 1, [(1,) * 500], client="loud")
    assert engine.began.acquire(timeout=20)
    for n in range(8):
        runner.submit("m", 1, [(10 + n,)], client="loud")
    with pytest.raises(Overloaded):
        runner.submit("m", 1, [(30,)], client="loud")
    quiet = runner.submit("m", 1, [(31,)], client="quiet")
    for _ in range(10):
        engine.go.release()
    assert quiet.result(20) == [[31]]


def test_a_full_queue_of_tokens(make: Callable[..., Runner], engine: Engine) -> None:
    runner = make(max_tokens=100)
    whole = runner.submit("m", 1, [(1,) * 1000])  # alone it is let in whatever its size
    assert engine.began.acquire(timeout=20)
    runner.submit("m", 1, [(2,) * 90])
    with pytest.raises(Overloaded):
        runner.submit("m", 1, [(3,) * 20])
    engine.go.release()
    engine.go.release()  # the second may have begun beside the first
    assert whole.result(20) == [[1]]


def test_what_cannot_be_run_is_an_error_for_those_who_asked_and_for_nobody_else(
    make: Callable[..., Runner], engine: Engine
) -> None:
    runner = make()
    broken = runner.submit("broken", 1, [(1,)])
    fine = runner.submit("m", 1, [(2,)])
    engine.go.release()
    engine.go.release()
    with pytest.raises(RuntimeError, match="out of order"):
        broken.result(20)
    assert fine.result(20) == [[2]]


def test_closing_drops_or_finishes_and_nothing_runs_after_it(make: Callable[..., Runner], engine: Engine) -> None:
    runner = make()
    running = runner.submit("m", 1, [(1,)])
    assert engine.began.acquire(timeout=20)
    waiting = runner.submit("m", 1, [(2,)])
    closing = threading.Thread(target=runner.close, kwargs={"drop": True})
    closing.start()
    engine.go.release()
    closing.join(20)
    assert not closing.is_alive()
    assert running.cancelled()
    assert waiting.cancelled()
    with pytest.raises(UnitvecError, match="closed"):
        runner.submit("m", 1, [(3,)])
    finishing = make()
    last = finishing.submit("m", 1, [(4,)])
    engine.go.release()
    finishing.close()
    assert last.result(0) == [[4]]


def test_a_text_that_cannot_fit_is_refused_with_what_it_needs(make: Callable[..., Runner], engine: Engine) -> None:
    mebibyte = 1 << 20
    runner = make(batcher=Batcher(cost=lambda _, texts, longest, __: texts * longest * mebibyte, memory=6 * mebibyte))
    with pytest.raises(InvalidRequest, match="a text of 7 tokens needs 7 MiB of memory to run and there are 6 MiB"):
        runner.submit("m", 1, [(1,), tuple(range(7))])
    assert runner.waiting == (0, 0)
    engine.go.release()
    assert runner.submit("m", 1, [tuple(range(6))]).result(20)[0, 0] == 0


def test_what_runs_beside_shares_the_memory(make: Callable[..., Runner], engine: Engine) -> None:
    batcher = Batcher(seconds_per_token=1, cost=lambda _, texts, longest, __: texts * longest, memory=10)
    runner = make(batcher=batcher)
    first = runner.submit("m", 1, [tuple(range(8))], "a")
    assert engine.began.acquire(timeout=20)
    second = runner.submit("m", 1, [tuple(range(3))], "b")  # would not fit beside the first
    third = runner.submit("n", 1, [(4, 5)], "c")  # does
    assert engine.began.acquire(timeout=20)
    assert runner.waiting == (1, 3)
    for _ in range(3):
        engine.go.release()
    assert [job.result(20)[0, 0] for job in (first, second, third)] == [0, 0, 4]


def test_one_request_has_work_for_all_lanes(engine: Engine, make: Callable[..., Runner]) -> None:
    runner = make(batcher=Batcher(budget=0.001, equal=0.001, seconds_per_token=0.001, lanes=2), workers=2)
    future = runner.submit("model", 1, [(1,), (2,), (3,), (4,)])
    for _ in range(2):  # both have begun before either is done
        assert engine.began.acquire(timeout=10)
    for _ in range(4):
        engine.go.release()
    assert future.result(timeout=10)[:, 0].tolist() == [1, 2, 3, 4]
