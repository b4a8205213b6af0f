"""OpenAI's API, as far as it is about embedding."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unitvec.api.answers import JSONResponse
from unitvec.api.calls import Calls
from unitvec.api.catalog import Catalog
from unitvec.api.schemas import decode, field, model_name, parse_name
from unitvec.engine.onnx import FloatArray
from unitvec.errors import InvalidRequest
from unitvec.serving.batcher import Ids
from unitvec.store.model import StoredModel
from unitvec.store.name import Name

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class EmbeddingsRequest:
    """``POST /v1/embeddings``."""

    model: str  # as it was sent: the answer repeats it
    name: Name
    texts: list[str] | list[Ids]
    dimensions: int
    base64: bool

    @classmethod
    def parse(cls, body: bytes) -> EmbeddingsRequest:
        """Read a body.

        Raises:
            InvalidRequest, ModelNotFound: with the texts that Ollama answers where it has one.
        """
        fields = decode(body)
        model = model_name(fields, "model")
        dimensions = field(fields, "dimensions", int, "an integer") or 0
        encoding = field(fields, "encoding_format", str, "a string") or "float"
        if encoding.lower() not in ("float", "base64"):
            raise InvalidRequest(
                f"Invalid value for 'encoding_format' = {encoding}. Supported values: ['float', 'base64']."
            )
        texts = parse_input(fields.get("input"))
        return cls(model, parse_name(model), texts, dimensions, encoding.lower() == "base64")


def parse_input(value: Any) -> list[str] | list[Ids]:
    """Texts, or token ids of texts: a string, a list of strings, a list of ids, a list of such lists.

    Raises:
        InvalidRequest: something else, or nothing.
    """
    match value:
        case None | []:
            raise InvalidRequest("invalid input")
        case str():
            return [value]
        case list() if all(isinstance(text, str) for text in value):
            return value
        case list() if _are_ids(value):
            return [tuple(value)]
        case list() if all(isinstance(ids, list) and _are_ids(ids) for ids in value):
            return [tuple(ids) for ids in value]
    raise InvalidRequest("invalid input type")


def _are_ids(value: list[Any]) -> bool:
    return all(type(token) is int for token in value)  # True is an int to isinstance


def as_base64(vector: FloatArray) -> str:
    """A vector as OpenAI's clients ask for it: its float32 numbers, little-endian."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").data).decode()


class OpenAIAPI:
    """The handlers. ``routes`` is what the application takes.

    Args:
        calls: embeds.
        catalog: the models at hand.
    """

    def __init__(self, calls: Calls, catalog: Catalog) -> None:
        self._calls = calls
        self._catalog = catalog
        self.routes = [
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.model, methods=["GET"]),
        ]

    async def embeddings(self, request: Request) -> Response:
        """``POST /v1/embeddings``."""
        asked = await self._calls.read(request, EmbeddingsRequest.parse)
        answer = await self._calls.embed(request, asked.model, asked.name, asked.texts, dimensions=asked.dimensions)
        vectors = answer.vectors
        encode = as_base64 if asked.base64 else lambda vector: vector

        def rows(part: slice) -> list[dict[str, Any]]:
            some = range(len(vectors))[part]
            return [{"object": "embedding", "embedding": encode(vectors[index]), "index": index} for index in some]

        usage = {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}
        return await self._calls.write(
            vectors, rows, lambda data: {"object": "list", "data": data, "model": asked.model, "usage": usage}, _JSON
        )

    async def models(self, _: Request) -> JSONResponse:
        """``GET /v1/models``."""
        found = await asyncio.to_thread(self._catalog.list)
        return JSONResponse({"object": "list", "data": [_model(s, s.name.short) for s, _ in found]}, headers=_JSON)

    async def model(self, request: Request) -> JSONResponse:
        """``GET /v1/models/{model}``."""
        name = request.path_params["model"]
        stored = await asyncio.to_thread(self._catalog.stored, parse_name(name))
        return JSONResponse(_model(stored, name), headers=_JSON)


def _model(stored: StoredModel, name: str) -> dict[str, Any]:
    created = int(stored.modified_at.timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": stored.name.namespace}
