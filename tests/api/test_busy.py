"""What a full queue is answered with, and that a connection outlives it."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Server
from unitvec.serving.runner import BUSY

BODY = b'{"model":"all-minilm","input":"one more"}'
VERSION = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(path: str, *headers: str, body: bytes = BODY) -> bytes:
    """A request, whole."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Line:
    """A connection of which what comes is read answer by answer."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self._stream = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def flood(self, data: bytes, seconds: float) -> int:
        """Bytes that could be sent, again and again, while nothing was read."""
        self._socket.settimeout(1)
        sent, end = 0, time.monotonic() + seconds
        with contextlib.suppress(TimeoutError, ConnectionError):
            while time.monotonic() < end:
                sent += self._socket.send(data)
        return sent

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        status = int(self._stream.readline().split()[1])
        headers = {}
        while line := self._stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self._stream.read(int(headers.get("content-length", 0)))

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def is_silent(self) -> bool:
        """Nothing has come."""
        return not select.select([self._socket], [], [], 0)[0]

    def at_end(self) -> bool:
        return self._stream.read(1) == b""


@pytest.fixture
def connect() -> Iterator[Callable[[Server], Line]]:
    """Opens connections, which are closed at the end."""
    with contextlib.ExitStack() as stack:

        def opened(server: Server) -> Line:
            line = Line(server)
            stack.callback(line.close)
            return line

        yield opened


@pytest.fixture
def full(start: Callable[..., Server], connect: Callable[[Server], Line]) -> Iterator[Server]:
    """A server that has taken as much as it may: one request."""
    server = start("all-minilm", "--max-queue", "1")
    texts = [f"passage {n} " + "word " * 200 for n in range(2_000)]
    bulk, line = connect(server), connect(server)
    bulk.send(post("/api/embed", body=json.dumps({"model": "all-minilm", "input": texts}).encode()))
    body = b""
    while b"unitvec_queue_requests 1" not in body:
        line.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        _, _, body = line.answer()
    yield server
    assert bulk.is_silent(), "the queue was empty again before all was tried"


def test_each_api_says_so_in_its_own_form(full: Server, connect: Callable[[Server], Line]) -> None:
    line = connect(full)
    forms = {
        "/api/embed": {"error": BUSY},
        "/api/embeddings?x=1": {"error": BUSY},
        "/v1/embeddings": {"error": {"message": BUSY, "type": "api_error", "param": None, "code": None}},
        "/embed": {"error": BUSY, "error_type": "Overloaded"},
    }
    identities = set()
    for path, form in forms.items():  # all on one connection
        line.send(post(path))
        status, headers, body = line.answer()
        assert (status, json.loads(body)) == (503, form)
        assert int(headers["retry-after"]) >= 1
        identities.add(headers["x-request-id"])
    assert len(identities) == len(forms)
    line.send(VERSION)
    assert line.answer()[0] == 200
    counted = re.findall(
        r'http_requests_total\{.*route="([^"]+)".*status="503"\} (\d+)', full.client.get("/metrics").text
    )
    assert sorted(counted) == [("/api/embed", "1"), ("/api/embeddings", "1"), ("/embed", "1"), ("/v1/embeddings", "1")]


def test_however_the_request_arrives(full: Server, connect: Callable[[Server], Line]) -> None:
    line = connect(full)
    whole = post("/api/embed")
    line.send(whole[:-10])
    time.sleep(0.1)
    line.send(whole[-10:] + VERSION + whole)  # the rest of it, and two more behind it
    assert [line.answer()[0] for _ in range(3)] == [503, 200, 503]
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    line.send(b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert line.answer()[0] == 503
    long = json.dumps({"model": "all-minilm", "input": "long " * 50_000}).encode()
    line.send(post("/api/embed", body=long))
    assert line.answer()[0] == 503
    line.send(post("/api/embed", "Connection: close"))
    assert line.answer()[0] == 503
    assert line.at_end()


def test_a_caller_who_asks_first_is_told_before_he_sends(full: Server, connect: Callable[[Server], Line]) -> None:
    line = connect(full)
    line.send(post("/api/embed", "Expect: 100-continue")[: -len(BODY)])
    assert line.answer()[0] == 100
    line.send(BODY)
    assert line.answer()[0] == 503


def test_what_the_answer_has_to_speak_to(full: Server, connect: Callable[[Server], Line]) -> None:
    line = connect(full)
    line.send(post("/api/embed", "Origin: http://localhost:3000", "X-Request-Id: mine"))
    status, headers, _ = line.answer()
    assert (status, headers["access-control-allow-origin"]) == (503, "http://localhost:3000")
    assert headers["x-request-id"] == "mine"
    line.send(post("/api/embed", "Origin: http://elsewhere.example"))
    assert line.answer()[0] == 403


def test_a_place_is_not_kept_by_who_is_slow(start: Callable[..., Server], connect: Callable[[Server], Line]) -> None:
    server = start("all-minilm", "--max-queue", "2")
    slow = [connect(server) for _ in range(4)]
    for line in slow:
        line.send(post("/api/embed")[:-5])
    time.sleep(0.2)
    assert server.embed(input="quick")["embeddings"]
    for line in slow:
        line.send(post("/api/embed")[-5:])
        assert line.answer()[0] == 200
    for line in slow:  # requests that are given up free their places, those behind others too
        line.send(post("/api/embed") * 8)
        line.close()
    time.sleep(1)
    for _ in range(2):
        assert server.embed(input="and again")["embeddings"]
    line = connect(server)
    line.send(post("/api/embed") * 2)
    assert [line.answer()[0] for _ in range(2)] == [200, 200]


def test_answers_that_nobody_reads_end_the_reading(full: Server, connect: Callable[[Server], Line]) -> None:
    line = connect(full)
    sent = line.flood(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" * 1_000, seconds=4)
    assert sent < 40_000_000
    assert full.client.get("/api/version").status_code == 200
