"""Routes for those who run the server: health, metrics, the API's description, the page for browsers."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from unitvec.api import metrics, openapi
from unitvec.api.answers import JSONResponse
from unitvec.api.observe import Traffic
from unitvec.serving.backend import Backend

# The pages load nothing from anywhere, and no page of another site may frame them.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}


class OpsAPI:
    """The handlers. ``routes`` is what the application takes.

    Args:
        backend: whose state is told.
        traffic: what has been answered.
    """

    def __init__(self, backend: Backend, traffic: Traffic) -> None:
        self._backend = backend
        self._traffic = traffic
        self.routes = [
            Route("/", self.root, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/health/live", self.live, methods=["GET"]),
            Route("/health/ready", self.ready, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
        ]

    async def root(self, request: Request) -> Response:
        """``GET /``: the page for a browser, Ollama's sentence for everyone else."""
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(_page("page.html"), headers=_PAGE_HEADERS)
        return PlainTextResponse("Ollama is running", headers={"Vary": "Accept"})

    async def metrics(self, _: Request) -> Response:
        """``GET /metrics``."""
        figures = metrics.render(metrics.collect(await self._backend.figures(), self._traffic))
        return Response(figures, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def live(self, _: Request) -> Response:
        """``GET /health/live``: the process answers."""
        return JSONResponse({"status": "live"})

    async def ready(self, _: Request) -> Response:
        """``GET /health/ready``: a request would be taken now, not turned away."""
        figures = await self._backend.figures()
        full = figures.requests >= figures.room
        return JSONResponse({"status": "the queue is full" if full else "ready"}, 503 if full else 200)

    async def openapi(self, _: Request) -> Response:
        """``GET /openapi.json``."""
        return JSONResponse(openapi.document())

    async def docs(self, _: Request) -> Response:
        """``GET /docs``: the same for people."""
        return HTMLResponse(openapi.page(), headers=_PAGE_HEADERS)


@cache
def _page(name: str) -> str:
    return files("unitvec.api").joinpath(name).read_text(encoding="utf-8")
