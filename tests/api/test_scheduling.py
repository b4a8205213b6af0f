"""The scheduler through a real server: load of all kinds at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import httpx
import numpy as np

from tests.conftest import Server
from tests.reference import make
from unitvec.serving.runner import BUSY


async def _ask(client: httpx.AsyncClient, texts: list[str], **fields: object) -> np.ndarray:
    reply = await client.post("/api/embed", json={"model": "all-minilm", "input": texts, **fields})
    assert reply.status_code == 200, reply.text
    return np.array(reply.json()["embeddings"], np.float32)


def test_vectors_under_heavy_mixed_load_are_those_computed_alone(start: Callable[..., Server]) -> None:
    """Ten thousand texts in requests of all sizes, some given up on the way, from forty clients at once."""
    server = start("all-minilm")
    texts, wanted = make.load()
    short = [i for i in range(len(texts)) if len(texts[i]) < 300 and texts[i]]
    chance = random.Random(7)
    sizes = [1] * 300 + [8] * 100 + [64] * 60 + [1000] * 5
    chance.shuffle(sizes)

    async def run() -> float:
        worst = 0.0
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits, trust_env=False) as client:
            turn = asyncio.Semaphore(40)

            async def one(size: int, number: int) -> float:
                chosen = [chance.choice(short) for _ in range(size)]
                async with turn:
                    asking = _ask(client, [texts[i] for i in chosen])
                    if number % 25 == 24:  # this one leaves
                        try:
                            await asyncio.wait_for(asking, 0.02)
                        except TimeoutError:
                            return 0.0
                        return 0.0
                    vectors = await asking
                return float(np.abs(vectors - wanted[chosen]).max())

            for result in await asyncio.gather(*(one(size, n) for n, size in enumerate(sizes))):
                worst = max(worst, result)
        return worst

    # 1e-6 for the batch, and what fp32 by another library differs by itself.
    assert asyncio.run(run()) < 3e-6


def test_the_cache_gives_the_same_vectors(start: Callable[..., Server]) -> None:
    server = start("all-minilm", "--cache-mb", "1")
    first = server.embed(input=["one", "two", "one"])
    again = server.embed(input=["two", "three", "one"])
    assert again["embeddings"][0] == first["embeddings"][1]  # type: ignore[index]
    assert again["embeddings"][2] == first["embeddings"][0]  # type: ignore[index]
    assert again["prompt_eval_count"] == 9
    cut = server.embed(input="one", dimensions=2)["embeddings"]
    assert len(cut[0]) == 2  # type: ignore[index]
    assert server.embed(input="one")["embeddings"] == [first["embeddings"][0]]  # type: ignore[index]
    many = [f"text {i}" for i in range(1000)]  # more than fits
    once, twice = (np.array(server.embed(input=many)["embeddings"]) for _ in range(2))
    assert np.abs(once - twice).max() <= 1e-6


def test_one_models_bulk_does_not_starve_anothers_queries(start: Callable[..., Server]) -> None:
    server = start("all-minilm")
    copied = server.client.post("/api/copy", json={"source": "all-minilm", "destination": "another"})
    assert copied.status_code == 200
    texts, wanted = make.load()
    server.embed(model="another", input="loaded before it starts")

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300, trust_env=False) as client:
            bulk = asyncio.create_task(_ask(client, [f"passage {n} " + "word " * 100 for n in range(400)]))
            await asyncio.sleep(0.2)
            for number in range(5):
                vectors = await _ask(client, [texts[number]], model="another")
                assert np.abs(vectors - wanted[number]).max() < 3e-6
                assert not bulk.done(), "the queries waited for all of the other model's texts"
            await bulk

    asyncio.run(run())


def test_overload_turns_away_at_once_and_loses_nothing_that_was_let_in(start: Callable[..., Server]) -> None:
    server = start("all-minilm", "--max-queue", "8")
    texts, wanted = make.load()
    short = [i for i in range(len(texts)) if len(texts[i]) < 300 and texts[i]]

    async def run() -> list[int]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits, trust_env=False) as client:

            async def one(index: int) -> int:
                reply = await client.post("/api/embed", json={"model": "all-minilm", "input": texts[index]})
                if reply.status_code == 503:
                    assert reply.json() == {"error": BUSY}
                    assert int(reply.headers["Retry-After"]) >= 1
                else:
                    vectors = np.array(reply.json()["embeddings"], np.float32)
                    assert np.abs(vectors - wanted[index]).max() < 3e-6
                return reply.status_code

            return await asyncio.gather(*(one(short[n % len(short)]) for n in range(200)))

    statuses = asyncio.run(run())
    assert set(statuses) == {200, 503}
    assert len(server.embed(input="and then it serves as before")["embeddings"]) == 1  # type: ignore[arg-type]
