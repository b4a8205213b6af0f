import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable

import pytest

from unitvec.bench import load
from unitvec.bench.measure import Bench, percentiles
from unitvec.bench.texts import Texts
from unitvec.errors import UnitvecError

Answer = Callable[[list[str]], bytes]


def reply(embeddings: list[list[float]]) -> bytes:
    return http(200, json.dumps({"embeddings": embeddings, "prompt_eval_count": len(embeddings)}).encode())


def http(status: int, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def right(texts: list[str]) -> bytes:
    return reply([vector(text) for text in texts])


def vector(text: str) -> list[float]:
    angle = hash(text) % 1000 / 1000
    return [math.cos(angle * math.tau), math.sin(angle * math.tau)]


@contextlib.asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """A server that answers as it is told; no bytes stand for hanging up."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                said = answer(json.loads(await reader.readexactly(length))["input"])
                writer.write(said)
                if not said:
                    break
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def bench(url: str, timeout: float = 10) -> Bench:  # noqa: ASYNC109
    made = Bench(url, "ollama", "m", Texts(1), timeout=timeout)
    await made.probe()
    return made


def test_percentiles():
    assert percentiles([1.0]) == (1, 1, 1, 1)
    assert percentiles([3.0, 1.0, 2.0])[0] == 2
    assert percentiles(list(map(float, range(101)))) == (50, 90, 99, 100)
    assert all(map(math.isnan, percentiles([])))


def test_every_text_is_sent_once_and_counted():
    seen: list[str] = []

    def answer(texts: list[str]) -> bytes:
        seen.extend(texts)
        return right(texts)

    async def main() -> None:
        async with server(answer) as url:
            made = await bench(url)
            seen.clear()
            requests = made.requests("short", 3, 20)
            measured = await made.closed_of("short", requests, 4)
        sent = [text for request in requests for text in request.texts]
        assert sorted(seen[:60]) == sorted(sent)
        assert (measured.requests, measured.answered, measured.tokens) == (20, 60, 60)
        assert measured.errors == 0
        assert measured.agreement == pytest.approx(1)
        assert measured.p50 <= measured.p90 <= measured.p99 <= measured.worst
        assert measured.texts_per_second == pytest.approx(60 / measured.seconds)

    load.run(main())


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (lambda _: http(503, b'{"error":"server busy"}'), "503: server busy"),
        (lambda texts: reply([vector(text) for text in texts[1:]]), "1 vectors of 2 for 2 of 2"),
        (lambda texts: reply([[*vector(text), 0.0] for text in texts]), "2 vectors of 3 for 2 of 2"),
        (lambda _: b"", "lost: the server closed the connection"),
        (lambda _: b"SSH-2.0-x\r\n", "lost: not HTTP: "),
        (lambda _: http(200, b"{}"), "not an answer of this kind of server: b'{}'"),
    ],
)
def test_what_goes_wrong_is_counted_by_its_name(answer: Answer, failure: str):
    async def main() -> None:
        async with server(lambda texts: answer(texts) if len(texts) == 2 else right(texts)) as url:
            made = await bench(url)
            measured = await made.closed_of("short", made.requests("short", 2, 6), 2)
        ((said, times),) = measured.failures.items()
        assert said.startswith(failure)
        assert times == measured.errors == 6
        assert measured.answered == 0
        assert math.isnan(measured.p50)

    load.run(main())


def test_a_server_that_never_answers_is_given_up():
    async def main() -> None:
        async with server(lambda texts: right(texts) if len(texts) == 1 else b"HTTP/1.1 200 OK\r\n") as url:
            made = await bench(url, timeout=0.1)
            measured = await made.closed_of("short", made.requests("short", 2, 2), 2)
        assert measured.failures == {"lost: no answer in 0.1 s": 2}

    load.run(main())


def test_vectors_of_the_wrong_texts_are_noticed():
    def swapped(texts: list[str]) -> bytes:
        return reply([vector(text) for text in reversed(texts)])

    async def main() -> None:
        async with server(swapped) as url:
            made = await bench(url)
            measured = await made.closed_of("short", made.requests("short", 2, 4), 1)
        assert measured.errors == 1
        assert measured.agreement < 0.99

    load.run(main())


def test_a_connection_that_the_server_closes_after_each_answer_is_opened_again():
    def answer(texts: list[str]) -> bytes:
        body = json.dumps({"embeddings": [vector(text) for text in texts]}).encode()
        return http(200, body, b"Connection: close")

    async def main() -> None:
        async with server(answer) as url:
            made = await bench(url)
            measured = await made.closed_of("short", made.requests("short", 2, 6), 2)
        assert measured.errors == 0
        assert measured.answered == 12
        assert measured.tokens is None
        assert measured.tokens_per_second is None

    load.run(main())


def test_arrivals_wait_for_nobody_and_their_latency_counts_from_the_intended_time():
    async def main() -> None:
        async with server(right) as url:
            made = await bench(url)
            requests = made.requests("short", 1, 50)
            exchanges = await load.open_loop(made.endpoint, requests, 2000, timeout=10)
            measured = await made.open("short", 500, 1, 0.1)
        assert sorted(e.request.body for e in exchanges) == sorted(request.body for request in requests)
        assert all(e.intended <= e.reply.began < e.reply.ended for e in exchanges)
        assert (measured.requests, measured.errors, measured.clients, measured.rate) == (50, 0, 0, 500)

    load.run(main())


def test_the_mix_measures_each_alone_and_both_together():
    async def main() -> None:
        async with server(right) as url:
            mix = await (await bench(url)).mix(0.2)
        assert mix.query_alone.requests > 1
        assert mix.query_under_bulk.requests >= 1
        assert mix.bulk_alone.requests == mix.bulk_with_query.requests >= 4
        assert mix.bulk_with_query.batch == 32
        assert mix.query_alone.errors + mix.query_under_bulk.errors == 0

    load.run(main())


def test_the_probe_says_what_is_wrong():
    async def main(answer: Answer) -> None:
        async with server(answer) as url:
            await bench(url)

    for answer, said in (
        (lambda _: http(404, b'{"error":"model not found"}'), "answered 404: model not found"),
        (lambda _: http(500, b""), "answered 500"),
        (lambda _: b"", "no answer from http://127.0.0.1:"),
        (lambda _: http(200, b"<html>"), "not an answer of this kind of server"),
    ):
        with pytest.raises(UnitvecError, match=said):
            load.run(main(answer))
