"""Who is let in and what he may ask for: keys, origins, hosts, limits, TLS, read-only."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import Scope

from tests.conftest import Server, unitvec
from unitvec.api.busy import client_of
from unitvec.api.keys import KeyMiddleware, Keys

EMBED = {"model": "all-minilm", "input": "a"}


def raw(server: Server, data: bytes, *, seconds: float = 20) -> bytes:
    """All that the server answers to these bytes, until it closes the connection or says no more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as peer:
        with contextlib.suppress(OSError):
            peer.sendall(data)
        return read(peer)


def read(peer: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(OSError):
        while part := peer.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="module")
def locked(all_minilm: str, tmp_path_factory: pytest.TempPathFactory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("# those of the search team\n\nthird-key\n")
    running = Server(all_minilm, "--api-key", "first-key", "--api-key", "second-key", "--api-key-file", str(keys))
    yield running
    running.close()


def test_every_route_but_health_needs_a_key(locked: Server) -> None:
    told = locked.client.get("/openapi.json", headers={"Authorization": "Bearer first-key"}).json()
    for path, methods in told["paths"].items():
        for method in methods:
            reply = locked.client.request(method, path.replace("{model}", "all-minilm"), json={})
            assert (reply.status_code == 401) == (not path.startswith("/health")), path
    for path in ("/", "/docs", "/openapi.json", "/metrics", "/nowhere", "/api/pull", "/healthy"):
        assert locked.client.get(path).status_code == 401, path


def test_each_key_is_let_in_and_nothing_else(locked: Server) -> None:
    for key in ("first-key", "second-key", "third-key"):
        for authorization in (
            f"Bearer {key}",
            f"bearer {key}",
            "Basic " + base64.b64encode(f"x:{key}".encode()).decode(),
        ):
            reply = locked.client.post("/api/embed", json=EMBED, headers={"Authorization": authorization})
            assert reply.status_code == 200, authorization
    wrong = [
        "",
        "Bearer",
        "Bearer first-ke",
        "Bearer first-key2",
        "first-key",
        "Basic !!",
        "Basic Zmlyc3Qta2V5",
    ]
    for authorization in (*wrong, "Bearer # those of the search team", "Token first-key"):
        reply = locked.client.post("/v1/embeddings", json=EMBED, headers={"Authorization": authorization})
        assert reply.status_code == 401, authorization
        assert reply.json()["error"]["type"] == "authentication_error"
        assert reply.headers["www-authenticate"] == "Bearer"


def test_a_browser_is_asked_for_the_key(locked: Server) -> None:
    reply = locked.client.get("/", headers={"Accept": "text/html"})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith("Basic")


def test_a_key_file_without_a_key_is_no_open_door(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    done = unitvec("serve", "--api-key-file", str(tmp_path / "keys"), "--host", "127.0.0.1:1")
    assert done.returncode == 2
    assert b"there is no key" in done.stderr


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),  # a name that an attacker points at 127.0.0.1
        ({"Host": "evil.example:11434"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "["}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:11434"}, 200),
        ({"Host": "box.local"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://evil.example", "Content-Type": "text/plain"}, 403),  # a form's POST needs no preflight
    ],
)
@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_rebinding_and_other_sites(server: Server, path: str, headers: dict[str, str], status: int) -> None:
    reply = server.client.post(path, json=EMBED, headers=headers)
    assert reply.status_code == status
    allowed = reply.headers.get("access-control-allow-origin")
    assert allowed == (headers["Origin"] if "Origin" in headers and status == 200 else None)


@pytest.fixture(scope="module")
def strict(all_minilm: str):
    limits = [
        "--max-body",
        "1",
        "--max-texts",
        "3",
        "--max-text-length",
        "50",
        "--patience",
        "0.5",
        "--max-connections",
        "8",
    ]
    running = Server(all_minilm, *limits)
    running.client.close()  # its idle connection would count
    running.client = httpx.Client(base_url=running.url, trust_env=False, headers={"Connection": "close"}, timeout=20)
    yield running
    running.close()


def test_texts_and_their_length(strict: Server) -> None:
    many = strict.client.post("/api/embed", json={"model": "all-minilm", "input": ["a"] * 4})
    assert (many.status_code, many.json()["error"][:7]) == (400, "4 texts")
    long = strict.client.post("/v1/embeddings", json={"model": "all-minilm", "input": "a" * 51})
    assert long.status_code == 400
    assert "51 characters" in long.json()["error"]["message"]
    assert strict.client.post("/embed", json={"inputs": "a" * 51}).status_code == 413


def test_a_body_over_the_limit(strict: Server) -> None:
    body = b'{"model":"all-minilm","input":"' + b" " * (1 << 20) + b'"}'
    assert strict.client.post("/api/embed", content=body).status_code == 413

    def parts():
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    assert strict.client.post("/api/embed", content=parts()).status_code == 413
    told_only = raw(strict, b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n")
    assert told_only.startswith(b"HTTP/1.1 413")


def test_headers_over_the_limit(strict: Server) -> None:
    head = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n"
    whole = raw(strict, head + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n")
    assert whole.startswith(b"HTTP/1.1 431")
    unending = raw(strict, head + b"X-Long: " + b"a" * 300_000)
    assert unending.startswith(b"HTTP/1.1 431")
    many = raw(strict, head + b"".join(b"X-%d: a\r\n" % n for n in range(20_000)) + b"\r\n")
    assert many.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"POST /api/em",
        b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["nothing", "half a line", "half a body", "half a chunk"],
)
def test_one_who_stops_sending(strict: Server, data: bytes) -> None:
    assert raw(strict, data).startswith(b"HTTP/1.1 408")


def test_one_who_drips(strict: Server) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=20) as peer:
        peer.sendall(b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(100):
                peer.sendall(b"x")
                time.sleep(0.05)
        assert read(peer).startswith(b"HTTP/1.1 408")


def test_one_who_goes_on_sending_after_the_answer(strict: Server) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=20) as peer:
        peer.sendall(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n")
        answer = read(peer)
    assert answer.startswith(b"HTTP/1.1 200")


def test_one_who_does_not_read_his_answer(start: Callable[..., Server]) -> None:
    own = start("all-minilm", "--patience", "0.2")
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", own.port))
        peer.settimeout(20)
        texts = json.dumps({"model": "all-minilm", "input": ["a"] * 3_000}).encode()
        peer.sendall(posted(texts))
        head = peer.recv(1000)
        assert head.startswith(b"HTTP/1.1 200")
        deadline = time.monotonic() + 20
        while "unitvec_http_requests_in_flight 1\n" not in own.client.get("/metrics").text:  # but for this one
            assert time.monotonic() < deadline
            time.sleep(0.05)
        length = int(head.lower().split(b"content-length: ")[1].split()[0])
        assert len(read(peer)) < length


def test_connections(strict: Server) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.create_connection(("127.0.0.1", strict.port), 20)) for _ in range(16)]
        answers = [read(peer) for peer in peers]
    assert any(answer.startswith(b"HTTP/1.1 503") for answer in answers)
    assert strict.client.get("/api/version").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"all-minilm","input":' + b"[" * 100_000,
        b'{"model":"all-minilm","input":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"a":' * 100_000,
        b'{"model":"all-minilm","input":"a","dimensions":' + b"9" * 100_000 + b"}",
        b'{"model":"all-minilm","input":"a","dimensions":1e999999}',
        b'{"model":"all-minilm","input":"a","keep_alive":1e999}',
        b'{"model":"all-minilm","input":"\xff\xfe"}',
        b'{"model":"all-minilm","input":"\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        b'{"model":"all-minilm","input":"a"}x',
        b'{"model":"all-minilm","input":"a",}',
        b'{"model":"all-minilm","input":NaN}',
        b'{"model":"all-minilm","input":"\\ud800","a":' + b"[" * 100_000,
        b'{"model":"all-minilm","input":"\\ud800","a":' + b"9" * 100_000 + b"}",
        b'{"model":"\x00","input":"a"}',
    ],
)
@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings", "/embed"])
def test_json_that_is_no_request(server: Server, path: str, body: bytes) -> None:
    reply = server.client.post(path, content=body)
    assert reply.status_code in ((422,) if path == "/embed" else (400,)), reply.text
    assert reply.json()["error"]
    assert len(reply.content) < 2_000


def test_megabytes_of_keys(server: Server) -> None:
    keys = ",".join(f'"key{n}":{n}' for n in range(500_000))
    reply = server.client.post("/api/embed", content=f'{{"model":"all-minilm",{keys}}}')
    assert reply.status_code == 400
    assert reply.json() == {"error": "the request has more than 1000 fields"}


def test_a_text_that_is_json_itself_is_a_text(server: Server) -> None:
    text = json.dumps({f"key{n}": n for n in range(9_000)})
    assert server.embed(input=[text, "\\" * 40_000])["embeddings"]


def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    one = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw(server, one * 20 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 20
    assert answer.count(b"HTTP/1.1 404") == 1


def posted(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    """A request to embed, as bytes."""
    lines = [b"POST /api/embed HTTP/" + version, b"Host: localhost", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


SHORT = b'{"model":"all-minilm","input":"a","dimensions":2}'
PLAIN = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_a_flood_of_pipelined_requests_waits_and_all_are_answered(server: Server) -> None:
    # Sent from another thread: whoever sends so much must read meanwhile.
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
        sending = threading.Thread(target=peer.sendall, args=((posted(SHORT) + PLAIN * 9) * 150 + LAST,))
        sending.start()
        answer = read(peer)
        sending.join()
    assert answer.count(b"HTTP/1.1 200 OK") == 1_500
    assert answer.count(b"HTTP/1.1 404") == 1
    assert answer.endswith(b"404 page not found")


def test_a_wish_for_http_2_is_passed_over(server: Server) -> None:
    wish = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    asked = posted(SHORT, *wish)
    answer = raw(server, asked * 20 + posted(b"{", *wish) + LAST)  # as curl --http2 and Java's HttpClient send it
    assert answer.count(b"HTTP/1.1 200 OK") == 20
    assert answer.count(b"HTTP/1.1 400") == 1
    assert answer.endswith(b"404 page not found")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        for at in range(0, len(asked), 7):  # in small pieces, the head cut anywhere
            peer.sendall(asked[at : at + 7])
        assert peer.recv(65536).startswith(b"HTTP/1.1 200")
    for last in (posted(SHORT, b"Connection: Upgrade, close", wish[1]), posted(SHORT, *wish, version=b"1.0")):
        assert raw(server, last).startswith(b"HTTP/1.1 200")
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, SHORT[at : at + 1]) for at in range(len(SHORT))) + b"0\r\n\r\n"
    head = [b"POST /api/embed HTTP/1.1", b"Host: localhost", b"Transfer-Encoding: chunked", *wish]
    answer = raw(server, b"\r\n".join(head) + b"\r\n\r\n" + chunks + LAST)
    assert [answer.count(b"HTTP/1.1 " + status) for status in (b"200", b"404")] == [1, 1]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
        (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (posted(SHORT, version=b"1.0"), b"200"),
        (posted(SHORT, b"Expect: 100-continue", b"Connection: close"), b"100"),
        (posted(SHORT, b"Transfer-Encoding: chunked"), b"400"),  # two lengths: which one holds is not guessed
    ],
)
def test_requests_by_the_letter(server: Server, data: bytes, status: bytes) -> None:
    assert raw(server, data, seconds=3).split()[1] == status


def test_a_compressed_body_is_told_apart(server: Server) -> None:
    reply = server.client.post("/api/embed", content=gzip.compress(SHORT), headers={"Content-Encoding": "gzip"})
    assert (reply.status_code, reply.json()["error"]) == (400, "the request body is compressed: send it as it is")


@pytest.mark.parametrize("item", [b"[]", b"{}", b'""', b"1000", b'"\\\\"', b'"[,"', b'[["\\""]]'])
def test_megabytes_of_values_are_refused_before_they_are_objects(server: Server, item: bytes) -> None:
    size = b',"x":"\\ud800"' if item == b"[]" else b""
    body = (
        b'{"model":"all-minilm","input":[' + (item + b",") * (12_000_000 // (len(item) + 1)) + item + b"]" + size + b"}"
    )
    reply = server.client.post("/v1/embeddings", content=body)
    assert reply.status_code == 400
    assert "more than 1000000 values" in reply.json()["error"]["message"]


def test_texts_full_of_brackets_and_quotes_are_texts(server: Server) -> None:
    text = json.dumps([{"a": [1, 2, [3]], "b": '\\"'}] * 6_000)  # as a string it is full of escapes
    texts = [text, '\\"' * 50_000 + "\\", "[" * 100_000, '","' * 100_000]
    assert len(server.embed(input=texts)["embeddings"]) == 4


def test_large_bodies_have_room_together(start: Callable[..., Server]) -> None:
    own = start("all-minilm", "--max-bodies", "1", "--patience", "60")
    large = posted(b'{"model":"all-minilm","input":"' + b" " * 900_000 + b'a"}', b"Connection: close")
    with socket.create_connection(("127.0.0.1", own.port), timeout=20) as first:
        first.sendall(large[:-10])  # all but its end: it is held
        time.sleep(1)  # until it has come in: what comes when there is no room is refused, whoever began first
        assert raw(own, large).startswith(b"HTTP/1.1 503")
        assert own.embed(input="a small one")["embeddings"]
        first.sendall(large[-10:])
        assert first.recv(65536).startswith(b"HTTP/1.1 200")
    assert raw(own, large).startswith(b"HTTP/1.1 200")


def test_an_empty_key_is_no_open_door() -> None:
    for arguments in (["--api-key", ""], ["--api-key", "good", "--api-key", " "]):
        done = unitvec("serve", *arguments, "--host", "127.0.0.1:1")
        assert done.returncode == 2
        assert b"it is empty" in done.stderr


@pytest.mark.parametrize(
    "path", ["/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/sha256:0"]
)
def test_a_read_only_server_changes_nothing(read_only: Server, path: str) -> None:
    method = "DELETE" if path == "/api/delete" else "POST"
    reply = read_only.client.request(method, path, json={"model": "all-minilm"})
    assert reply.status_code == 403
    assert "read-only" in reply.json()["error"]
    assert read_only.embed(input="a")["embeddings"]


@pytest.fixture(scope="module")
def read_only(all_minilm: str):
    running = Server(all_minilm, "--read-only")
    yield running
    running.close()


def test_https_is_never_plain_http() -> None:
    done = unitvec("serve", "--host", "https://127.0.0.1:1")
    assert done.returncode == 2
    assert b"needs --tls-cert and --tls-key" in done.stderr


def test_tls(all_minilm: str, tmp_path: Path, start: Callable[..., Server]) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl is not installed")
    own = start(all_minilm, "--tls-cert", str(cert), "--tls-key", str(key), scheme="https", certificates=str(cert))
    assert own.embed(input="a")["embeddings"]
    for arguments in (["--tls-cert", str(cert)], ["--tls-cert", str(key), "--tls-key", str(key)]):
        done = unitvec("serve", *arguments, "--host", "127.0.0.1:1")
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr


def test_the_turns_of_a_key_are_its_own_however_it_is_sent() -> None:
    seen = set()

    async def app(scope: Scope, *_: object) -> None:
        seen.add(client_of(scope))

    guarded = KeyMiddleware(app, Keys(["first", "second"]))
    for sent in ("Bearer first", "bearer  first", "Basic " + base64.b64encode(b"a:first").decode()):
        headers = [(b"authorization", sent.encode())]
        scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers, "client": ("127.0.0.1", 1)}
        asyncio.run(guarded(scope, None, None))  # type: ignore[arg-type]
    assert len(seen) == 1
    assert b"first" not in seen.pop()
