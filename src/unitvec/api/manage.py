"""Ollama's API for models that come and go: pull, push, create, copy, delete, and the blobs that models are made of."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from unitvec.api.answers import JSONResponse
from unitvec.api.calls import while_connected
from unitvec.api.schemas import decode, field, model_name
from unitvec.api.values import type_name
from unitvec.errors import InvalidRequest, ModelNotFound, UnitvecError
from unitvec.store import files, sources
from unitvec.store.blobs import GGUF, Incoming
from unitvec.store.create import Recipe, create
from unitvec.store.manifest import is_digest
from unitvec.store.name import Name
from unitvec.store.progress import Progress, Report
from unitvec.store.push import push
from unitvec.store.shared import Abandoned
from unitvec.store.stores import Stores

Work = Callable[[Report], object]

_PIECE = 1 << 20  # bytes of an upload that are written at once


def routes(stores: Stores) -> list[Route]:
    """What the application takes."""
    api = _ManageAPI(stores)
    return [
        Route("/api/pull", api.pull, methods=["POST"]),
        Route("/api/push", api.push, methods=["POST"]),
        Route("/api/create", api.create, methods=["POST"]),
        Route("/api/copy", api.copy, methods=["POST"]),
        Route("/api/delete", api.delete, methods=["DELETE"]),
        Route("/api/blobs/{digest}", api.has_blob, methods=["HEAD"]),
        Route("/api/blobs/{digest}", api.add_blob, methods=["POST"]),
    ]


class _ManageAPI:
    """The handlers. What takes long is done in threads, and stops when the last client that waits for it has gone."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def pull(self, request: Request) -> Response:
        """``POST /api/pull``."""
        fields = decode(await request.body())
        name = Name.parse(model_name(fields, "model", "name"))
        insecure = bool(field(fields, "insecure", bool, "a boolean"))
        source = _source(fields)
        return await _answer(request, fields, lambda report: self._stores.pull(name, report, source, insecure=insecure))

    async def push(self, request: Request) -> Response:
        """``POST /api/push``."""
        fields = decode(await request.body())
        model = model_name(fields, "model", "name")
        if not model:
            raise InvalidRequest("model is required")
        name = Name.parse(model)
        insecure = bool(field(fields, "insecure", bool, "a boolean"))
        return await _answer(request, fields, lambda report: push(name, self._stores, report, insecure=insecure))

    async def create(self, request: Request) -> Response:
        """``POST /api/create``."""
        fields = decode(await request.body())
        name = Name.parse(model_name(fields, "model", "name"))
        recipe = _recipe(fields)
        return await _answer(request, fields, lambda report: create(name, recipe, self._stores, report))

    async def copy(self, request: Request) -> Response:
        """``POST /api/copy``."""
        fields = decode(await request.body())
        names = []
        for key in ("source", "destination"):
            text = field(fields, key, str, "a string") or ""
            try:
                names.append(Name.parse(text))
            except InvalidRequest:
                raise InvalidRequest(f'{key} "{text}" is invalid') from None
        if not await asyncio.to_thread(self._stores.copy, *names):
            raise ModelNotFound(f'model "{fields["source"]}" not found')
        return Response()

    async def delete(self, request: Request) -> Response:
        """``DELETE /api/delete``."""
        fields = decode(await request.body())
        model = model_name(fields, "model", "name")
        try:
            name = Name.parse(model)
        except InvalidRequest:
            raise InvalidRequest(f'name "{model}" is invalid') from None
        if not await asyncio.to_thread(self._stores.remove, name):
            raise ModelNotFound(f"model '{model}' not found")
        return Response()

    async def has_blob(self, request: Request) -> Response:
        """``HEAD /api/blobs/DIGEST``."""
        digest = _digest(request)
        found = await asyncio.to_thread(self._stores.holder_of_blob, digest)
        return Response(status_code=200 if found else 404)

    async def add_blob(self, request: Request) -> Response:
        """``POST /api/blobs/DIGEST``: the body is the blob."""
        digest = _digest(request)
        if await asyncio.to_thread(self._stores.holder_of_blob, digest):
            return Response(status_code=200)
        stream, waiting = request.stream(), bytearray()
        async for chunk in stream:
            waiting += chunk
            if len(waiting) >= len(GGUF):
                break
        blobs = await asyncio.to_thread(self._stores.blobs_for, bytes(waiting))
        with files.writing(blobs.root), Incoming(blobs, digest) as incoming:
            async for chunk in stream:
                waiting += chunk
                if len(waiting) >= _PIECE:
                    await asyncio.to_thread(incoming.write, bytes(waiting))
                    waiting.clear()
            incoming.write(bytes(waiting))
            await asyncio.to_thread(incoming.keep)
        return Response(status_code=201)


def _digest(request: Request) -> str:
    digest = str(request.path_params["digest"]).replace("sha256-", "sha256:", 1)
    if not is_digest(digest):
        raise InvalidRequest("invalid digest format")
    return digest


def _source(fields: dict[str, Any]) -> str | None:
    """Not one of Ollama's fields."""
    source: str | None = field(fields, "source", str, "a string")
    if source not in (None, *sources.KEYS):
        raise InvalidRequest(f'"source" must be one of {", ".join(sources.KEYS)}')
    return source


def _recipe(fields: dict[str, Any]) -> Recipe:
    for key in ("quantize", "quantization", "adapters"):
        if fields.get(key):
            raise InvalidRequest(f'"{key}" is not supported')
    base = field(fields, "from", str, "a string")
    blobs = field(fields, "files", dict, "an object") or {}
    if not all(isinstance(digest, str) for digest in blobs.values()):
        raise InvalidRequest('"files" must be an object of paths and digests')
    licenses = fields.get("license") or []
    licenses = [licenses] if isinstance(licenses, str) else licenses
    if not isinstance(licenses, list) or not all(isinstance(text, str) for text in licenses):
        raise InvalidRequest(f'"license" must be a string or an array of strings, not {type_name(licenses)}')
    return Recipe(
        base=Name.parse(base) if base else None,
        blobs=blobs,
        parameters=field(fields, "parameters", dict, "an object") or {},
        template=field(fields, "template", str, "a string") or "",
        system=field(fields, "system", str, "a string") or "",
        licenses=tuple(licenses),
        source=_source(fields),
    )


async def _answer(request: Request, fields: dict[str, Any], work: Work) -> Response:
    """Runs ``work``, and tells of it: a line of JSON each step, or one object at the end with ``"stream": false``."""
    stream = field(fields, "stream", bool, "a boolean")
    steps = _steps(work)
    if stream is False:
        last = Progress("success")

        async def drain() -> None:
            nonlocal last
            async for step in steps:
                if isinstance(step, UnitvecError):
                    raise step
                last = step

        await while_connected(request, drain())
        return JSONResponse({"status": last.status})
    first = await anext(steps)
    if isinstance(first, UnitvecError):  # nothing is said yet, so the status can tell
        raise first
    return StreamingResponse(_lines(first, steps), media_type="application/x-ndjson")


async def _lines(first: Progress, steps: AsyncIterator[Progress | UnitvecError]) -> AsyncIterator[bytes]:
    yield orjson.dumps(first.to_json()) + b"\n"
    async for step in steps:
        line = {"error": step.message} if isinstance(step, UnitvecError) else step.to_json()
        yield orjson.dumps(line) + b"\n"


async def _steps(work: Work) -> AsyncIterator[Progress | UnitvecError]:
    """What ``work`` reports, done in a thread of its own; an error of the user's ends it. Closing stops the work."""
    loop, gone = asyncio.get_running_loop(), threading.Event()
    queue: asyncio.Queue[Progress | BaseException | None] = asyncio.Queue()

    def put(step: Progress | BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(queue.put_nowait, step)

    def report(step: Progress) -> None:
        if gone.is_set():
            raise Abandoned
        put(step)

    def run() -> None:
        try:
            work(report)
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=run, daemon=True, name="manage").start()
    try:
        while (step := await queue.get()) is not None:
            if isinstance(step, UnitvecError):
                yield step
                return
            if isinstance(step, BaseException):
                raise step
            yield step
    finally:
        gone.set()
