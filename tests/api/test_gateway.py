"""The gateway in front of a small real server that streams."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx
import pytest

from tests.conftest import Server, free_port, unitvec


class Upstream(BaseHTTPRequestHandler):
    """Answers like a server of chat models; remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []
    go_on = threading.Event()
    left = threading.Event()
    first_part = threading.Event()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
            self.first_part.set()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for word in ("one", "two", "three"):
                line = json.dumps({"response": word}).encode() + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                self.go_on.wait(10)
            for _ in range(100 if "/endless" in self.path else 0):
                self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            if "/cut" in self.path:
                self.close_connection = True
                return
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.left.set()

    def handle_any(self) -> None:
        body = self._body()
        self.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if self.path.startswith(("/api/generate", "/api/endless", "/api/cut")):
            self._stream()
        elif self.path == "/api/tags":
            models = [
                {"name": "llama3:latest", "model": "llama3:latest"},
                {"name": "all-minilm:latest", "model": "all-minilm:latest"},
            ]
            self._answer(200, json.dumps({"models": models}).encode())
        elif self.path == "/v1/models":
            self._answer(
                200, b'{"object":"list","data":["odd",{"object":"odd"},{"id":"llama3:latest","object":"model"}]}'
            )
        elif self.path == "/unchanged":
            self.send_response(304)
            self.send_header("Content-Length", "5")
            self.end_headers()
        else:
            self._answer(418, b"upstream's own", X_Kettle="on", Content_Type="text/tea")

    do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = do_OPTIONS = handle_any  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


KEY = {"Authorization": "Bearer theirs"}


@pytest.fixture
def upstream() -> Iterator[ThreadingHTTPServer]:
    Upstream.asked.clear()
    for event in (Upstream.go_on, Upstream.left, Upstream.first_part):
        event.clear()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    Upstream.go_on.set()
    running.shutdown()
    running.server_close()


@pytest.fixture
def gateway(upstream: ThreadingHTTPServer, start: Callable[..., Server]) -> Server:
    return start("all-minilm", "--upstream", f"http://127.0.0.1:{upstream.server_port}")


def test_embedding_of_models_here_is_answered_here_and_of_others_there(gateway: Server) -> None:
    assert gateway.embed(input="a")["embeddings"]
    for path in ("/api/embed", "/v1/embeddings"):
        there = gateway.client.post(path, content=b'{"model": "llama3",  "input": "b"}')
        assert (there.status_code, there.text, there.headers["x-kettle"]) == (418, "upstream's own", "on")
    assert [(path, body) for _, path, _, body in Upstream.asked] == [
        ("/api/embed", b'{"model": "llama3",  "input": "b"}'),
        ("/v1/embeddings", b'{"model": "llama3",  "input": "b"}'),
    ]


def test_all_else_goes_through_as_it_is(gateway: Server) -> None:
    sent = [
        ("DELETE", "/api/delete", b'{"model":"x"}'),
        ("GET", "/any/where%2Felse?a=1&b=%20", b""),
        ("PUT", "/x", b"\x00\xff"),
    ]
    for method, path, body in sent:
        reply = gateway.client.request(
            method, path, content=body, headers={"X-Mine": "yes", "Authorization": "Bearer t"}
        )
        assert (reply.status_code, reply.headers["content-type"]) == (418, "text/tea")
    assert [(method, path, body) for method, path, _, body in Upstream.asked] == sent
    for _, _, headers, _ in Upstream.asked:
        assert headers["x-mine"] == "yes"
        assert headers["authorization"] == "Bearer t"
        assert headers["host"].startswith("127.0.0.1:")
        assert len(headers["x-request-id"]) == 16


def told(gateway: Server, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as peer:
        peer.sendall(data)
        return peer.recv(65536)


def test_a_path_goes_through_as_it_is(gateway: Server) -> None:
    for path in (b"/x/../api/chat", b"//x//y/./z", b'/a|b?c="d"', b"*"):
        answer = told(gateway, b"OPTIONS " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 418"), answer
        assert Upstream.asked[-1][1] == path.decode().replace("//x", "/x")  # the upstream's own doing


def test_what_connection_names_stays_behind(gateway: Server) -> None:
    gateway.client.get("/x", headers={"Connection": "keep-alive, X-Mine", "X-Mine": "yes", "X-Other": "yes"})
    headers = Upstream.asked[-1][2]
    assert "x-other" in headers
    assert "x-mine" not in headers


def test_an_answer_without_a_body_that_tells_its_length(gateway: Server) -> None:
    assert gateway.client.get("/unchanged").status_code == 304
    assert gateway.embed(input="a")["embeddings"]


def test_lists_name_the_models_of_both(gateway: Server) -> None:
    names = [model["model"] for model in gateway.client.get("/api/tags").json()["models"]]
    assert names == ["all-minilm:latest", "llama3:latest"]
    # What an upstream lists in a form of its own is no fault of the caller's.
    names = [model.get("id") for model in gateway.client.get("/v1/models", headers=KEY).json()["data"]]
    assert names == ["all-minilm:latest", None, "llama3:latest"]
    assert Upstream.asked[-1][2]["authorization"] == KEY["Authorization"]
    assert [model["model"] for model in gateway.client.get("/api/ps").json()["models"]] == ["all-minilm:latest"]


def test_an_answer_streams(gateway: Server) -> None:
    with gateway.client.stream("POST", "/api/generate", json={"model": "llama3", "prompt": "count"}) as reply:
        lines = reply.iter_lines()
        assert json.loads(next(lines)) == {"response": "one"}  # the upstream has not said more yet
        Upstream.go_on.set()
        assert [json.loads(line)["response"] for line in lines] == ["two", "three"]


def test_a_body_streams(gateway: Server) -> None:
    def parts() -> Iterator[bytes]:
        yield b"first"
        assert Upstream.first_part.wait(10)  # it has come through before the rest is sent
        yield b"second"

    assert gateway.client.post("/api/blobs/sha256:00", content=parts()).status_code == 418
    assert Upstream.asked[-1][3] == b"firstsecond"


def test_when_the_caller_leaves_the_upstream_hears_of_it(gateway: Server) -> None:
    with gateway.client.stream("POST", "/api/endless", json={}) as reply:
        next(reply.iter_lines())
    Upstream.go_on.set()
    assert Upstream.left.wait(10)


def test_an_answer_that_breaks_off_breaks_off_here_too(gateway: Server) -> None:
    Upstream.go_on.set()
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.client.get("/api/cut")
    assert gateway.embed(input="a")["embeddings"]


def test_an_upstream_that_is_down(start: Callable[..., Server]) -> None:
    own = start("all-minilm", "--upstream", f"http://127.0.0.1:{free_port()}")
    assert own.embed(input="a")["embeddings"]
    reply = own.client.post("/api/generate", json={"model": "llama3", "prompt": "a"})
    assert reply.status_code == 502
    assert "does not answer" in reply.json()["error"]
    assert own.client.post("/v1/chat/completions", json={}).json()["error"]["type"] == "api_error"
    assert [model["model"] for model in own.client.get("/api/tags").json()["models"]] == ["all-minilm:latest"]
    unload = {"model": "all-minilm", "keep_alive": 0}
    assert own.client.post("/api/generate", json=unload).json()["done_reason"] == "unload"


def test_its_own_keys_are_not_sent_on(upstream: ThreadingHTTPServer, start: Callable[..., Server]) -> None:
    own = start(
        "all-minilm", "--upstream", f"http://127.0.0.1:{upstream.server_port}", "--api-key", "mine", "--read-only"
    )
    headers = {"Authorization": "Bearer mine", "Origin": "http://localhost:3000"}
    assert own.client.get("/x").status_code == 401
    assert own.client.get("/x", headers=headers).headers["access-control-allow-origin"] == "http://localhost:3000"
    assert own.client.post("/api/pull", json={"model": "llama3"}, headers=headers).status_code == 403
    for path in (b"//api/pull", b"/x/../api/pull", b"/api/./pull", b"/api//pull/", b"/api/%70ull"):
        head = (
            b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mine\r\nContent-Length: 2\r\n\r\n"
        )
        assert told(own, head + b"{}").startswith(b"HTTP/1.1 403"), path
    ((_, path, sent, _),) = Upstream.asked
    assert path == "/x"
    assert not {"authorization", "origin"} & sent.keys()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1/path", "http://127.0.0.1:port"])
def test_an_upstream_that_is_no_address(url: str) -> None:
    done = unitvec("serve", "--upstream", url, "--host", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: --upstream")
