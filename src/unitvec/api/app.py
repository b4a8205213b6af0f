"""The application: routes, and around them what every request passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from unitvec.api.answers import JSONResponse, error_body, error_response
from unitvec.api.keys import KeyMiddleware, Keys
from unitvec.api.limits import LimitMiddleware, Limits
from unitvec.api.observe import ObserveMiddleware, Traffic
from unitvec.api.readonly import ReadOnlyMiddleware
from unitvec.api.security import DoorMiddleware
from unitvec.api.tracing import TraceMiddleware
from unitvec.errors import UnitvecError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Door:
    """Who is let in, and what he may ask for.

    Attributes:
        origins: see :class:`unitvec.api.security.DoorMiddleware`.
        check_host: likewise.
        keys: see :class:`unitvec.api.keys.Keys`.
        limits: see :class:`unitvec.api.limits.Limits`.
        read_only: models cannot be added, changed or removed.
    """

    origins: tuple[str, ...] = ()
    check_host: bool = True
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    read_only: bool = False


def create_app(
    routes: Sequence[Route],
    door: Door,
    traffic: Traffic,
    *,
    elsewhere: Handler | None = None,
    tracer: Tracer | None = None,
) -> Starlette:
    """The ASGI application.

    Args:
        routes: what it answers.
        door: who may ask.
        traffic: counts what is asked.
        elsewhere: answers what no route does; None for 404 and 405.
        tracer: records a span a request.
    """
    everything: list[BaseRoute] = list(routes)
    paths: dict[object, str] = {route.endpoint: route.path for route in reversed(routes)}

    def methods(scope: Scope) -> str:
        """The methods of a path, for Allow."""
        known: set[str] = set()
        for route in routes:
            if route.matches(scope)[0] != Match.NONE:
                known |= route.methods or set()
        return ", ".join(sorted(known))

    return Starlette(
        routes=everything,
        middleware=[
            Middleware(ObserveMiddleware, traffic=traffic, route_of=lambda s: paths.get(s.get("endpoint"), "other")),
            *([Middleware(TraceMiddleware, tracer=tracer)] if tracer else []),
            Middleware(DoorMiddleware, origins=door.origins, check_host=door.check_host, methods=methods),
            Middleware(KeyMiddleware, keys=door.keys),
            *([Middleware(ReadOnlyMiddleware)] if door.read_only else []),
            Middleware(LimitMiddleware, limits=door.limits),
        ],
        exception_handlers={
            UnitvecError: _error,
            ClientDisconnect: _gone,
            404: _unrouted("404 page not found", elsewhere),
            405: _unrouted("405 method not allowed", elsewhere),
            Exception: _bug,
        },
    )


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnitvecError)
    return error_response(request.scope["path"], error)


async def _gone(*_: object) -> Response:
    return Response(status_code=499)  # for the log: nobody reads it


async def _bug(request: Request, error: Exception) -> Response:
    told = f"internal error: {type(error).__name__}; the server's log has more"
    return JSONResponse(error_body(request.scope["path"], 500, told), 500)


def _unrouted(text: str, elsewhere: Handler | None) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        if elsewhere is not None:
            try:
                return await elsewhere(request)
            except UnitvecError as failed:
                return await _error(request, failed)
        return PlainTextResponse(text, error.status_code, getattr(error, "headers", None))  # type: ignore[attr-defined]

    return answer
