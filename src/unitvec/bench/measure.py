"""What a load came to, and whether the answers were right."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unitvec.bench.client import Connection, Endpoint
from unitvec.bench.load import Exchange, Request, closed_loop, open_loop
from unitvec.bench.protocol import PROTOCOLS, BadAnswer, FloatArray, error_message
from unitvec.bench.texts import Texts
from unitvec.errors import UnitvecError

BULK_CLIENTS, BULK_BATCH = 4, 32  # of the mix: passages
QUERY_PAUSE = 0.05  # seconds between an answer and the next lone query
_SAMPLE = 4  # answers of each measurement whose vectors are compared
_SAME = 0.99  # cosine; quantized models stay above it, a neighbour's vector far below


@dataclass(frozen=True)
class Measurement:
    """One load, measured.

    Attributes:
        texts: the kind of text.
        clients: how many at once; 0 for an open loop.
        batch: texts a request.
        rate: requests a second that were to arrive; None for a closed loop.
        requests: how many were sent.
        seconds: from the first request to the last answer.
        answered: texts in right answers.
        tokens: what the server says they were; None if it does not say.
        p50, p90, p99, worst: of the latency of right answers, in seconds; nan without any.
        failures: what went wrong, and how often.
        agreement: the lowest cosine between a text's vector in the load and alone, over a sample; nan without any.
        client_seconds: processor time that this load generator took.
    """

    texts: str
    clients: int
    batch: int
    rate: float | None
    requests: int
    seconds: float
    answered: int
    tokens: int | None
    p50: float
    p90: float
    p99: float
    worst: float
    failures: dict[str, int]
    agreement: float
    client_seconds: float

    @property
    def errors(self) -> int:
        """Requests without a right answer."""
        return sum(self.failures.values())

    @property
    def texts_per_second(self) -> float:
        """Throughput."""
        return self.answered / self.seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Throughput, where the server counts tokens."""
        return None if self.tokens is None else self.tokens / self.seconds


@dataclass(frozen=True)
class Mix:
    """A lone query and bulk, each alone and both together."""

    query_alone: Measurement
    query_under_bulk: Measurement
    bulk_alone: Measurement
    bulk_with_query: Measurement


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float, float]:
    """The 50th, 90th and 99th percentile (linear between neighbours) and the greatest; nan of nothing."""
    if not seconds:
        return (np.nan,) * 4
    p50, p90, p99, worst = np.percentile(seconds, [50, 90, 99, 100])
    return float(p50), float(p90), float(p99), float(worst)


class Bench:
    """Measures one model of one server.

    Args:
        url: the server's.
        kind: one of :data:`PROTOCOLS`.
        model: as the server calls it.
        texts: where texts come from.
        timeout: seconds until an answer counts as lost.
    """

    def __init__(self, url: str, kind: str, model: str, texts: Texts, *, timeout: float = 300.0) -> None:
        self.url = url
        self.model = model
        self.width = 0
        self._protocol = PROTOCOLS[kind]
        self.endpoint = Endpoint.parse(url, self._protocol.path)
        self._texts = texts
        self._timeout = timeout
        self._pace: dict[str, float] = {}  # texts a second, by kind of text, as last seen

    async def probe(self) -> None:
        """Make sure that the server is there and the model loaded, and note the vectors' width.

        Raises:
            UnitvecError: it is not, and why.
        """
        self.width = (await self.embed(self._texts.take("short", 1))).shape[1]

    async def embed(self, texts: list[str]) -> FloatArray:
        """The vectors of texts, by one request, outside any measurement.

        Raises:
            UnitvecError: there are none, and why.
        """
        connection = Connection(self.endpoint, self._timeout)
        try:
            await connection.open()
            reply = await connection.post(self.request(texts).body)
        except OSError as error:
            raise UnitvecError(f"no server answers at {self.url}: {_reason(error)}") from None
        finally:
            connection.close()
        if reply.status != 200:
            said = error_message(reply.body)
            answered = f"{self.url} answered {reply.status}" if reply.status else f"no answer from {self.url}"
            raise UnitvecError(f"{answered}: {said}" if said else answered)
        vectors, _ = self._protocol.answer(reply.body, reply.headers)
        return vectors

    def requests(self, texts: str, batch: int, count: int) -> list[Request]:
        """``count`` requests of ``batch`` texts that were never sent before."""
        return [self.request(self._texts.take(texts, batch)) for _ in range(count)]

    def request(self, texts: list[str]) -> Request:
        """A request of these texts."""
        return Request(texts, self._protocol.request(self.model, texts))

    async def closed(self, texts: str, clients: int, batch: int, seconds: float) -> Measurement:
        """About ``seconds`` of requests from clients that wait for their answers; each sends one at least."""
        count = await self._count(texts, batch, seconds, clients)
        await self._run(self.requests(texts, batch, count // 10), clients)  # connections, buffers: not measured
        return await self.closed_of(texts, self.requests(texts, batch, count), clients)

    async def closed_of(self, texts: str, requests: list[Request], clients: int) -> Measurement:
        """These requests, from clients that wait for their answers."""
        cpu = time.process_time()
        exchanges = await self._run(requests, clients)
        cpu = time.process_time() - cpu
        return await self._measured(exchanges, texts, clients, len(requests[0].texts), None, cpu)

    async def open(self, texts: str, rate: float, batch: int, seconds: float) -> Measurement:
        """About ``seconds`` of requests that arrive at ``rate`` a second, whatever becomes of them."""
        requests = self.requests(texts, batch, max(1, round(rate * seconds)))
        cpu = time.process_time()
        exchanges = await open_loop(self.endpoint, requests, rate, timeout=self._timeout)
        cpu = time.process_time() - cpu
        return await self._measured(exchanges, texts, 0, batch, rate, cpu)

    async def mix(self, seconds: float) -> Mix:
        """A lone short query again and again, and bulk of passages; alone and together, about ``seconds`` each."""
        count = await self._count("passages", BULK_BATCH, seconds, BULK_CLIENTS)
        await self._queries(seconds / 10)
        query_alone = await self._queries(seconds)
        bulk_alone = await self.closed_of("passages", self.requests("passages", BULK_BATCH, count), BULK_CLIENTS)
        requests = self.requests("passages", BULK_BATCH, count)
        over = asyncio.Event()
        cpu = time.process_time()
        queries = asyncio.create_task(self._run(self._lone_queries(), 1, pause=QUERY_PAUSE, stop=over))
        bulk = await self._run(requests, BULK_CLIENTS)
        over.set()
        lone = await queries
        cpu = time.process_time() - cpu
        return Mix(
            query_alone=query_alone,
            query_under_bulk=await self._measured(lone, "short", 1, 1, None, cpu),
            bulk_alone=bulk_alone,
            bulk_with_query=await self._measured(bulk, "passages", BULK_CLIENTS, BULK_BATCH, None, cpu),
        )

    async def _queries(self, seconds: float) -> Measurement:
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        cpu = time.process_time()
        exchanges = await self._run(self._lone_queries(), 1, pause=QUERY_PAUSE, stop=over)
        return await self._measured(exchanges, "short", 1, 1, None, time.process_time() - cpu)

    def _lone_queries(self) -> Iterator[Request]:
        return (self.requests("short", 1, 1)[0] for _ in itertools.count())

    async def _run(
        self,
        requests: list[Request] | Iterator[Request],
        clients: int,
        *,
        pause: float = 0.0,
        stop: asyncio.Event | None = None,
    ) -> list[Exchange]:
        return await closed_loop(self.endpoint, requests, clients, timeout=self._timeout, pause=pause, stop=stop)

    async def _count(self, texts: str, batch: int, seconds: float, clients: int) -> int:
        """How many requests take about so long, judged by what was seen before."""
        if texts not in self._pace:
            began = time.perf_counter()
            await self._run(self.requests(texts, 8, 2), 2)
            self._pace[texts] = 16 / (time.perf_counter() - began)
        return max(clients, round(seconds * self._pace[texts] / batch))

    async def _measured(
        self, exchanges: list[Exchange], texts: str, clients: int, batch: int, rate: float | None, cpu: float
    ) -> Measurement:
        failures: Counter[str] = Counter()
        right: list[tuple[Exchange, FloatArray]] = []
        tokens: int | None = 0
        for exchange in exchanges:
            try:
                vectors, counted = self._read(exchange)
            except BadAnswer as error:
                failures[error.message] += 1
                continue
            right.append((exchange, vectors))
            tokens = None if tokens is None or counted is None else tokens + counted
        agreement = await self._agreement(right)
        if agreement < _SAME:
            failures[f"a text's vector is not the one it has alone: cosine {agreement:.3f}"] += 1
        seconds = max(e.reply.ended for e in exchanges) - min(e.intended for e in exchanges)
        answered = sum(len(exchange.request.texts) for exchange, _ in right)
        if answered and not rate:
            self._pace[texts] = answered / seconds
        return Measurement(
            texts,
            clients,
            batch,
            rate,
            len(exchanges),
            seconds,
            answered,
            tokens,
            *percentiles([exchange.latency for exchange, _ in right]),
            dict(failures),
            agreement,
            cpu,
        )

    def _read(self, exchange: Exchange) -> tuple[FloatArray, int | None]:
        reply = exchange.reply
        if reply.status != 200:
            raise BadAnswer(f"{reply.status or 'lost'}: {error_message(reply.body)}")
        vectors, tokens = self._protocol.answer(reply.body, reply.headers)
        wanted = (len(exchange.request.texts), self.width)
        if vectors.shape != wanted:
            raise BadAnswer(f"{vectors.shape[0]} vectors of {vectors.shape[1]} for {wanted[0]} of {wanted[1]}")
        return vectors, tokens

    async def _agreement(self, right: list[tuple[Exchange, FloatArray]]) -> float:
        """The lowest cosine of a sample of texts' vectors with those that the texts have alone."""
        sample = right[:: max(1, len(right) // _SAMPLE)][:_SAMPLE]
        if not sample:
            return np.nan
        rows = [number * 7 % len(vectors) for number, (_, vectors) in enumerate(sample)]
        alone = [self.request([e.request.texts[row]]) for (e, _), row in zip(sample, rows, strict=True)]
        lowest = 1.0
        for exchange, row, (_, vectors) in zip(await self._run(alone, 1), rows, sample, strict=True):
            try:
                (again,), _ = self._read(exchange)
            except BadAnswer:
                return -1.0
            one = vectors[row]
            lowest = min(lowest, float(one @ again / (np.linalg.norm(one) * np.linalg.norm(again))))
        return lowest


def _reason(error: OSError) -> str:
    """Why a connection failed, without the tuple of addresses that asyncio puts around it."""
    return (error.strerror or str(error)).rsplit(": ", 1)[-1] if error.errno else str(error)
