"""What serving a request costs in CPU when tokenizing and running cost nothing.

The server is the real one in a process of its own; only the model's tokenizer and engine are replaced, by
ready token ids and ready vectors. All its CPU time is counted: reading and parsing HTTP and JSON, the door,
routing, queueing, the hand-over to the engine's thread and back, normalizing, writing JSON.

    python bench/http_layer.py
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

TEXT = "Why is the sky blue?"
CASES = (("one short text", 1, 3_000, 0.8), ("64 vectors of 384", 64, 600, 3.0))


def serve(port: str) -> None:
    """A server whose model does nothing."""
    from unitvec import cli
    from unitvec.serving.model import LoadedModel

    rows = np.random.default_rng(0).standard_normal((4096, 384)).astype(np.float32)
    serial = itertools.count()

    def encode(_: LoadedModel, texts: list[str], *__: object, **___: object) -> list[tuple[int, ...]]:
        return [(101, next(serial) % 30_000, 102) for _ in texts]  # equal ones would be run once

    LoadedModel.encode = encode  # type: ignore[method-assign, assignment]
    LoadedModel.run = lambda _, ids, __=False: rows[: len(ids)]  # type: ignore[method-assign, assignment]
    sys.argv = ["unitvec", "serve", "all-minilm", "--host", f"127.0.0.1:{port}", "--log-level", "warning"]
    cli.main()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, pid: int, texts: int, count: int) -> tuple[float, float]:
    """Milliseconds of CPU, and of time, a request; one client, one connection."""
    body = json.dumps({"model": "all-minilm", "input": [TEXT] * texts if texts > 1 else TEXT})
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(times: int) -> None:
        for _ in range(times):
            connection.request("POST", "/api/embed", body)
            reply = connection.getresponse()
            assert reply.status == 200
            reply.read()

    ask(count // 10)
    before, began = cpu_seconds(pid), time.perf_counter()
    ask(count)
    took = time.perf_counter() - began
    return (cpu_seconds(pid) - before) / count * 1000, took / count * 1000


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"UNITVEC_CACHE_MB": "0"}
    child = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(port)], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        for name, texts, count, target in CASES:
            cpu, wall = measure(port, child.pid, texts, count)
            print(f"{name}: {cpu:.2f} ms of CPU a request (target {target}), {wall:.2f} ms of time")
    finally:
        child.terminate()
        child.wait()


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1:2] == ["--serve"] else main()
