"""API keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from unitvec.api.answers import error_response
from unitvec.errors import UnitvecError

# What a load balancer or a container's health check asks; it tells nothing of anyone's data.
_OPEN = ("/health", "/health/live", "/health/ready")


class Unauthorized(UnitvecError):
    """No key, or a wrong one."""

    status = 401


class Keys:
    """The keys that are let in. Only their digests are kept.

    Args:
        keys: any number; none lets everybody in.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __contains__(self, sent: bytes) -> bool:
        digest = _digest(sent)
        # All of them are compared, each in constant time: how long it takes tells nothing of any key.
        return sum([hmac.compare_digest(digest, known) for known in self._digests]) > 0


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def sent_key(authorization: str) -> bytes:
    """The key in an Authorization header: ``Bearer KEY``, or a browser's ``Basic`` with the key as the password."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return value.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


class KeyMiddleware:
    """Answers 401 to a request without one of the keys."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in _OPEN or not self._keys:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key = sent_key(headers.get("authorization", ""))
        if key in self._keys:
            scope["key"] = _digest(key)
            await self._app(scope, receive, send)
            return
        answer = error_response(scope["path"], Unauthorized("this server needs a key: Authorization: Bearer KEY"))
        browser = "text/html" in headers.get("accept", "")
        answer.headers["WWW-Authenticate"] = 'Basic realm="unitvec: the key is the password"' if browser else "Bearer"
        await answer(scope, receive, send)
