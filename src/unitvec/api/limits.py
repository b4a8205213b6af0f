"""How much one caller may ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitvec.api.answers import error_response
from unitvec.errors import Overloaded, TextTooLong, UnitvecError

_UPLOADS = "/api/blobs/"  # whole model files: they go to disk as they come, and have limits of their own
SMALL = 64 << 10  # bytes of a body that is always taken: all connections' together are not many


class TooLarge(UnitvecError):
    """A request body that is over the limit."""

    status = 413


@dataclass(frozen=True)
class Limits:
    """Bounds on a request and on connections.

    Attributes:
        body: bytes of a request's body.
        bodies: bytes of all bodies over 64 KiB that are held at a time.
        texts: texts of a request.
        characters: characters of a text, tokens of one that is sent as token ids.
        header: bytes of a request's line and headers together.
        connections: open connections.
        patience: seconds in which a request that is arriving must bring at least ``pace`` bytes.
        pace: see ``patience``.
    """

    body: int = 64 << 20
    bodies: int = 256 << 20
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
    """Answers 413 to a body over the limit, as soon as its length is told or its bytes have come.

    Bytes of large bodies are counted as they come, not as they are announced: who announces much and
    sends nothing takes no room from others. While too many are held, the next large body is answered 503.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"].startswith(_UPLOADS):
            await self._app(scope, receive, send)
            return
        length = body_length(scope)
        if length is not None and length <= SMALL:  # the parser cuts it there
            await self._app(scope, receive, send)
            return
        if length is not None and length > self._limits.body:
            await error_response(scope["path"], self._too_large())(scope, receive, send)
            return
        came = 0

        async def receive_counted() -> Message:
            nonlocal came
            message = await receive()
            size = len(message.get("body", b""))
            came += size
            self._held += size
            if came > self._limits.body:
                raise self._too_large()
            if came > SMALL and self._held > self._limits.bodies:
                raise Overloaded("too many large requests are being answered, please try again")
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._held -= came

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the request body is over the limit of {self._limits.body >> 20} MiB")


def body_length(scope: Scope) -> int | None:
    """Bytes of a request's body; None where it comes in chunks. The parser has seen to it that it is a number."""
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return None
    return int(headers.get("content-length", "0"))
