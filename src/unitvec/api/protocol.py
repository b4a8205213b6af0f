"""The connection's side of the limits: how many there are, how large a head is, how slowly a request may arrive.

uvicorn knows no such bounds but the idle time of a connection between two requests.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from unitvec.api.limits import Limits

_PIPELINED = 64  # requests that may wait behind one that is being answered on the same connection


class _Refused(Exception):
    """Ends the parser's work on a connection; :meth:`BoundedProtocol.send_400_response` answers."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within :class:`unitvec.api.limits.Limits`; see :func:`protocol`."""

    limits: Limits

    _status = HTTPStatus.BAD_REQUEST  # what a request that cannot be parsed is answered with
    _arriving = True  # a request's bytes are awaited: of a new connection from its start
    _in_head = True
    _began = 0.0
    _came = 0  # bytes since the last look at the pace
    _head = 0
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._cycles: list[RequestResponseCycle] = []  # requests of this connection that are not answered yet
        self._began = self.loop.time()
        if len(self.connections) > self.limits.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            return
        self._watch = self.loop.call_later(self.limits.patience, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """He is gone."""
        if self._watch:
            self._watch.cancel()
        self._hang_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of one request or of several."""
        if self.transport.is_closing():
            return
        self._came += len(data)
        self._head = self._head + len(data) if self._in_head else 0
        super().data_received(data)
        if self._in_head and self._head > self.limits.header and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too large")

    def on_message_begin(self) -> None:
        """The parser has met a request's first byte."""
        super().on_message_begin()
        self._arriving = self._in_head = True
        self._began, self._came = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        """The parser has met the empty line."""
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self.limits.header:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _Refused
        if len(self.pipeline) >= _PIPELINED:
            self._status = HTTPStatus.TOO_MANY_REQUESTS
            raise _Refused
        super().on_headers_complete()
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete] + [self.cycle]

    def on_message_complete(self) -> None:
        """The parser has met a request's last byte."""
        self._arriving = False
        self._in_head, self._head = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused."""
        self._refuse(self._status, msg if self._status == HTTPStatus.BAD_REQUEST else self._status.phrase)

    def _look(self) -> None:
        """Close a connection whose request arrives too slowly, or still arrives though it has been answered."""
        patience = self.limits.patience
        self._watch = self.loop.call_later(patience, self._look)
        if not self._arriving or self.flow.read_paused or self.loop.time() - self._began < patience:
            return
        answered = not self._in_head and self.cycle is not None and self.cycle.response_complete
        if answered:
            self.transport.close()
        elif self._came < self.limits.pace:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request arrives too slowly")
        self._came = 0

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        if self.transport.is_closing():
            return
        # Between two parts of an answer there is no place for another one.
        if all(not cycle.response_started or cycle.response_complete for cycle in self._cycles):
            body = f'{{"error":"{why}"}}'.encode("ascii")
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json; charset=utf-8\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
        self._hang_up()
        self.transport.close()

    def _hang_up(self) -> None:
        """Tell all requests of this connection that nobody reads their answers; uvicorn tells the latest alone."""
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol's class for uvicorn, which makes one for each connection."""
    fields: dict[str, Any] = {"limits": limits}
    return type("Protocol", (BoundedProtocol,), fields)
