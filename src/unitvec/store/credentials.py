"""Users and passwords of registries, where ``docker login`` and ``podman login`` save them.

``{"auths": {HOST: {"auth": BASE64 of USER:PASSWORD}}}`` in ``config.json`` of ``DOCKER_CONFIG`` or ``~/.docker``, or in
the file that ``REGISTRY_AUTH_FILE`` names. Those that a credential helper keeps are not read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import orjson

_ENTRY = re.compile(r"(?:https?://)?([^/]+)(?:/.*)?")  # a host, or an address of it
_BASE64 = re.compile(r"[A-Za-z0-9+/=]+")


def basic(host: str) -> str | None:
    """The Authorization header for a registry (RFC 7617), if somebody has logged in there."""
    for path in _files():
        try:
            entries = orjson.loads(path.read_bytes())["auths"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        for key, entry in entries:
            found, login = _ENTRY.fullmatch(key), entry.get("auth") if isinstance(entry, dict) else None
            if found and found[1].lower() == host.lower() and isinstance(login, str) and _BASE64.fullmatch(login):
                return f"Basic {login}"
    return None


def _files() -> list[Path]:
    chosen = os.environ.get("REGISTRY_AUTH_FILE")
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return [*([Path(chosen)] if chosen else []), docker / "config.json"]
