"""Answers: JSON, and errors in the form of the API that was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unitvec.engine.onnx import FloatArray
from unitvec.errors import Overloaded, UnitvecError

_JSON = "application/json; charset=utf-8"

# OpenAI's and text-embeddings-inference's names for what a status means.
_OPENAI_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
_TEI_TYPES = {401: "Unauthorized", 404: "Validation", 413: "Validation", 422: "Validation", 503: "Overloaded"}
_TEI_PATHS = ("/embed", "/info", "/invocations")


class JSONResponse(Response):
    """JSON by orjson: numpy arrays straight to text, each float in the shortest form that reads back the same."""

    media_type = _JSON

    def render(self, content: Any) -> bytes:
        """The body."""
        return _dumps(content)


class PartsResponse(Response):
    """JSON in parts, which are sent as fast as the caller reads."""

    media_type = _JSON

    def __init__(self, parts: list[bytes], headers: dict[str, str]) -> None:
        super().__init__(headers={"Content-Length": str(sum(map(len, parts)))} | headers)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """ASGI."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


_AT_ONCE = 1 << 16  # numbers to write before others get their turn: some milliseconds
_HOLE = b"\0"  # what no JSON has in it


async def vectors_response(
    vectors: FloatArray,
    rows: Callable[[slice], Any],
    around: Callable[[Any], Any],
    headers: dict[str, str] | None = None,
) -> Response:
    """An answer with vectors in it; many of them are written piece by piece, and others served in between.

    Args:
        vectors: float32 [texts, dimensions].
        rows: what stands in the answer for a slice of them, a sequence.
        around: the whole answer, given all of its rows.
        headers: more headers.
    """
    count, width = vectors.shape
    step = max(1, _AT_ONCE // max(1, width))
    if count <= step:
        return JSONResponse(around(rows(slice(0, count))), headers=headers)
    head, tail = _dumps(around(orjson.Fragment(_HOLE))).split(_HOLE)
    parts = [head]
    for start in range(0, count, step):
        parts.append((b"," if start else b"[") + _dumps(rows(slice(start, start + step)))[1:-1])
        await asyncio.sleep(0)
    return PartsResponse([*parts, b"]" + tail], headers or {})


def _dumps(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def error_body(path: str, status: int, message: str) -> dict[str, Any]:
    """What an error looks like to the clients that ask for ``path``."""
    if path.startswith("/v1/"):
        kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}
    if path in _TEI_PATHS:
        return {"error": message, "error_type": _TEI_TYPES.get(status, "Validation" if status < 500 else "Backend")}
    return {"error": message}


def error_response(path: str, error: UnitvecError) -> JSONResponse:
    """The answer to a request for ``path`` that failed."""
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Overloaded) else {}
    if path.startswith("/v1/") and error.status != 400:
        headers["Content-Type"] = "application/json"
    return JSONResponse(error_body(path, error.status, error.message), error.status, headers)
