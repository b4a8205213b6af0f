"""How much one caller may ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitvec.api.answers import error_response
from unitvec.errors import TextTooLong, UnitvecError

_UPLOADS = "/api/blobs/"  # whole model files: they go to disk as they come, and have limits of their own


class TooLarge(UnitvecError):
    """A request body that is over the limit."""

    status = 413


@dataclass(frozen=True)
class Limits:
    """Bounds on a request and on connections.

    Attributes:
        body: bytes of a request's body.
        texts: texts of a request.
        characters: characters of a text, tokens of one that is sent as token ids.
        header: bytes of a request's line and headers together.
        connections: open connections.
        patience: seconds in which a request that is arriving must bring at least ``pace`` bytes.
        pace: see ``patience``.
    """

    body: int = 64 << 20
    texts: int = 16_384
    characters: int = 1_000_000
    header: int = 64 << 10
    connections: int = 2_048
    patience: float = 10.0
    pace: int = 1_024

    def check(self, texts: Sequence[Sequence[object]]) -> None:
        """Refuse more texts, or longer ones, than a request may have.

        Raises:
            TextTooLong: it says which bound was crossed.
        """
        if len(texts) > self.texts:
            raise TextTooLong(f"{len(texts)} texts in one request: at most {self.texts} are taken, send several")
        longest = max(map(len, texts), default=0)
        if longest > self.characters:
            raise TextTooLong(f"a text of {longest} characters: at most {self.characters} are taken, split it")


class LimitMiddleware:
    """Answers 413 to a body over the limit, as soon as its length is told or its bytes have come."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"].startswith(_UPLOADS):
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        if told.isdigit() and int(told) > self._limit:
            await error_response(scope["path"], self._refusal())(scope, receive, send)
            return
        came = 0

        async def receive_counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._limit:
                raise self._refusal()
            return message

        # A body of known length within the limit needs no counting: the parser cuts it there.
        await self._app(scope, receive if told else receive_counted, send)

    def _refusal(self) -> TooLarge:
        return TooLarge(f"the request body is over the limit of {self._limit >> 20} MiB")
