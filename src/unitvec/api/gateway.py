"""One address for a whole application: what cannot be answered here goes through to another server, unchanged.

Embedding calls for models that can be run here are answered here. Lists name the models of both. All
else, changes to models among it, is the upstream's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Set
from typing import Any

import httpx2
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from unitvec.api.answers import JSONResponse
from unitvec.api.calls import while_connected
from unitvec.api.catalog import Catalog
from unitvec.api.schemas import decode
from unitvec.errors import InvalidCheckpoint, InvalidRequest, ModelNotFound, UnitvecError
from unitvec.store.name import Name

log = logging.getLogger("unitvec.gateway")

Handler = Callable[[Request], Awaitable[Response]]

_BY_MODEL = {"/api/embed", "/api/embeddings", "/api/show", "/v1/embeddings", "/v1/models/{model:path}"}
_UNLOADING = {"/api/generate": "prompt", "/api/chat": "messages"}
_LISTS = {"/api/tags": ("models", "model"), "/api/ps": ("models", "model"), "/v1/models": ("data", "id")}

# Of one connection only (RFC 9110, 7.6.1), or of this server's own door.
_NOT_SENT_ON = {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"} | {
    b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"host", b"origin", b"x-request-id",
}  # fmt: skip
_NOT_BROUGHT_BACK = (_NOT_SENT_ON - {b"host", b"origin"}) | {b"date", b"x-request-id"}


class UpstreamDown(UnitvecError):
    """The upstream cannot be reached, or broke off before it answered."""

    status = 502


class Gateway:
    """Sends requests on.

    Args:
        url: the upstream.
        catalog: the models at hand here.
        in_memory: whether a model is in memory here.
        keeps_key: callers' Authorization is this server's own, and not sent on.

    Raises:
        UnitvecError: ``url`` is none.
    """

    def __init__(self, url: str, catalog: Catalog, in_memory: Callable[[Name], bool], *, keeps_key: bool) -> None:
        try:
            self._url = httpx2.URL(url if "://" in url else f"http://{url}")
        except httpx2.InvalidURL as error:
            raise UnitvecError(f"--upstream {url}: {error}") from None
        if self._url.scheme not in ("http", "https") or not self._url.host or self._url.path.strip("/"):
            raise UnitvecError(f"--upstream {url} is no server's address: write http://HOST:PORT")
        self._catalog = catalog
        self._in_memory = in_memory
        self._not_sent_on = _NOT_SENT_ON | ({b"authorization"} if keeps_key else set())
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=5),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
        )

    def around(self, routes: Iterable[Route]) -> list[Route]:
        """The routes that are answered here, if need be in part; those left out are the upstream's."""
        kept = []
        for route in routes:
            if route.path in _BY_MODEL:
                handler = self._where_it_runs(route.endpoint)
            elif route.path in _UNLOADING:
                handler = self._unload_or_send_on(route.endpoint, _UNLOADING[route.path])
            elif route.path in _LISTS:
                handler = self._both(route.endpoint, *_LISTS[route.path])
            elif route.path.startswith(("/api/", "/v1/")) and route.path != "/api/version":
                continue
            else:
                handler = route.endpoint
            kept.append(Route(route.path, handler, methods=list(route.methods or ())))
        return kept

    async def send_on(self, request: Request, body: bytes | None = None) -> Response:
        """The upstream's answer.

        Args:
            request: what was asked.
            body: its body where that has been read; None to stream it.

        Raises:
            UpstreamDown: there is none.
        """
        headers = _passed_on(request.scope["headers"], self._not_sent_on)
        headers.append((b"x-request-id", str(request.scope["log"]["request"]).encode()))
        content: bytes | AsyncIterable[bytes] | None = body
        if body is None and any(
            key in (b"content-length", b"transfer-encoding") for key, _ in request.scope["headers"]
        ):
            content = request.stream()
        # As it was sent: a URL would be put into its normal form, and `/x/../api/pull` would become another path.
        exact = {"target": _target(request.scope)}
        sent = httpx2.Request(request.method, self._url, headers=headers, content=content, extensions=exact)
        request.scope["log"]["upstream"] = str(self._url.netloc, "ascii")
        try:
            return _Relayed(await self._client.send(sent, stream=True))
        except httpx2.TransportError as error:
            raise UpstreamDown(
                f"the upstream {self._url} does not answer: {str(error) or type(error).__name__}"
            ) from None

    def _where_it_runs(self, here: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if "model" in request.path_params:
                return await (
                    here(request) if await self._runs(request.path_params["model"]) else self.send_on(request)
                )
            body = await request.body()
            fields = _fields(body)
            model = fields.get("model") or fields.get("name")
            if not isinstance(model, str) or await self._runs(model):
                return await here(request)  # a body that is wrong is answered here too
            return await while_connected(request, self.send_on(request, body))

        return answer

    def _unload_or_send_on(self, here: Handler, content: str) -> Handler:
        async def answer(request: Request) -> Response:
            body = await request.body()
            fields = _fields(body)
            model = fields.get("model")
            unloads = fields.get("keep_alive") == 0 and not fields.get(content)
            if unloads and isinstance(model, str) and (name := _name(model)) and self._in_memory(name):
                return await here(request)
            return await while_connected(request, self.send_on(request, body))

        return answer

    def _both(self, here: Handler, key: str, identity: str) -> Handler:
        async def answer(request: Request) -> Response:
            mine = orjson.loads(bytes((await here(request)).body))
            known = {entry[identity].lower() for entry in mine[key]}
            for entry in await self._listed(request, key):
                if isinstance(entry, dict) and str(entry.get(identity)).lower() not in known:
                    mine[key].append(entry)
            return JSONResponse(mine)

        return answer

    async def _listed(self, request: Request, key: str) -> list[Any]:
        allowed = [header for header in request.scope["headers"] if header[0] == b"authorization"]
        try:
            url, headers = self._url.copy_with(path=request.url.path), _passed_on(allowed, self._not_sent_on)
            reply = await self._client.get(url, headers=headers, timeout=5)
            return list(reply.raise_for_status().json()[key] or [])
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("the upstream lists no models", extra={"fields": {"error": type(error).__name__}})
            return []

    async def _runs(self, model: str) -> bool:
        name = _name(model)
        return name is not None and (self._in_memory(name) or await asyncio.to_thread(self._at_hand, name))

    def _at_hand(self, name: Name) -> bool:
        try:
            self._catalog.checkpoint(self._catalog.stored(name))
        except (ModelNotFound, InvalidCheckpoint):
            return False
        return True


class _Relayed(Response):
    """An answer of the upstream, passed on as it comes; when the caller leaves, the upstream is told."""

    def __init__(self, reply: httpx2.Response) -> None:
        super().__init__(status_code=reply.status_code)
        self._reply = reply
        # An answer without a body may tell the length that it would have.
        kept_back = _NOT_BROUGHT_BACK | ({b"content-length"} if reply.status_code in (204, 304) else set())
        self.raw_headers = _passed_on(reply.headers.raw, kept_back)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """ASGI."""
        relaying = asyncio.ensure_future(self._relay(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({relaying, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if relaying.done():
                relaying.result()
        except httpx2.TransportError as error:
            # The caller sees the connection end before the answer does, as he would see it of the upstream.
            log.warning("the upstream broke off", extra={"fields": {"error": type(error).__name__}})
        finally:
            relaying.cancel()
            leaving.cancel()
            await self._reply.aclose()

    async def _relay(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._reply.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _passed_on(headers: Iterable[tuple[bytes, bytes]], not_these: Set[bytes]) -> list[tuple[bytes, bytes]]:
    """Headers without ``not_these``, and without those that Connection says are of one connection only."""
    lower = [(key.lower(), value) for key, value in headers]
    named = {name.strip().lower() for key, value in lower if key == b"connection" for name in value.split(b",")}
    return [(key, value) for key, value in lower if key not in not_these and key not in named]


def _target(scope: Mapping[str, Any]) -> bytes:
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


def _fields(body: bytes) -> dict[str, Any]:
    try:
        return decode(body)
    except InvalidRequest:
        return {}


def _name(model: str) -> Name | None:
    try:
        return Name.parse(model)
    except InvalidRequest:
        return None
