"""The connection's side of the limits: how many there are, how large a head is, how slowly one may send and read.

uvicorn knows no such bounds but the idle time of a connection between two requests.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from unitvec.api.busy import Turnstile
from unitvec.api.limits import SMALL, Limits, body_length

_PIPELINED = 64  # requests that may wait behind one that is being answered on the same connection
_PIECE = 4_096  # bytes that are parsed at once: a few hundred requests at most
_STALLED = 6  # times its patience that an answer may wait for its reader to take a byte
_SPOKEN_TO = (b"expect", b"origin", b"x-request-id")  # headers that an answer depends on
_UNPARSED = HTTPStatus.BAD_REQUEST, "Invalid HTTP request received."


class _Refused(Exception):
    """Ends the parser's work on a connection; :meth:`BoundedProtocol.send_400_response` answers."""


class _Flow(FlowControl):
    """While bytes wait to be parsed (``held``), no more are read, whoever asks for it."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within :class:`unitvec.api.limits.Limits`; see :func:`protocol`."""

    limits: Limits
    turnstile: Turnstile | None
    flow: _Flow

    _refusal = _UNPARSED  # what a request that cannot be parsed is answered with
    _arriving = True  # a request's bytes are awaited: of a new connection from its start
    _in_head = True
    _upgrading = False
    _began = 0.0
    _came = 0  # bytes since the last look at the pace
    _head = 0
    _held = b""  # what came behind more requests than may wait
    _unread = 0  # bytes of an answer at the last look
    _turned_away: bytes | None = None  # the answer to a request of which the rest is awaited, and dropped
    _first = True  # no request of what came at once has been turned away
    _stalled = 0  # looks since they became fewer
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
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
        self._came += len(data)
        self._first = True
        if self._held:
            self._held += data
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Parse, as long as not too many requests wait for their turn; hold the rest."""
        for at in range(0, len(data), _PIECE):
            if self.transport.is_closing():
                return
            if len(self.pipeline) >= _PIPELINED:
                self._held = data[at:]
                self.flow.pause_reading()
                self.flow.held = True
                return
            self._parse(data[at : at + _PIECE] if len(data) > _PIECE else data)

    def _parse(self, data: bytes) -> None:
        self._head = self._head + len(data) if self._in_head else 0
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser ends a request at its wish for another protocol. There is none here, so the wish
            # is passed over (RFC 9110, 7.8), and the request is read once more without it, its body too.
            self._upgrading = False
            again = self._plain_head() + data[upgrade.args[0] :]
            self.parser = httptools.HttpRequestParser(self)  # the old one may take nothing more
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
            self._parse(again)
            return
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        if self._in_head and self._head > self.limits.header and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too large")

    def _plain_head(self) -> bytes:
        version = self.parser.get_http_version().encode("ascii")
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_response_complete(self) -> None:
        """A request of this connection is answered."""
        super().on_response_complete()
        if self._held and len(self.pipeline) < _PIPELINED:
            held, self._held, self.flow.held = self._held, b"", False
            self._take(held)
            if not self.pipeline:
                self.flow.resume_reading()

    def on_message_begin(self) -> None:
        """The parser has met a request's first byte."""
        super().on_message_begin()
        self._arriving = self._in_head = True
        self._began, self._came = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        """The parser has met the empty line."""
        self._in_head = False
        self._unset_keepalive_if_required()
        size, hosts = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            hosts += name == b"host"
        if size > self.limits.header:
            raise self._refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's headers are too large")
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise self._refused(HTTPStatus.BAD_REQUEST, "a request has one Host header")
        if self.parser.get_method() == b"CONNECT":
            raise self._refused(HTTPStatus.METHOD_NOT_ALLOWED, "this server is no proxy")
        self._upgrading = self.parser.should_upgrade()
        if not self._upgrading and not self._turn_away():
            super().on_headers_complete()
            self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete] + [self.cycle]

    def on_body(self, body: bytes) -> None:
        """The parser has met a part of a request's body."""
        if self._turned_away is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser has met a request's last byte."""
        self._arriving = False
        self._in_head, self._head = True, 0
        if self._turned_away is not None:
            answer, self._turned_away = self._turned_away, None
            self.transport.write(answer)
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif not self._upgrading:
            super().on_message_complete()
            # One that waits behind another has no task yet, and never will if the connection goes first.
            if self.turnstile and not self.pipeline and not self.cycle.response_complete:
                self.turnstile.enter(self.cycle.scope)  # type: ignore[arg-type]

    def _turn_away(self) -> bool:
        """Whether the request is not let in, which is for plain ones alone: whole in a moment, the first of what came,
        with nothing unread before it, and with nothing that the answer would have to speak to."""
        if (
            self.turnstile is None
            or not self._first
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
            or (self.cycle is not None and not self.cycle.response_complete)
            or self.transport.get_write_buffer_size()
        ):
            return False
        length = body_length(self.scope)  # type: ignore[arg-type]
        if length is None or length > SMALL or any(name in _SPOKEN_TO for name, _ in self.headers):
            return False
        self._turned_away = self.turnstile.answer(self.url, self.client)
        self._first = self._turned_away is None
        return not self._first

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what the parser refused."""
        self._refuse(*self._refusal)

    def _refused(self, status: HTTPStatus, why: str) -> _Refused:
        self._refusal = status, why
        return _Refused(why)

    def _look(self) -> None:
        """Close a connection whose request arrives too slowly, or still arrives though it has been answered, or whose
        answer nobody reads."""
        patience = self.limits.patience
        self._watch = self.loop.call_later(patience, self._look)
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        self._stalled = self._stalled + 1 if self._unread and self._unread == before else 0
        if self._stalled >= _STALLED:
            self.transport.abort()
            return
        if not self._arriving or self.flow.read_paused or self.loop.time() - self._began < patience:
            return
        awaited = self._in_head or self._turned_away is not None
        answered = not awaited and self.cycle is not None and self.cycle.response_complete
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


def protocol(limits: Limits, turnstile: Turnstile | None = None) -> type[asyncio.Protocol]:
    """The protocol's class for uvicorn, which makes one for each connection."""
    fields: dict[str, Any] = {"limits": limits, "turnstile": turnstile}
    return type("Protocol", (BoundedProtocol,), fields)
