"""The scheduling rule, by simulation: a fake clock, and an engine whose vectors are the texts themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from unitvec.serving.batcher import Batcher, Ids, MicroBatch, Request

SECONDS_PER_TOKEN = 1 / 8000
BUDGET = 0.025
EQUAL = 0.075
LIMIT = BUDGET / SECONDS_PER_TOKEN  # tokens


@dataclass
class Simulation:
    """One engine that runs at a constant speed; every text has ids of its own unless it is given some."""

    batcher: Batcher = field(default_factory=lambda: Batcher(BUDGET, EQUAL, SECONDS_PER_TOKEN))
    now: float = 0.0
    served: int = 0  # tokens
    results: dict[Request, dict[int, Ids]] = field(default_factory=lambda: defaultdict(dict))
    finished: dict[Request, float] = field(default_factory=dict)
    batches: list[MicroBatch] = field(default_factory=list)
    _serial: int = 0

    def request(self, lengths: list[int], model: Hashable = "m", client: Hashable = None) -> Request:
        texts = []
        for length in lengths:
            self._serial += 1
            texts.append((self._serial, *[0] * (length - 1)))
        return self.add(Request(model, client, texts))

    def add(self, request: Request) -> Request:
        self.batcher.add(request)
        return request

    def step(self) -> MicroBatch | None:
        batch = self.batcher.next(self.now)
        if batch is None:
            return None
        self.batches.append(batch)
        seconds = batch.tokens * SECONDS_PER_TOKEN
        self.now += seconds
        self.served += batch.tokens
        for request, pairs in self.batcher.done(batch, seconds):
            for index, row in pairs:
                assert index not in self.results[request], "given twice"
                self.results[request][index] = batch.texts[row].ids
            if len(self.results[request]) == len(request.ids):
                self.finished[request] = self.now
        return batch

    def run(self) -> Iterator[MicroBatch]:
        while (batch := self.step()) is not None:
            yield batch


lengths = st.lists(st.integers(1, 256), min_size=1, max_size=30)


@given(
    st.lists(
        st.tuples(lengths, st.sampled_from("ab"), st.sampled_from([None, "x", "y"]), st.integers(0, 3)), max_size=12
    )
)
def test_every_text_runs_once_and_its_vector_stands_in_its_place(arrivals: list) -> None:
    simulation = Simulation()
    requests = []
    for texts, model, client, steps in arrivals:
        requests.append(simulation.request(texts, model, client))
        for _ in range(steps):
            simulation.step()
    list(simulation.run())
    for request in requests:
        assert [simulation.results[request][i] for i in range(len(request.ids))] == list(request.ids)
    assert sum(len(batch.texts) for batch in simulation.batches) == sum(len(r.ids) for r in requests)
    assert all(len({text.ids for text in batch.texts}) == len(batch.texts) for batch in simulation.batches)
    assert (simulation.batcher.waiting_requests, simulation.batcher.waiting_tokens) == (0, 0)


@given(st.lists(lengths, min_size=2, max_size=10))
def test_a_micro_batch_keeps_to_its_time_unless_one_text_is_longer(arrivals: list[list[int]]) -> None:
    simulation = Simulation()
    for texts in arrivals:
        simulation.request(texts)
    while simulation.batcher.waiting_requests:
        much = simulation.batcher.waiting_tokens > LIMIT * simulation.batcher.waiting_requests
        seconds = BUDGET if much and simulation.batcher.waiting_requests > 1 else EQUAL
        batch = simulation.step()
        assert batch is not None
        assert batch.tokens <= seconds / SECONDS_PER_TOKEN * 1.001 or len(batch.texts) == 1


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(100, 256), min_size=15, max_size=20), min_size=1, max_size=6), st.integers(1, 60))
def test_a_small_request_rides_in_the_next_micro_batch(bulk: list[list[int]], length: int) -> None:
    simulation = Simulation()
    for texts in bulk:
        simulation.request(texts)
    for _ in range(2 * len(bulk)):  # until each has had a turn: before that they are newcomers too
        simulation.step()
    query = simulation.request([length])
    simulation.step()
    assert query in simulation.finished


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(1, 256), min_size=1, max_size=12)), min_size=1, max_size=25
    ),
    st.lists(st.integers(1, 256), min_size=1, max_size=6),
)
def test_nobody_waits_longer_than_his_share_and_one_micro_batch(arrivals: list, own: list[int]) -> None:
    """Among n requests one of c tokens is done once each has been given c tokens, give or take a text."""
    simulation = Simulation()
    for steps, texts in arrivals[: len(arrivals) // 2]:
        simulation.request(texts)
        for _ in range(steps):
            simulation.step()
    before = simulation.served
    mine = simulation.request(own)
    for steps, texts in arrivals[len(arrivals) // 2 :]:
        for _ in range(steps):
            simulation.step()
        simulation.request(texts)
    while mine not in simulation.finished:
        assert simulation.step() is not None
    longest = 256
    share = (len(arrivals) + 1) * (sum(own) + 2 * longest)
    assert simulation.served - before <= share + max(LIMIT, longest)


def test_a_flood_of_newcomers_starves_nobody() -> None:
    simulation = Simulation()
    bulk = simulation.request([150] * 40)
    waiting = [simulation.request([35]) for _ in range(16)]
    while bulk not in simulation.finished:
        simulation.step()
        gone = [request for request in waiting if request in simulation.finished]
        waiting = [r for r in waiting if r not in gone] + [simulation.request([35]) for _ in gone]
    # One of 17: were its share less, its 6,000 tokens would take more than 17 times as many.
    assert simulation.served <= 17 * 6000 * 1.1 + LIMIT * 17


@settings(max_examples=30)
@given(
    st.lists(st.integers(100, 256), min_size=15, max_size=30), st.lists(st.integers(1, 100), min_size=15, max_size=30)
)
def test_models_share_the_machine_by_time(long: list[int], short: list[int]) -> None:
    simulation = Simulation()
    simulation.request(long, model="a")
    simulation.request(short, model="b")
    tokens: dict[Hashable, int] = defaultdict(int)
    while len(simulation.batcher._turns) == 2:
        batch = simulation.step()
        assert batch is not None
        tokens[batch.model] += batch.tokens
        assert abs(tokens["a"] - tokens["b"]) <= 2 * max(LIMIT, 256)


def test_clients_share_a_model_whatever_their_number_of_requests() -> None:
    simulation = Simulation()
    for _ in range(1000):
        simulation.request([30], client="many")
    alone = simulation.request([30] * 20, client="one")
    while alone not in simulation.finished:
        simulation.step()
    assert simulation.served <= 2 * 600 + 3 * LIMIT


@given(st.lists(st.tuples(lengths, st.booleans()), min_size=1, max_size=10), st.integers(0, 5))
def test_what_is_cancelled_leaves_nothing_behind(arrivals: list, steps: int) -> None:
    simulation = Simulation()
    requests = [(simulation.request(texts), dropped) for texts, dropped in arrivals]
    for _ in range(steps):
        simulation.step()
    done = set(simulation.finished)
    before = len(simulation.batches)
    for request, dropped in requests:
        if dropped:
            simulation.batcher.cancel(request)
    list(simulation.run())
    dropped_ids = {ids for request, dropped in requests if dropped and request not in done for ids in request.ids}
    assert not [t for batch in simulation.batches[before:] for t in batch.texts if t.ids in dropped_ids]
    assert all(request in simulation.finished for request, dropped in requests if not dropped)
    assert (simulation.batcher.waiting_requests, simulation.batcher.waiting_tokens) == (0, 0)
    assert not simulation.batcher._models["m"].texts


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=10), min_size=1, max_size=8), st.sets(st.integers(0, 7))
)
def test_equal_texts_that_wait_run_once_for_all(arrivals: list[list[int]], cancelled: set[int]) -> None:
    simulation = Simulation()
    texts = [tuple([n] * (10 + n)) for n in range(6)]
    requests = [simulation.add(Request("m", None, [texts[n] for n in numbers])) for numbers in arrivals]
    for n in cancelled & set(range(len(requests))):
        simulation.batcher.cancel(requests[n])
    kept = [r for n, r in enumerate(requests) if n not in cancelled]
    list(simulation.run())
    run = [text.ids for batch in simulation.batches for text in batch.texts]
    assert sorted(run) == sorted({ids for request in kept for ids in request.ids})
    for request in kept:
        assert [simulation.results[request][i] for i in range(len(request.ids))] == list(request.ids)
    assert (simulation.batcher.waiting_requests, simulation.batcher.waiting_tokens) == (0, 0)


def test_a_lone_request_may_fill_more_than_the_budget() -> None:
    simulation = Simulation()
    simulation.request([100] * 50)
    batch = simulation.step()
    assert batch is not None
    assert LIMIT < batch.tokens <= EQUAL / SECONDS_PER_TOKEN


def test_where_all_ask_for_little_micro_batches_are_larger_until_one_asks_for_much() -> None:
    simulation = Simulation()
    for _ in range(40):
        simulation.request([30])
    batch = simulation.step()
    assert batch is not None
    assert LIMIT < batch.tokens <= EQUAL / SECONDS_PER_TOKEN
    simulation.request([100] * 80)
    batch = simulation.step()
    assert batch is not None
    assert batch.tokens <= LIMIT


def test_lanes_share_what_waits() -> None:
    batcher = Batcher(BUDGET, EQUAL, SECONDS_PER_TOKEN, lanes=2)
    for n in range(8):
        batcher.add(Request("m", None, [(n,) * 10]))
    first, second = batcher.next(0.0), batcher.next(0.0)
    assert first is not None and second is not None
    assert (len(first.texts), len(second.texts)) == (4, 4)
    assert not (first.alone or second.alone)
    assert batcher.next(0.0) is None


def test_the_lanes_end_a_request_together() -> None:
    batcher = Batcher(BUDGET, EQUAL, SECONDS_PER_TOKEN, lanes=2)
    batcher.add(Request("m", None, [(n,) * 10 for n in range(64)]))
    ends, sizes = [0.0, 0.0], []
    running: list[MicroBatch | None] = [None, None]
    while True:
        lane = ends.index(min(ends))
        if (ran := running[lane]) is not None:
            batcher.done(ran, ran.tokens * SECONDS_PER_TOKEN)
        running[lane] = batch = batcher.next(ends[lane])
        if batch is None:
            break
        sizes.append(len(batch.texts))
        ends[lane] += batch.tokens * SECONDS_PER_TOKEN
    assert sum(sizes) == 64
    assert sizes == sorted(sizes, reverse=True)
    assert abs(ends[0] - ends[1]) <= 20 * SECONDS_PER_TOKEN


def test_only_a_single_text_with_nothing_beside_it_is_alone() -> None:
    batcher = Batcher(BUDGET, EQUAL, SECONDS_PER_TOKEN, lanes=2)
    batcher.add(Request("m", None, [(1,) * 30]))
    first = batcher.next(0.0)
    batcher.add(Request("m", None, [(2,) * 30]))
    second = batcher.next(0.0)
    assert first is not None and second is not None
    assert (first.alone, second.alone) == (True, False)
    for batch in (first, second):
        batcher.done(batch, BUDGET)
    batcher.add(Request("m", None, [(1,) * 30]))
    batcher.add(Request("another", None, [(1,) * 30]))
    third = batcher.next(0.0)
    assert third is not None
    assert not third.alone, "somebody else waits"


def test_texts_of_like_length_run_together() -> None:
    simulation = Simulation()
    simulation.request([20, 200] * 30)
    simulation.request([20, 200] * 30)
    spread = [max(sizes) - min(sizes) for b in simulation.run() for sizes in [[len(t.ids) for t in b.texts]]]
    assert sum(spread) / len(spread) < 40


def test_speed_is_learned_from_what_ran() -> None:
    simulation = Simulation(batcher=Batcher(BUDGET, EQUAL, seconds_per_token=SECONDS_PER_TOKEN / 100))
    for _ in range(2):
        simulation.request([50] * 3000)
    batches = list(simulation.run())
    assert batches[-2].tokens <= LIMIT * 1.2


def test_a_query_runs_beside_what_cannot_be_stopped() -> None:
    simulation = Simulation()
    simulation.request([8192])
    running = simulation.batcher.next(0.0)
    assert running is not None
    assert simulation.batcher.beside(0.0) is None, "nobody else waits"
    query = simulation.request([30])
    late = simulation.batcher.beside(running.tokens * SECONDS_PER_TOKEN - BUDGET / 2)
    assert late is None, "what runs is done soon"
    batch = simulation.batcher.beside(0.1)
    assert batch is not None
    assert [text.ids for text in batch.texts] == list(query.ids)


def test_those_who_run_already_do_not_run_beside_themselves() -> None:
    simulation = Simulation()
    simulation.request([100] * 50)
    assert simulation.batcher.next(0.0) is not None
    assert simulation.batcher.beside(0.0) is None
    simulation.request([100] * 50, model="another")
    assert simulation.batcher.beside(0.0) is None, "bulk beside bulk makes both slow"
    simulation.request([30], model="another")
    batch = simulation.batcher.beside(0.0)
    assert batch is not None
    assert batch.model == "another"
    assert batch.tokens == 30


def test_bulk_too_runs_beside_what_takes_very_long() -> None:
    simulation = Simulation()
    simulation.request([8192])
    assert simulation.batcher.next(0.0) is not None
    simulation.request([100] * 50)
    batch = simulation.batcher.beside(0.1)
    assert batch is not None
    assert 0 < batch.tokens <= LIMIT


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.integers(1, 256), min_size=1, max_size=8), min_size=1, max_size=12),
    st.integers(256, 2000),
    st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_all_that_runs_at_a_time_fits_into_memory(requests: list[list[int]], room: int, ends: list[bool]) -> None:
    batcher = Batcher(BUDGET, 0.1, SECONDS_PER_TOKEN, cost=lambda _, texts, longest, __: texts * longest, memory=room)
    for number, lengths in enumerate(requests):
        ids = [
            (number, place, *range(length - 2)) if length > 2 else (number, place)
            for place, length in enumerate(lengths)
        ]
        batcher.add(Request("m", number, ids))
    running: list[MicroBatch] = []
    for is_end in [*ends, *[True] * sum(map(len, requests))] * 2:
        if is_end and running:
            batcher.done(running.pop(0), None)
        elif (batch := batcher.next(0.0)) is not None:
            running.append(batch)
            used = [len(one.texts) * max(len(text.ids) for text in one.texts) for one in running]
            assert sum(used) <= room
    assert not batcher.waiting_tokens  # nobody waits for ever
