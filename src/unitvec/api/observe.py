"""What is known of each request afterwards: a line in the log, its id in the answer, its share of the metrics."""

from __future__ import annotations

import logging
import random
import re
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("unitvec.access")

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass
class Durations:
    """A histogram of seconds.

    Attributes:
        counts: observations in each bucket, the last one above all bounds.
        total: seconds, summed.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """One more observation."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass
class Traffic:
    """What has been answered since the start.

    Attributes:
        answers: requests by method, route and status.
        durations: seconds by route.
        in_flight: requests that are being answered.
    """

    answers: dict[tuple[str, str, int], int] = field(default_factory=lambda: defaultdict(int))
    durations: dict[str, Durations] = field(default_factory=lambda: defaultdict(Durations))
    in_flight: int = 0

    def answered(self, method: str, route: str, status: int, seconds: float, known: Mapping[str, object]) -> None:
        """Count an answer, and write its line with what is ``known`` of the request."""
        self.answers[method, route, status] += 1
        self.durations[route].add(seconds)
        if log.isEnabledFor(logging.INFO):
            log.info("request", extra={"fields": {**known, "status": status, "ms": round(seconds * 1000, 2)}})


def new_identity() -> str:
    """Tells a request from others; it is no secret."""
    return f"{random.getrandbits(64):016x}"


class ObserveMiddleware:
    """One line a request. Handlers add to ``scope["log"]`` what is worth knowing; never a text or a key.

    A caller's ``X-Request-Id`` is taken over where it is harmless, so that his logs and these can be joined.

    Args:
        app: what answers.
        traffic: counts.
        route_of: the route of a request, one of few names whatever path is asked for.
    """

    def __init__(self, app: ASGIApp, traffic: Traffic, route_of: Callable[[Scope], str]) -> None:
        self._app = app
        self._traffic = traffic
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        identity = sent if _REQUEST_ID.fullmatch(sent) else new_identity()
        fields: dict[str, object] = {"request": identity, "method": scope["method"], "path": scope["path"]}
        scope["log"] = fields
        status = 499  # nobody was there to hear the answer
        began = time.perf_counter()

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", identity.encode())]
            await send(message)

        self._traffic.in_flight += 1
        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            status = 500
            raise
        finally:
            seconds = time.perf_counter() - began
            route = self._route_of(scope)
            self._traffic.in_flight -= 1
            self._traffic.answered(scope["method"], route, status, seconds, fields)
