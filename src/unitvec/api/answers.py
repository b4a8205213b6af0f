"""Answers: JSON, and errors in the form of the API that was asked."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

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
