"""Requests that go to a replica together: who with whom, and what becomes of the others when one leaves or fails."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from unitvec.errors import InvalidRequest, UnitvecError
from unitvec.serving.backend import Embeddings
from unitvec.store.name import Name

if TYPE_CHECKING:
    from unitvec.cluster.calls import Answer, Call

pytestmark = pytest.mark.ray
NAME, OTHER = Name.parse("all-minilm"), Name.parse("another")


class Replicas:
    """Answers a call, after a while, with the lengths of its texts; notes who went with whom."""

    def __init__(self, count: int = 2, seconds: float = 0.02) -> None:
        self.calls: list[list[str]] = []
        self.given_up = 0
        self.held: Counter[Any] = Counter()
        self.count, self.seconds = count, seconds

    async def send(self, call: Call) -> list[Answer]:
        call.choice = self.count
        call.goes_to(f"replica {len(self.calls) % self.count}")  # type: ignore[arg-type]
        self.held = call.queues
        self.calls.append([str(texts[0]) for texts, _ in call.requests])
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return [_answer(str(texts[0])) for texts, _ in call.requests]


def _answer(text: str) -> Answer:
    if text.startswith("wrong"):
        return InvalidRequest(text)
    return Embeddings(np.zeros((1, 4), np.float32), len(text), 0)


def _run(scenario: Callable[[Callable[..., Coroutine[Any, Any, Answer]], Replicas], Coroutine[Any, Any, None]]) -> None:
    from unitvec.cluster.calls import Together

    async def main() -> None:
        replicas = Replicas()
        together = Together(replicas.send)

        def ask(text: str, name: Name = NAME, client: str = "c", count: int = 1) -> Coroutine[Any, Any, Answer]:
            return together.ask(name, ([text] * count, {}), client)

        await scenario(ask, replicas)
        await asyncio.sleep(0.01)
        assert not replicas.held  # whatever happened, nothing is in a queue any more
        assert not together._companies

    asyncio.run(main())


def test_each_gets_the_answer_to_its_own() -> None:
    async def scenario(ask: Callable[..., Coroutine[Any, Any, Answer]], replicas: Replicas) -> None:
        async def client(number: int) -> None:
            for turn in range(10):
                text = "x" * (16 * turn + number + 1)
                answer = await ask(text)
                assert isinstance(answer, Embeddings)
                assert answer.tokens == len(text)

        await asyncio.gather(*(client(number) for number in range(16)))
        sizes = [len(texts) for texts in replicas.calls]
        assert sum(sizes) == 160
        assert len(sizes) < 100  # they do keep company
        # Two replicas never see all work in one call.
        assert max(sizes[5:]) <= 16 * 2 / 3

    _run(scenario)


def test_one_alone_waits_for_nobody() -> None:
    async def scenario(ask: Callable[..., Coroutine[Any, Any, Answer]], replicas: Replicas) -> None:
        for _ in range(5):
            await ask("text")
        assert [len(texts) for texts in replicas.calls] == [1] * 5

    _run(scenario)


def test_other_clients_models_and_large_requests_go_by_themselves() -> None:
    async def scenario(ask: Callable[..., Coroutine[Any, Any, Answer]], replicas: Replicas) -> None:
        asked = [ask(f"{client} {n}", client=client) for n in range(8) for client in "ab"]
        asked += [ask(f"o {n}", name=OTHER) for n in range(8)] + [ask(f"l {n} " * 1000) for n in range(4)]
        asked += [ask(f"m {n}", count=100) for n in range(4)]
        await asyncio.gather(*asked)
        assert {len({text.split()[0] for text in texts}) for texts in replicas.calls} == {1}
        assert [len(texts) for texts in replicas.calls if texts[0][0] in "lm"] == [1] * 8

    _run(scenario)


def test_an_error_is_its_own_callers() -> None:
    async def scenario(ask: Callable[..., Coroutine[Any, Any, Answer]], replicas: Replicas) -> None:
        answers = await asyncio.gather(*(ask("wrong" if n % 3 == 0 else "right") for n in range(12)))
        assert any(len(texts) > 1 for texts in replicas.calls)
        assert [isinstance(answer, UnitvecError) for answer in answers] == [n % 3 == 0 for n in range(12)]

    _run(scenario)


def test_who_leaves_takes_nobody_along_but_the_last_does() -> None:
    async def scenario(ask: Callable[..., Coroutine[Any, Any, Answer]], replicas: Replicas) -> None:
        asked = [asyncio.ensure_future(ask(f"text {n}")) for n in range(12)]
        await asyncio.sleep(0.005)
        size = {text: len(texts) for texts in replicas.calls for text in texts}
        leaving = [text for texts in replicas.calls for text in texts[: len(texts) // 2]]
        for n, task in enumerate(asked):
            if f"text {n}" in leaving:
                task.cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert leaving
        assert max(size.values()) > 1
        for n, answer in enumerate(answers):
            assert isinstance(answer, asyncio.CancelledError if f"text {n}" in leaving else Embeddings)
        assert replicas.given_up == 0

        everyone = [asyncio.ensure_future(ask(f"text {n}")) for n in range(12)]
        await asyncio.sleep(0.005)
        calls = len(replicas.calls)
        for task in everyone:
            task.cancel()
        newcomer = asyncio.ensure_future(ask("newcomer"))  # joins none of those that are given up
        await asyncio.gather(*everyone, return_exceptions=True)
        assert isinstance(await newcomer, Embeddings)
        assert replicas.given_up > 0
        assert len(replicas.calls) == calls + 1

    _run(scenario)


def test_a_lost_replica_is_told_to_all_who_went() -> None:
    async def scenario(ask: Callable[..., Coroutine[Any, Any, Answer]], replicas: Replicas) -> None:
        async def lost(call: Call) -> list[Answer]:
            call.goes_to("replica")  # type: ignore[arg-type]
            await asyncio.sleep(0.001)
            raise ConnectionError

        from unitvec.cluster.calls import Together

        together = Together(lost)
        asked = (together.ask(NAME, ([f"text {n}"], {}), None) for n in range(8))
        assert {type(answer) for answer in await asyncio.gather(*asked, return_exceptions=True)} == {ConnectionError}
        assert not together._queues
        assert not together._companies
        await ask("text")

    _run(scenario)


def test_an_ended_call_is_made_again_for_those_who_wait() -> None:
    async def scenario(_: Callable[..., Coroutine[Any, Any, Answer]], replicas: Replicas) -> None:
        from unitvec.cluster.calls import Together

        async def ended(call: Call) -> list[Answer]:
            if len(call.requests) > 1:
                raise asyncio.CancelledError
            return await replicas.send(call)

        together = Together(ended)
        asked = [together.ask(NAME, (["x" * n], {}), None) for n in range(1, 13)]
        answers = await asyncio.gather(*asked)
        assert [answer.tokens for answer in answers if isinstance(answer, Embeddings)] == list(range(1, 13))

    _run(scenario)


def test_a_call_is_not_in_the_context_of_who_came_first() -> None:
    """Serve ends all that was asked in a request's context when its caller leaves."""
    request = contextvars.ContextVar("request", default="none")

    async def scenario(_: Callable[..., Coroutine[Any, Any, Answer]], replicas: Replicas) -> None:
        from unitvec.cluster.calls import Together

        contexts = set()

        async def noted(call: Call) -> list[Answer]:
            contexts.add(request.get())
            return await replicas.send(call)

        together = Together(noted)
        request.set("somebody's")
        await asyncio.gather(*(together.ask(NAME, ([f"text {n}"], {}), None) for n in range(12)))
        assert contexts == {"none"}

    _run(scenario)


def test_a_call_leaves_its_queues_at_home() -> None:
    from unitvec.cluster.calls import Call

    queues: Counter[Any] = Counter()
    call = Call(NAME, [(["text"], {"truncate": True}), (["more"], {})], queues)
    call.goes_to("one")  # type: ignore[arg-type]
    call.goes_to("other")  # type: ignore[arg-type]
    assert queues == {"other": 2}
    sent = pickle.loads(pickle.dumps(call))
    assert (sent.name, sent.requests, sent.queues) == (call.name, call.requests, Counter())
    call.over()
    call.over()
    assert not queues
