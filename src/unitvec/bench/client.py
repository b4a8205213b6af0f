"""A client that costs as little as one in Python can: HTTP/1.1 over kept connections, parsed by httptools.

A load generator shares the cores with the server that it measures. So requests are bytes before the
clock starts, and answers stay bytes until it has stopped.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

from unitvec.errors import UnitvecError


@dataclass(frozen=True)
class Endpoint:
    """Where requests go."""

    host: str
    port: int
    path: str
    tls: bool = False

    @classmethod
    def parse(cls, url: str, path: str) -> Endpoint:
        """``http://HOST[:PORT][/PREFIX]`` and a path under it.

        Raises:
            UnitvecError: it is no such URL.
        """
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise UnitvecError(f"{url!r} is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UnitvecError(f"{url!r} is no URL of a server; write http://127.0.0.1:11434")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/") + path, tls)

    @property
    def authority(self) -> str:
        """``HOST:PORT``."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(slots=True)
class Reply:
    """What came back.

    Attributes:
        began: when the request was written, on ``time.perf_counter``.
        ended: when the answer's last byte was read, likewise.
        status: of HTTP; 0 when no whole answer came, and then ``body`` says why.
    """

    began: float
    ended: float = 0.0
    status: int = 0
    body: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)


class Connection:
    """One client's line to a server, one request at a time. It is opened when needed, and again if it was closed.

    Args:
        to: where it leads.
        timeout: seconds until an answer counts as lost.
    """

    def __init__(self, to: Endpoint, timeout: float) -> None:
        self._to = to
        self._timeout = timeout
        self._head = (
            f"POST {to.path} HTTP/1.1\r\nHost: {to.authority}\r\nAccept: */*\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._stream: _Stream | None = None

    async def open(self) -> None:
        """Connect, unless it is connected.

        Raises:
            OSError: nobody listens there.
        """
        if self._stream is None or self._stream.closed:
            context = ssl.create_default_context() if self._to.tls else None
            loop = asyncio.get_running_loop()
            _, self._stream = await loop.create_connection(_Stream, self._to.host, self._to.port, ssl=context)

    async def post(self, body: bytes) -> Reply:
        """Send a request and read its answer."""
        began = time.perf_counter()
        try:
            await self.open()
            assert self._stream is not None
            return await self._stream.send(b"%b%d\r\n\r\n%b" % (self._head, len(body), body), self._timeout)
        except OSError as error:
            self.close()
            return Reply(began, time.perf_counter(), 0, (error.strerror or str(error)).encode())

    def close(self) -> None:
        """Hang up."""
        if self._stream is not None:
            self._stream.close()


class _Stream(asyncio.Protocol):
    """One TCP connection, and the parser of what comes over it."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Reply] | None = None
        self._reply = Reply(0.0)
        self._pieces: list[bytes] = []

    async def send(self, request: bytes, timeout: float) -> Reply:  # noqa: ASYNC109  a timer is cheaper
        """The answer to ``request``.

        Raises:
            OSError: the connection was lost, or ``timeout`` seconds are over.
        """
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout, self._fail, TimeoutError(f"no answer in {timeout:g} s"))
        self._reply = Reply(time.perf_counter())
        self._transport.write(request)
        try:
            return await self._waiter
        finally:
            timer.cancel()

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport says: connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of that class

    def data_received(self, data: bytes) -> None:
        """The transport says: more bytes."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport says: closed."""
        self.closed = True
        self._fail(ConnectionError(str(exc) if exc else "the server closed the connection"))

    def on_message_begin(self) -> None:
        """The parser says: an answer begins."""
        self._pieces = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser says: a header."""
        self._reply.headers[name.lower()] = value

    def on_body(self, piece: bytes) -> None:
        """The parser says: part of the body."""
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """The parser says: the answer is whole."""
        self._reply.ended = time.perf_counter()
        self._reply.status = self._parser.get_status_code()
        self._reply.body = b"".join(self._pieces)
        if not self._parser.should_keep_alive():
            self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._reply)
