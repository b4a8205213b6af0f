"""Turns requests away while the queue is full, at the least cost there is.

A server that is offered ten times what it can do answers nine of ten requests so, and whatever that costs is taken
from those that were let in. So plain requests are turned away in the protocol: no task, no routing, no JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitvec.api.answers import error_response
from unitvec.api.observe import Traffic, new_identity
from unitvec.errors import Overloaded
from unitvec.serving.runner import BUSY

# Paths, and the routes that they are counted under.
_ROUTES = {path: path for path in ("/api/embed", "/api/embeddings", "/v1/embeddings", "/embed")}
_ROUTES |= dict.fromkeys(("/", "/invocations"), "/embed")


def client_of(scope: Scope) -> Hashable:
    """Whose turns a request takes: those of its key where keys are checked, else those of its address."""
    client = scope.get("client")
    return scope.get("key") or (client[0] if client else None)


class Turnstile:
    """What :class:`unitvec.api.protocol.BoundedProtocol` asks about each request, and the door around the application.

    Between the two and the queue a request passes some rounds of the event loop. When a thousand come in one round, all
    would find the queue's last place free; so those on their way are counted.

    Args:
        app: what answers those that are let in.
        admit: raises :class:`unitvec.errors.Overloaded` for a client whose next request would be turned away, given
            how many have been let in and not answered, of all clients and of this one.
        traffic: counts those that are turned away.
    """

    def __init__(self, app: ASGIApp, admit: Callable[[Hashable, int, int], None], traffic: Traffic) -> None:
        self._app = app
        self._admit = admit
        self._traffic = traffic
        self._inside: Counter[Hashable] = Counter()  # requests of each client
        self._answers = {path.encode(): (route, *_answer(path)) for path, route in _ROUTES.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def send_noted(message: Message) -> None:
            self._leave(scope)  # what is left is up to the reader
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            self._leave(scope)

    def enter(self, scope: Scope) -> None:
        """A request is whole, and its task has been made. One that still arrives keeps no place from others."""
        if scope["method"] == "POST" and scope["path"] in _ROUTES:
            scope["inside"] = True
            self._inside[client_of(scope)] += 1

    def _leave(self, scope: Scope) -> None:
        if scope.pop("inside", False):
            client = client_of(scope)
            self._inside[client] -= 1
            if not self._inside[client]:
                del self._inside[client]

    def answer(self, target: bytes, client: tuple[str, int] | None) -> bytes | None:
        """The whole answer to a POST that has to go, None for one that may come in.

        Args:
            target: the request's target, its path first.
            client: his address.
        """
        path = target.partition(b"?")[0]
        ready = self._answers.get(path)
        if ready is None:
            return None
        host = client[0] if client else None
        try:
            self._admit(host, self._inside.total(), self._inside[host])
        except Overloaded:
            route, head, body = ready
        else:
            return None
        identity = new_identity()
        known = {"request": identity, "method": "POST", "path": path.decode()}
        self._traffic.answered("POST", route, 503, 0.0, known)
        return b"%bx-request-id: %b\r\n\r\n%b" % (head, identity.encode(), body)


def _answer(path: str) -> tuple[bytes, bytes]:
    """Status line and headers without the empty line, and the body."""
    response = error_response(path, Overloaded(BUSY))
    lines = [b"HTTP/1.1 503 Service Unavailable", *(b"%b: %b" % pair for pair in response.raw_headers)]
    return b"\r\n".join(lines) + b"\r\n", bytes(response.body)
