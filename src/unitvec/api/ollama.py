"""Ollama's API, as far as it is about embedding."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unitvec import __version__
from unitvec.api import describe
from unitvec.api.answers import JSONResponse
from unitvec.api.calls import Calls, named_as_sent
from unitvec.api.catalog import Catalog
from unitvec.api.schemas import EmbeddingsRequest, EmbedRequest, decode, model_name, parse_name
from unitvec.api.values import parse_keep_alive
from unitvec.errors import InvalidRequest
from unitvec.models.config import Dtype
from unitvec.store.name import Name

# The version of Ollama whose API this is: its clients compare it with what they need.
OLLAMA_VERSION = "0.32.0"


class OllamaAPI:
    """The handlers. ``routes`` is what the application takes.

    Args:
        calls: embeds.
        catalog: the models at hand.
        dtype: what they compute in; None for each one's own.
    """

    def __init__(self, calls: Calls, catalog: Catalog, dtype: Dtype | None) -> None:
        self._dtype: Dtype | None = dtype
        self._calls = calls
        self._backend = calls.backend
        self._catalog = catalog
        self.routes = [
            Route("/api/version", self.version, methods=["GET"]),
            Route("/api/embed", self.embed, methods=["POST"]),
            Route("/api/embeddings", self.embeddings, methods=["POST"]),
            Route("/api/tags", self.tags, methods=["GET"]),
            Route("/api/ps", self.ps, methods=["GET"]),
            Route("/api/show", self.show, methods=["POST"]),
            Route("/api/generate", self.generate, methods=["POST"]),
            Route("/api/chat", self.chat, methods=["POST"]),
        ]

    async def version(self, _: Request) -> Response:
        """``GET /api/version``."""
        return JSONResponse({"version": OLLAMA_VERSION, "unitvec": __version__})

    async def embed(self, request: Request) -> Response:
        """``POST /api/embed``."""
        began = time.perf_counter_ns()
        asked = await self._calls.read(request, EmbedRequest.parse)
        answer = await self._calls.embed(
            request,
            asked.model,
            asked.name,
            asked.texts,
            truncate=asked.truncate,
            dimensions=asked.dimensions,
            context=asked.context,
            keep_alive=asked.keep_alive,
        )
        if not asked.texts:  # Ollama leaves counters out that are nil
            return JSONResponse({"model": asked.model, "embeddings": []})
        told = {
            "total_duration": time.perf_counter_ns() - began,
            "load_duration": answer.load_nanoseconds,
            "prompt_eval_count": answer.tokens,
        }
        return await self._calls.write(
            answer.vectors,
            answer.vectors.__getitem__,
            lambda rows: {"model": asked.model, "embeddings": rows, **told},
        )

    async def embeddings(self, request: Request) -> Response:
        """``POST /api/embeddings``, the older form."""
        asked = await self._calls.read(request, EmbeddingsRequest.parse)
        answer = await self._calls.embed(
            request,
            asked.model,
            asked.name,
            [asked.prompt] if asked.prompt else [],
            truncate=False,
            context=asked.context,
            keep_alive=asked.keep_alive,
        )
        return JSONResponse({"embedding": answer.vectors[0] if asked.prompt else []})

    async def tags(self, _: Request) -> Response:
        """``GET /api/tags``."""
        return JSONResponse({"models": [describe.tag(*pair) for pair in await asyncio.to_thread(self._catalog.list)]})

    async def ps(self, _: Request) -> Response:
        """``GET /api/ps``."""
        return JSONResponse({"models": [describe.process(model) for model in await self._backend.running()]})

    async def show(self, request: Request) -> Response:
        """``POST /api/show``."""
        model = model_name(decode(await request.body()), "model", "name")
        if not model:
            raise InvalidRequest("model is required")
        stored = await asyncio.to_thread(self._catalog.stored, Name.parse(model))
        checkpoint = await asyncio.to_thread(self._catalog.checkpoint, stored)
        return JSONResponse(describe.show(stored, checkpoint, self._dtype))

    async def generate(self, request: Request) -> Response:
        """``POST /api/generate``: these models generate nothing; without a prompt it loads or unloads one."""
        return await self._load_only(request, "prompt", "generate", {"response": ""})

    async def chat(self, request: Request) -> Response:
        """``POST /api/chat``: as ``generate``."""
        message = {"message": {"role": "assistant", "content": ""}}
        return await self._load_only(request, "messages", "chat", message)

    async def _load_only(self, request: Request, content: str, verb: str, empty: dict[str, Any]) -> Response:
        fields = decode(await request.body())
        model = model_name(fields, "model")
        keep_alive = parse_keep_alive(fields.get("keep_alive"))
        name = parse_name(model)
        with named_as_sent(model):
            unload = keep_alive == 0 and not fields.get(content)
            if not (unload and await self._backend.stop(name)):
                await asyncio.to_thread(self._catalog.stored, name)
        if not unload:
            raise InvalidRequest(f'"{model}" does not support {verb}')
        created = datetime.now(UTC).isoformat()
        return JSONResponse({"model": model, "created_at": created, **empty, "done": True, "done_reason": "unload"})
