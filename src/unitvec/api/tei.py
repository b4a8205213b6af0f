"""The part of text-embeddings-inference's API that its clients in LangChain and LlamaIndex use.

Its routes name no model: they use the first one that ``unitvec serve`` was given, else the only one in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unitvec import __version__
from unitvec.api.answers import JSONResponse
from unitvec.api.calls import Calls
from unitvec.api.catalog import Catalog
from unitvec.api.openai import parse_input
from unitvec.api.schemas import decode, field
from unitvec.errors import InvalidRequest, ModelNotFound, TextTooLong, UnitvecError
from unitvec.store.name import Name


class Unprocessable(UnitvecError):
    """A body that is not what the route takes."""

    status = 422


class TooLong(UnitvecError):
    """A text that is longer than the context."""

    status = 413


class TeiAPI:
    """The handlers. ``routes`` is what the application takes.

    Args:
        calls: embeds.
        catalog: the models at hand.
        names: the models that ``serve`` was given.
    """

    def __init__(self, calls: Calls, catalog: Catalog, names: Sequence[Name]) -> None:
        self._calls = calls
        self._catalog = catalog
        self._names = names
        self.routes = [
            # huggingface_hub's client posts to the address itself, Inference Endpoints' to /invocations.
            *(Route(path, self.embed, methods=["POST"]) for path in ("/embed", "/", "/invocations")),
            Route("/info", self.info, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
        ]

    async def embed(self, request: Request) -> Response:
        """``POST /embed``."""
        try:
            fields = decode(await request.body())
            texts = parse_input(fields.get("inputs"))
            truncate = field(fields, "truncate", bool, "a boolean") or False
            dimensions = field(fields, "dimensions", int, "an integer") or 0
            _refuse(field(fields, "normalize", bool, "a boolean") is False, "vectors are of unit length: leave it out")
            _refuse(
                bool(fields.get("prompt_name")), "prompts are not applied: put them before the texts", "prompt_name"
            )
            _refuse(fields.get("truncation_direction") == "Left", "texts are cut on the right", "truncation_direction")
        except InvalidRequest as error:
            raise Unprocessable(error.message) from None
        name = self._model()
        try:
            answer = await self._calls.embed(request, name.short, name, texts, truncate=truncate, dimensions=dimensions)
        except TextTooLong as error:
            raise TooLong(error.message) from None
        except InvalidRequest as error:
            raise Unprocessable(error.message) from None
        vectors = answer.vectors
        return await self._calls.write(
            vectors, vectors.__getitem__, lambda rows: rows, {"Content-Type": "application/json"}
        )

    async def info(self, _: Request) -> JSONResponse:
        """``GET /info``."""
        stored = await asyncio.to_thread(self._catalog.stored, self._model())
        checkpoint = await asyncio.to_thread(self._catalog.checkpoint, stored)
        resident = self._calls.service.pool.resident(stored.name)
        context = self._calls.service.context_of(resident) if resident and resident.ready else checkpoint.context_length
        fields = {
            "model_id": stored.name.short,
            "model_sha": stored.digest,
            "model_dtype": "float32",
            "model_type": {"embedding": {"pooling": checkpoint.spec.pooling}},
            "max_concurrent_requests": self._calls.service.runner.max_requests,
            "max_input_length": context,
            "max_client_batch_size": self._calls.limits.texts,
            "auto_truncate": False,
            "version": __version__,
        }
        return JSONResponse(fields, headers={"Content-Type": "application/json"})

    async def health(self, _: Request) -> Response:
        """``GET /health``."""
        return Response()

    def _model(self) -> Name:
        if self._names:
            return self._names[0]
        residents = self._calls.service.pool.residents()
        if len(residents) == 1:
            return residents[0].stored.name
        raise ModelNotFound("this route names no model: start the server with one, unitvec serve MODEL")


def _refuse(wrong: bool, why: str, key: str = "normalize") -> None:
    if wrong:
        raise InvalidRequest(f"{key} is not possible here: {why}")
