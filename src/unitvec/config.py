"""Settings that come from the environment and from the machine."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from unitvec.errors import UnitvecError

if TYPE_CHECKING:
    from unitvec.store.stores import Stores

DEFAULT_PORT = 11434
DEFAULT_CONTEXT = 4096  # tokens, where neither the request nor the model says
UNBOUNDED = sys.maxsize


def data_dir() -> Path:
    """Where unitvec keeps models: ``UNITVEC_HOME``, else the user's data folder."""
    return Path(os.environ.get("UNITVEC_HOME") or platformdirs.user_data_path("unitvec", appauthor=False))


def cache_dir() -> Path:
    """Where built graphs are kept; safe to delete."""
    home = os.environ.get("UNITVEC_HOME")
    return Path(home) / "cache" if home else platformdirs.user_cache_path("unitvec", appauthor=False)


def ollama_dir() -> Path | None:
    """Ollama's store: ``OLLAMA_MODELS``, else ``~/.ollama/models`` where there is one."""
    if chosen := os.environ.get("OLLAMA_MODELS"):
        return Path(chosen)
    usual = Path.home() / ".ollama" / "models"
    return usual if usual.is_dir() else None


def stores() -> Stores:
    """The stores of this user."""
    from unitvec.store.stores import Stores

    return Stores(data_dir(), ollama_dir())


@dataclass(frozen=True)
class Address:
    """Where a server listens, or is to be found."""

    host: str
    port: int
    scheme: str = "http"

    @classmethod
    def parse(cls, text: str) -> Address:
        """An address as ``OLLAMA_HOST`` has it: ``HOST``, ``HOST:PORT``, ``:PORT``, ``[IPV6]:PORT``, a scheme in front.

        Raises:
            UnitvecError: it is none.
        """
        text = text.strip().strip("\"'")
        scheme, found, rest = text.partition("://")
        if not found:
            scheme, rest = "http", text
        if scheme not in ("http", "https"):
            raise UnitvecError(f"{text!r} is no address: {scheme!r} is neither http nor https")
        if rest.startswith("/"):
            raise UnitvecError(f"{text!r} is no address: it is a path; write HOST:PORT")
        usual = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if found else DEFAULT_PORT
        rest = rest.split("/", 1)[0]
        if rest.startswith("["):
            host, closed, port = rest[1:].partition("]")
            if not closed:
                raise UnitvecError(f"{text!r} is no address: its bracket is not closed")
            port = port.removeprefix(":")
        elif rest.count(":") > 1:
            host, port = rest, ""  # an IPv6 address by itself
        else:
            host, _, port = rest.partition(":")
        if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise UnitvecError(f"{text!r} is no address: {port!r} is no port number")
        return cls(host or "127.0.0.1", int(port) if port else usual, scheme)

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def reachable(self) -> str:
        """The URL that a client on this machine uses."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"{self.scheme}://{f'[{local}]' if ':' in local else local}:{self.port}"


def available_cores() -> int:
    """Cores that this process may use: its affinity, within the container's CPU limit (cgroup v2 or v1), at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, int(_cgroup_cores())))


def threads_each(cores: int) -> int:
    """Cores of each micro-batch when as many of them as fit, but no more than eight, run side by side."""
    return -(-cores // 8)


def available_memory() -> int:
    """Bytes that this process may use: the machine's memory, within the container's limit."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # no such thing on Windows
        total = sys.maxsize
    limits = [_read_number(path) for path in _cgroup_files("memory.max", "memory/memory.limit_in_bytes")]
    return min([total, *(int(limit) for limit in limits if limit)])


def _cgroup_cores() -> float:
    limits = []
    for path in _cgroup_files("cpu.max", None):
        quota, _, period = _read(path).partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    for path in _cgroup_files(None, "cpu/cpu.cfs_quota_us"):
        quota_us, period_us = _read_number(path), _read_number(path.with_name("cpu.cfs_period_us"))
        if quota_us and period_us and quota_us > 0:
            limits.append(quota_us / period_us)
    return min(limits, default=float(UNBOUNDED))


def _cgroup_files(v2: str | None, v1: str | None) -> list[Path]:
    """The files of this process's group and of all groups above it; a limit anywhere on the way holds."""
    root = Path("/sys/fs/cgroup")
    files = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, group = line.split(":", 2)
        places = [Path(group.strip("/")), *Path(group.strip("/")).parents]
        if not controllers and v2:
            files += [root / place / v2 for place in places]
        elif v1 and v1.split("/")[0] in controllers.split(","):
            controller, name = v1.split("/")
            files += [root / controller / place / name for place in places]
    return files


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _read_number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None
