"""A server whose models stay as they are."""

from __future__ import annotations

from posixpath import normpath

from starlette.types import ASGIApp, Receive, Scope, Send

from unitvec.api.answers import error_response
from unitvec.errors import UnitvecError

_CHANGING = {"/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete"}
_UPLOADS = "/api/blobs/"


class ReadOnly(UnitvecError):
    """A change was asked of a server that allows none."""

    status = 403


class ReadOnlyMiddleware:
    """Answers 403 to the routes that add, change or remove models."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        # In its normal form: what an upstream makes of `//api/./pull` is its own affair.
        path = normpath("/" + scope.get("path", "").lstrip("/"))
        upload = path.startswith(_UPLOADS) and scope["method"] not in ("GET", "HEAD")
        if scope["type"] == "http" and (path in _CHANGING or upload):
            answer = error_response(path, ReadOnly("this server is read-only: its models cannot be changed over HTTP"))
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)
