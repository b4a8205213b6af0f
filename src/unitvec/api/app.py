"""The application: routes, the errors' form, the door, the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitvec.api.ollama import JSONResponse
from unitvec.api.security import DoorMiddleware
from unitvec.errors import Overloaded, UnitvecError

log = logging.getLogger("unitvec.access")


def create_app(routes: list[Route], *, origins: Iterable[str], check_host: bool) -> Starlette:
    """The ASGI application.

    Args:
        routes: what it answers.
        origins: see :class:`unitvec.api.security.DoorMiddleware`.
        check_host: likewise.
    """

    def methods(scope: Scope) -> str:
        """The methods of a path, for Allow."""
        known: set[str] = set()
        for route in routes:
            if route.matches(scope)[0] != Match.NONE:
                known |= route.methods or set()
        return ", ".join(sorted(known))

    return Starlette(
        routes=routes,
        middleware=[
            Middleware(LogMiddleware),
            Middleware(DoorMiddleware, origins=origins, check_host=check_host, methods=methods),
        ],
        exception_handlers={
            UnitvecError: _error,
            ClientDisconnect: _gone,
            404: _text("404 page not found"),
            405: _text("405 method not allowed"),
            Exception: _bug,
        },
    )


async def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, UnitvecError)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Overloaded) else None
    return JSONResponse({"error": error.message}, error.status, headers)


async def _gone(*_: object) -> Response:
    return Response(status_code=499)  # for the log: nobody reads it


async def _bug(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"internal error: {type(error).__name__}; the server's log has more"}, 500)


def _text(text: str) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, error: Exception) -> Response:
        return PlainTextResponse(text, error.status_code, getattr(error, "headers", None))  # type: ignore[attr-defined]

    return answer


class LogMiddleware:
    """One line a request. Handlers add to ``scope["log"]`` what is worth knowing; never a text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields: dict[str, object] = {"method": scope["method"], "path": scope["path"]}
        scope["log"] = fields
        began = time.perf_counter()

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields["status"] = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            fields["ms"] = round((time.perf_counter() - began) * 1000, 2)
            log.info("request", extra={"fields": fields})
