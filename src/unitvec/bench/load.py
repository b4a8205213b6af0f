"""Two ways to load a server: clients that wait for their answers, and arrivals that wait for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from unitvec.bench.client import Connection, Endpoint, Reply

MAX_CONNECTIONS = 1024  # of an open loop; what arrives while all are taken waits, and its clock runs


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """Texts to send, and the bytes that say so."""

    texts: list[str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what became of it. ``intended`` is when it was to be sent, on ``time.perf_counter``."""

    request: Request
    intended: float
    reply: Reply

    @property
    def latency(self) -> float:
        """Seconds from the intended time to the answer's last byte."""
        return self.reply.ended - self.intended


async def closed_loop(
    to: Endpoint,
    requests: Iterable[Request],
    clients: int,
    *,
    timeout: float,  # noqa: ASYNC109  of each request
    pause: float = 0.0,
    stop: asyncio.Event | None = None,
) -> list[Exchange]:
    """Send requests from clients that each send the next when they have the answer to their last.

    All connections stand before the first request goes out. The clients take from the same supply, so
    all are at work until the last requests are under way.

    Args:
        to: the server.
        requests: what to send; when there are no more, it is over.
        clients: how many at once, at least 1.
        timeout: seconds until an answer counts as lost.
        pause: seconds that a client waits before it sends the next.
        stop: once set, nothing more is sent.
    """
    supply = iter(requests)
    exchanges: list[Exchange] = []
    connections = [Connection(to, timeout) for _ in range(clients)]

    async def client(connection: Connection) -> None:
        for request in supply:
            reply = await connection.post(request.body)
            exchanges.append(Exchange(request, reply.began, reply))
            if pause:
                await asyncio.sleep(pause)
            if stop is not None and stop.is_set():
                break

    try:
        await _open(connections)
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(client(connection))
    finally:
        for connection in connections:
            connection.close()
    return exchanges


async def open_loop(
    to: Endpoint,
    requests: Sequence[Request],
    rate: float,
    *,
    timeout: float,  # noqa: ASYNC109  of each request
    seed: int = 0,
) -> list[Exchange]:
    """Send requests at random times (a Poisson process), however late the answers are.

    A slow server does not slow the arrivals down, so what its slowness does to those who come
    meanwhile is measured too: latency counts from the time when a request was to be sent.

    Args:
        to: the server.
        requests: what to send.
        rate: requests a second, on average.
        timeout: seconds until an answer counts as lost.
        seed: of the arrival times.
    """
    rng = random.Random(seed)  # noqa: S311  no secret
    exchanges: list[Exchange] = []
    idle = [Connection(to, timeout) for _ in range(min(16, len(requests)))]
    places = asyncio.Semaphore(MAX_CONNECTIONS)

    async def arrive(request: Request, intended: float) -> None:
        async with places:
            connection = idle.pop() if idle else Connection(to, timeout)
            reply = await connection.post(request.body)
            idle.append(connection)
        exchanges.append(Exchange(request, intended, reply))

    try:
        await _open(idle)
        at = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for request in requests:
                at += rng.expovariate(rate)
                # A timer of whole milliseconds may wake too soon.
                while (early := at - time.perf_counter()) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(early)
                group.create_task(arrive(request, at))
    finally:
        for connection in idle:
            connection.close()
    return exchanges


async def _open(connections: Sequence[Connection]) -> None:
    """Connect; a server that refuses some is no reason to stop: those try again when they send."""
    await asyncio.gather(*(connection.open() for connection in connections), return_exceptions=True)


def run(work: Coroutine[Any, Any, T]) -> T:
    """As :func:`asyncio.run`, on uvloop where there is one."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):  # there is none for Windows
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
