"""Requests as no client sends them, over raw connections: never a 5xx, never a hang, no growth of memory."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Server

BODIES = [
    b'{"model":"all-minilm","input":"Why is the sky blue?"}',
    b'{"model":"all-minilm","input":["a","b"],"dimensions":64,"truncate":false,"keep_alive":"5m"}',
    b'{"model":"all-minilm","input":[101,2339,102],"encoding_format":"base64"}',
    b'{"model":"all-minilm","prompt":"a","options":{"num_ctx":8}}',
    b'{"inputs":["a"],"truncate":true}',
    b'{"name":"all-minilm"}',
]
PATHS = [b"/api/embed", b"/api/embeddings", b"/v1/embeddings", b"/embed", b"/api/show", b"/api/tags", b"/v1/models/x"]
METHODS = [b"POST"] * 6 + [b"GET", b"HEAD", b"PUT", b"OPTIONS", b"PATCH", b"TRACE"]
HEADERS = [
    b"Host: localhost",
    b"Content-Type: application/json",
    b"Origin: http://localhost:3000",
    b"Access-Control-Request-Method: POST",
    b"Expect: 100-continue",
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"Content-Encoding: gzip",
    b"X-Request-Id: \xff\xfe",
    b"Authorization: Basic \xff",
    b"Accept: text/html",
    b"Range: bytes=0-1",
]
# Behind each: where all before it was whole, the connection ends with its answer.
LAST = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def mutated(data: bytes, choose: random.Random) -> bytes:
    """``data`` with a few bytes changed, dropped, doubled or cut off."""
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(data) + 1)
        match choose.randrange(5):
            case 0:
                data = data[:at] + bytes([choose.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + choose.randint(1, 20) :]
            case 2:
                data = data[:at] + data[at : at + choose.randint(1, 20)] * choose.randint(2, 50) + data[at:]
            case 3:
                data = (
                    data[:at]
                    + choose.choice([b"\x00", b"\r\n", b"[" * 50, b"9" * 40, b"\xc3", b'"', b"null"])
                    + data[at:]
                )
            case 4:
                data = data[:at]
    return data


def chunked(body: bytes, choose: random.Random) -> bytes:
    parts = []
    while body:
        size = choose.randint(1, 20)
        parts.append(b"%x\r\n%b\r\n" % (len(body[:size]), body[:size]))
        body = body[size:]
    return b"".join(parts) + b"0\r\n\r\n"


def request(choose: random.Random) -> bytes:
    """One request, whole or broken."""
    body = choose.choice(BODIES)
    if choose.random() < 0.5:
        body = mutated(body, choose)
    lines = [b"%b %b HTTP/1.1" % (choose.choice(METHODS), choose.choice(PATHS)), b"Host: localhost"]
    lines += choose.sample(HEADERS, choose.randint(0, 2))
    match choose.randrange(6):
        case 0:
            lines.append(b"Transfer-Encoding: chunked")
            body = chunked(body, choose)
            if choose.random() < 0.5:
                body = mutated(body, choose)
        case 1:  # a wrong length
            lines.append(b"Content-Length: %d" % max(0, len(body) + choose.randint(-5, 5)))
        case 2:  # two of them, or none that is a number
            lines.append(
                choose.choice([b"Content-Length: 3\r\nContent-Length: 5", b"Content-Length: x", b"Content-Length: -1"])
            )
        case _:
            lines.append(b"Content-Length: %d" % len(body))
    data = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return mutated(data, choose) if choose.random() < 0.3 else data


def exchange(server: Server, choose: random.Random) -> bytes:
    """One to three requests on one connection, sent in pieces; all that comes back until nothing more can."""
    data = b"".join(request(choose) for _ in range(choose.choice([1, 1, 1, 2, 3]))) + LAST
    parts = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        with contextlib.suppress(OSError):
            while data:
                piece = choose.choice([len(data), len(data), choose.randint(1, 40)])
                peer.sendall(data[:piece])
                data = data[piece:]
        peer.settimeout(0.05)
        with contextlib.suppress(ConnectionResetError):
            while True:
                try:
                    part = peer.recv(65536)
                except TimeoutError:  # a request is not whole: say that no more of it comes
                    peer.settimeout(20)
                    with contextlib.suppress(OSError):
                        peer.shutdown(socket.SHUT_WR)
                    continue
                if not part:
                    break
                parts.append(part)
    return b"".join(parts)


def resident(server: Server) -> int:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def bombard(server: Server, count: int, seed: int) -> None:
    choose = random.Random(seed)
    statuses: set[int] = set()
    before = 0
    for number in range(count):
        state = choose.getstate()
        answer = exchange(server, choose)
        found = {int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)}
        assert not [status for status in found if status >= 500], (seed, number, state[1][-1], answer[:300])
        statuses |= found
        if number == count // 4:  # what is kept between requests has been made by now
            before = resident(server)
    assert {200, 400, 404, 405} <= statuses
    assert resident(server) - before < 64 << 20
    assert server.embed(input="still well")["embeddings"]
    assert "Traceback" not in server.output()


def test_a_thousand_mutated_requests(start: Callable[..., Server]) -> None:
    bombard(start("all-minilm", "--log-level", "warning", "--patience", "1"), 1_000, seed=1)


@pytest.mark.slow
def test_a_hundred_thousand_mutated_requests(start: Callable[..., Server]) -> None:
    bombard(start("all-minilm", "--log-level", "warning", "--patience", "1"), 100_000, seed=2)
