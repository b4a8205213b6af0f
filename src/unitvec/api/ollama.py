"""Ollama's API, as far as it is about embedding."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from unitvec import __version__
from unitvec.api import describe
from unitvec.api.schemas import EmbeddingsRequest, EmbedRequest, decode, model_name, parse_name
from unitvec.api.values import parse_keep_alive
from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.errors import InvalidCheckpoint, InvalidRequest, ModelNotFound
from unitvec.serving.service import Service
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.stores import Stores

# The version of Ollama whose API this is: its clients compare it with what they need.
OLLAMA_VERSION = "0.32.0"

T = TypeVar("T")


class JSONResponse(Response):
    """JSON by orjson: numpy arrays straight to text, each float in the shortest form that reads back the same."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        """The body."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def client_of(request: Request) -> str | None:
    """Whose turns a request takes: those of its key, else those of its address."""
    return request.headers.get("authorization") or (request.client.host if request.client else None)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled if the client goes away; its body must have been read.

    Raises:
        ClientDisconnect: nobody is there to answer.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # says nothing else once the body is read
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


class OllamaAPI:
    """The handlers. ``routes`` is what the application takes.

    Args:
        service: embeds.
        stores: the models at hand.
    """

    def __init__(self, service: Service, stores: Stores) -> None:
        self._service = service
        self._stores = stores
        self._checkpoints: dict[str, Checkpoint] = {}
        self.routes = [
            Route("/", self.running, methods=["GET"]),
            Route("/api/version", self.version, methods=["GET"]),
            Route("/api/embed", self.embed, methods=["POST"]),
            Route("/api/embeddings", self.embeddings, methods=["POST"]),
            Route("/api/tags", self.tags, methods=["GET"]),
            Route("/api/ps", self.ps, methods=["GET"]),
            Route("/api/show", self.show, methods=["POST"]),
            Route("/api/generate", self.generate, methods=["POST"]),
            Route("/api/chat", self.chat, methods=["POST"]),
        ]

    async def running(self, _: Request) -> Response:
        """``GET /``."""
        return PlainTextResponse("Ollama is running")

    async def version(self, _: Request) -> Response:
        """``GET /api/version``."""
        return JSONResponse({"version": OLLAMA_VERSION, "unitvec": __version__})

    async def embed(self, request: Request) -> Response:
        """``POST /api/embed``."""
        began = time.perf_counter_ns()
        asked = self._parse(EmbedRequest.parse, await request.body())
        work = self._service.embed(
            asked.name,
            asked.texts,
            truncate=asked.truncate,
            dimensions=asked.dimensions,
            context=asked.context,
            keep_alive=asked.keep_alive,
            client=client_of(request),
        )
        with _named_as_sent(asked.model):
            answer = await while_connected(request, work)
        request.scope["log"] |= {"model": asked.name.short, "texts": len(asked.texts), "tokens": answer.tokens}
        if not asked.texts:  # Ollama leaves counters out that are nil
            return JSONResponse({"model": asked.model, "embeddings": []})
        fields = {
            "model": asked.model,
            "embeddings": answer.vectors,
            "total_duration": time.perf_counter_ns() - began,
            "load_duration": answer.load_nanoseconds,
            "prompt_eval_count": answer.tokens,
        }
        return self._write(fields)

    async def embeddings(self, request: Request) -> Response:
        """``POST /api/embeddings``, the older form."""
        asked = self._parse(EmbeddingsRequest.parse, await request.body())
        work = self._service.embed(
            asked.name,
            [asked.prompt] if asked.prompt else [],
            truncate=False,
            context=asked.context,
            keep_alive=asked.keep_alive,
            client=client_of(request),
        )
        with _named_as_sent(asked.model):
            answer = await while_connected(request, work)
        request.scope["log"] |= {"model": asked.name.short, "texts": len(answer.vectors), "tokens": answer.tokens}
        return self._write({"embedding": answer.vectors[0] if asked.prompt else []})

    async def tags(self, _: Request) -> Response:
        """``GET /api/tags``."""
        return JSONResponse({"models": await asyncio.to_thread(self._tags)})

    async def ps(self, _: Request) -> Response:
        """``GET /api/ps``."""
        residents = self._service.pool.residents()
        return JSONResponse({"models": [describe.process(r, self._service.context_of(r)) for r in residents]})

    async def show(self, request: Request) -> Response:
        """``POST /api/show``."""
        model = model_name(decode(await request.body()), "model", "name")
        if not model:
            raise InvalidRequest("model is required")
        stored = await asyncio.to_thread(self._stored, Name.parse(model))
        return JSONResponse(describe.show(stored, await asyncio.to_thread(self._checkpoint, stored)))

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
        with _named_as_sent(model):
            if not (keep_alive == 0 and self._service.pool.resident(name)):
                await asyncio.to_thread(self._stored, name)
        if fields.get(content) or keep_alive != 0:
            raise InvalidRequest(f'"{model}" does not support {verb}')
        self._service.pool.stop(name)
        created = datetime.now(UTC).isoformat()
        return JSONResponse({"model": model, "created_at": created, **empty, "done": True, "done_reason": "unload"})

    def _parse(self, parse: Callable[[bytes], T], body: bytes) -> T:
        began = time.perf_counter()
        asked = parse(body)
        self._service.counters.parse_seconds += time.perf_counter() - began
        return asked

    def _write(self, fields: dict[str, Any]) -> JSONResponse:
        began = time.perf_counter()
        response = JSONResponse(fields)
        self._service.counters.write_seconds += time.perf_counter() - began
        return response

    def _stored(self, name: Name) -> StoredModel:
        stored = self._stores.find(name)
        if stored is None:
            raise ModelNotFound(f"model '{name.short}' not found")
        return stored

    def _checkpoint(self, stored: StoredModel) -> Checkpoint:
        """What a model's files say of it; read once a digest."""
        if stored.digest not in self._checkpoints:
            self._checkpoints[stored.digest] = stored.open()
        return self._checkpoints[stored.digest]

    def _tags(self) -> list[dict[str, Any]]:
        found = []
        for stored in self._stores.list():
            with contextlib.suppress(InvalidCheckpoint):  # what cannot be run is not offered
                found.append(describe.tag(stored, self._checkpoint(stored)))
        return found


@contextlib.contextmanager
def _named_as_sent(model: str) -> Iterator[None]:
    """A missing model is named as the caller wrote it."""
    try:
        yield
    except ModelNotFound:
        raise ModelNotFound(f'model "{model}" not found, try pulling it first') from None
