"""A real registry (Debian's docker-registry), and a proxy in front of it that does what networks do."""

import contextlib
import hashlib
import json
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


# What library/m of the registry is made of.
WEIGHTS = random.Random(7).randbytes(40 << 20)  # three ranges
PARAMS = b'{"num_ctx":256}'
LAYERS = {
    "application/vnd.ollama.image.model": WEIGHTS,
    "application/vnd.ollama.image.params": PARAMS,
}


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_registry(root: Path, users: str | None = None) -> Iterator[str]:
    """Its ``HOST:PORT``. ``users`` are lines of ``USER:BCRYPT``, if not everyone may ask."""
    program = shutil.which("docker-registry")
    assert program, "docker-registry is not installed"
    port = free_port()
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if users:
        (root / "users").write_text(users)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(root / "users")}}
    (root / "registry.json").write_text(json.dumps(settings))
    with (root / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", root / "registry.json"], stdout=log, stderr=log)
        try:
            for _ in range(200):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False)
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def publish(
    registry: str,
    repository: str,
    tag: str,
    layers: dict[str, bytes],
    config: bytes = b"{}",
    login: tuple[str, str] | None = None,
) -> bytes:
    """Puts a model into a registry the way any client would; its manifest."""
    with httpx.Client(base_url=f"http://{registry}", trust_env=False, timeout=60, auth=login) as client:
        described = []
        for media_type, data in [*layers.items(), ("application/vnd.docker.container.image.v1+json", config)]:
            place = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status().headers["location"]
            client.put(
                place, params=dict(httpx.URL(place).params) | {"digest": sha256(data)}, content=data
            ).raise_for_status()
            described.append({"mediaType": media_type, "digest": sha256(data), "size": len(data)})
        *listed, about = described
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": listed}, indent=1
        ).encode()
        headers = {"Content-Type": MANIFEST}
        client.put(f"/v2/{repository}/manifests/{tag}", content=manifest, headers=headers).raise_for_status()
    return manifest


@dataclass
class Asked:
    method: str
    path: str
    range: str | None
    authorization: str | None
    sent: int = 0


@dataclass
class Faults:
    """What happens to requests for blobs. Numbers are counted down: the first so many requests suffer."""

    cut: int = 0  # closed in the middle
    stall: int = 0  # silent in the middle
    busy: int = 0  # 429
    broken: int = 0  # 503
    wrong: int = 0  # other bytes
    ranges: bool = True  # False: the whole blob whatever was asked for
    token: str | None = None  # wanted in Authorization
    redirect: str | None = None  # HOST:PORT that blobs lie on
    expire: int = 0  # 403, as signed addresses do
    token_busy: int = 0  # 429 where tokens are handed out
    push_broken: int = 0  # 503 to what sends something
    homeless: int = 0  # uploads that are welcome and have no place
    rate: float | None = None  # bytes a second
    lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, name: str) -> bool:
        with self.lock:
            left = int(getattr(self, name))
            setattr(self, name, max(0, left - 1))
            return left > 0


class Proxy:
    """Stands in front of ``upstream``. ``asked`` is what came by."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self.faults = Faults()
        self.asked: list[Asked] = []
        self.hosts: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # the client has gone
                    super().handle()

            def answer(self) -> None:
                proxy._answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def blob_bytes(self) -> int:
        return sum(asked.sent for asked in self.asked if "/blobs/" in asked.path)

    def blob_requests(self) -> list[Asked]:
        return [asked for asked in self.asked if "/blobs/" in asked.path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers, faults = handler.headers, self.faults
        if handler.path.startswith("http://"):  # asked as a client asks the proxy of its environment
            self.hosts.append(urlsplit(handler.path).netloc)
            handler.path = urlsplit(handler.path).path
        asked = Asked(handler.command, handler.path, headers.get("range"), headers.get("authorization"))
        self.asked.append(asked)
        if urlsplit(handler.path).path == "/token":
            if faults.strikes("token_busy"):
                return self._plain(handler, 429, b"slow down", {"Retry-After": "0"})
            return self._plain(handler, 200, json.dumps({"token": faults.token}).encode())
        if faults.token and asked.authorization != f"Bearer {faults.token}":
            challenge = f'Bearer realm="http://{self.host}/token",service="test",scope="repository:library/m:pull"'
            return self._plain(handler, 401, b"", {"WWW-Authenticate": challenge})
        if handler.command in ("POST", "PUT"):
            return self._receive(handler)
        is_blob = "/blobs/" in handler.path
        if is_blob and faults.redirect:
            return self._plain(handler, 307, b"", {"Location": f"http://{faults.redirect}{handler.path}?signed=1"})
        if is_blob and faults.strikes("busy"):
            return self._plain(handler, 429, b"slow down", {"Retry-After": "0"})
        if is_blob and faults.strikes("broken"):
            return self._plain(handler, 503, b"not now")
        if is_blob and faults.strikes("expire"):
            return self._plain(handler, 403, b"expired")
        return self._forward(handler, asked, is_blob)

    def _plain(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, extra: dict[str, str] | None = None
    ) -> None:
        handler.send_response(status)
        for key, value in (extra or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _receive(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if self.faults.strikes("push_broken"):
            return self._plain(handler, 503, b"not now", {"Retry-After": "0"})
        if handler.command == "POST" and self.faults.strikes("homeless"):
            return self._plain(handler, 202, b"")
        kind = {"Content-Type": handler.headers["Content-Type"] or "application/octet-stream"}
        url = f"http://{self.upstream}{handler.path}"
        reply = httpx.request(handler.command, url, content=body, headers=kind, trust_env=False, timeout=60)
        place = reply.headers.get("location", "").replace(self.upstream, self.host)
        return self._plain(handler, reply.status_code, reply.content, {"Location": place} if place else {})

    def _forward(self, handler: BaseHTTPRequestHandler, asked: Asked, is_blob: bool) -> None:
        wanted = {key: handler.headers[key] for key in ("Accept", "Range") if handler.headers[key]}
        if not self.faults.ranges:
            wanted.pop("Range", None)
        hurt = is_blob and handler.command == "GET"
        cut, stall, wrong = (hurt and self.faults.strikes(name) for name in ("cut", "stall", "wrong"))
        url = f"http://{self.upstream}{handler.path}"
        with httpx.Client(trust_env=False) as client, client.stream(handler.command, url, headers=wanted) as response:
            handler.send_response(response.status_code)
            for key in ("content-length", "content-range", "content-type", "docker-content-digest"):
                if key in response.headers:
                    handler.send_header(key, response.headers[key])
            handler.end_headers()
            if handler.command == "HEAD":
                return
            middle = int(response.headers["content-length"]) // 2
            for chunk in response.iter_raw(64 << 10):
                if wrong and asked.sent <= middle < asked.sent + len(chunk):
                    chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
                if (cut or stall) and asked.sent + len(chunk) > middle:
                    handler.wfile.flush()
                    if stall:
                        time.sleep(5)
                    handler.close_connection = True
                    handler.connection.close()
                    return
                handler.wfile.write(chunk)
                asked.sent += len(chunk)
                if self.faults.rate:
                    time.sleep(len(chunk) / self.faults.rate)


@contextmanager
def proxy_to(upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    proxy = Proxy(upstream, tls)
    try:
        yield proxy
    finally:
        proxy.close()
