"""OpenTelemetry traces: a span a request, part of the caller's trace where he has one, and in it one for each step.

The steps of embedding are parse, load, tokenize, run (the wait for its turn included) and write. It needs
``unitvec[traces]``. OpenTelemetry's own variables tell where spans go: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unitvec import __version__
from unitvec.errors import UnitvecError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from unitvec.serving.service import Step

_FIELDS = ("request", "model", "texts", "tokens", "upstream")  # what a handler notes; never a text or a key


def tracer() -> Tracer:
    """A tracer that sends what it records.

    Raises:
        UnitvecError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise UnitvecError("traces need OpenTelemetry: pip install 'unitvec[traces]'") from None
    name = os.environ.get("OTEL_SERVICE_NAME", "unitvec")
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.get_tracer("unitvec", __version__)


class TraceMiddleware:
    """A server span for each request; stands inside :class:`unitvec.api.observe.ObserveMiddleware`."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry import propagate, trace

        caller = propagate.extract(dict(Headers(scope=scope)))
        method = scope["method"]
        with self._tracer.start_as_current_span(
            method, caller, kind=trace.SpanKind.SERVER, attributes={"http.request.method": method}
        ) as span:

            async def send_noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._steps(scope.get("steps", []))
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(trace.StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, send_noted)
            span.set_attribute("url.path", scope["path"])
            for key in _FIELDS:
                if key in scope["log"]:
                    span.set_attribute(f"unitvec.{key}", scope["log"][key])

    def _steps(self, steps: list[Step]) -> None:
        """Spans of what is done by now: all that follows the last step was writing the answer."""
        now = time.perf_counter_ns()
        since_1970 = time.time_ns() - now
        if len(steps) > 1:
            steps = [*steps, ("write", steps[-1][2], now)]
        for name, began, ended in steps:
            self._tracer.start_span(name, start_time=since_1970 + began).end(since_1970 + ended)
