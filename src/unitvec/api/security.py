"""Which browser pages and which host names are let in, as Ollama decides it.

A page on another site may not use a server on this machine (Origin), and a name that an attacker
points at 127.0.0.1 may not reach it either (Host: DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104  names in a header, nothing is bound to them
_LOCAL_ORIGINS = [
    f"{scheme}://{host}{port}" for scheme in ("http", "https") for host in _LOCAL_HOSTS for port in ("", ":*")
]
_APP_ORIGINS = ["app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"]

_ALLOW_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_STAINLESS = (
    "Arch Async Custom-Poll-Interval Helper-Method Lang Os Package-Version Poll-Helper Retry-Count Runtime "
    "Runtime-Version Timeout"
)
_ALLOW_HEADERS = ",".join(
    ["Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "Openai-Beta"]
    + [f"X-Stainless-{name}" for name in _STAINLESS.split()]
)


def origin_pattern(extra: Iterable[str]) -> re.Pattern[str]:
    """Matches the local origins and ``extra``; in them ``*`` stands for anything, ``:*`` for a port."""
    origins = [*filter(None, map(str.strip, extra)), *_LOCAL_ORIGINS, *_APP_ORIGINS]
    return re.compile("|".join(re.escape(o).replace(r":\*", r":\d+").replace(r"\*", ".*") for o in origins))


def _split(url: str) -> tuple[str, str | None]:
    """Network location and host name of a URL, both empty where it is none."""
    try:
        parts = urlsplit(url)
        return parts.netloc, parts.hostname
    except ValueError:  # an unclosed bracket, say
        return "", None


@lru_cache(256)
def host_allowed(host: str) -> bool:
    """Whether a Host header is an IP address or a name of this machine."""
    name = (_split(f"//{host}")[1] or "").rstrip(".")
    if name in ("", "localhost", socket.gethostname().lower()) or name.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class DoorMiddleware:
    """Answers 403 where Origin or Host is not let in, and browsers' preflight requests.

    Args:
        app: what stands behind the door.
        origins: origins that are let in besides the local ones.
        check_host: whether Host is looked at; a server that is open to the network cannot know its names.
        methods: the methods that a request's path knows, for Allow.
    """

    def __init__(
        self, app: ASGIApp, *, origins: Iterable[str], check_host: bool, methods: Callable[[Scope], str]
    ) -> None:
        self._app = app
        self._origins = origin_pattern(origins)
        self._check_host = check_host
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        foreign = origin is not None and not self._origin_allowed(origin, headers)
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        answer: ASGIApp = self._app
        host = headers.get("host", "")
        malformed = bool(host) and not _split(f"//{host}")[0]
        if foreign or malformed or (self._check_host and not host_allowed(host)):
            answer = PlainTextResponse("", 403)
        elif preflight and origin is not None:
            answer = Response(
                status_code=204,
                headers={
                    "Access-Control-Allow-Methods": _ALLOW_METHODS,
                    "Access-Control-Allow-Headers": _ALLOW_HEADERS,
                    "Access-Control-Max-Age": "43200",
                },
            )

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                marked = MutableHeaders(scope=message)
                if preflight:
                    marked["Allow"] = self._methods(scope)
                if origin is not None and not foreign:
                    marked["Access-Control-Allow-Origin"] = origin
                    marked.add_vary_header("Origin")
            await send(message)

        await answer(scope, receive, send if origin is None and not preflight else send_marked)

    def _origin_allowed(self, origin: str, headers: Headers) -> bool:
        place = _split(origin)[0]
        own_page = bool(place) and place == headers.get("host")
        return own_page or self._origins.fullmatch(origin) is not None
