"""What the door of a cluster does by itself: `unitvec serve --ray` with replicas that do nothing.

    python bench/door.py [--replicas 2] [--seconds 5] [--alone]

Needs `pip install '.[ray]'`. The door, its router and Ray's transport are the real ones; the replicas
answer with ready vectors. Prints requests a second from 64 clients with one short text each, and from 8 with 64
texts each, and the processor time of a request in the door and in the replica. On a machine whose cores the door,
the replicas and the clients share, the door's own limit is what one core gives: 1000 / its ms of CPU. All clients
come from one address, so that small requests travel together; with --alone they do not, as if each came from its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from servers import Recipe, started
from unitvec.bench import load
from unitvec.bench.texts import Texts

CASES = (("64 clients x 1 short text", 64, 1), ("8 clients x 64 short texts", 8, 64))


def serve(port: int, replicas: int, alone: bool) -> None:
    """`unitvec serve --ray`, with replicas that do nothing."""
    from unitvec import cli
    from unitvec.cluster import calls, deploy
    from unitvec.cluster.calls import Call
    from unitvec.cluster.replica import Replica
    from unitvec.serving.backend import Embeddings

    class Idle(Replica):
        async def embed(self, call: Call) -> list[Embeddings]:
            counts = (len(texts) for texts, _ in call.requests)
            return [Embeddings(np.full((count, 384), 0.051, np.float32), 8 * count, 0) for count in counts]

    if alone:
        calls._SMALL = 0
    Idle.__name__ = "Replica"
    deploy.Replica = Idle  # type: ignore[misc]
    many = str(replicas)
    sys.argv = ["unitvec", "serve", "all-minilm", "--host", f"127.0.0.1:{port}", "--log-level", "warning"]
    sys.argv += ["--ray=local", "--threads=1", "--workers=1", "--min-replicas", many, "--max-replicas", many]
    cli.main()


def cpu_seconds(chosen: Callable[[int, bytes], bool]) -> float:
    """User and system time of the processes of which the id and the command line are chosen."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if chosen(int(folder.name), (folder / "cmdline").read_bytes()):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:  # it has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5, help="time for each line, about")
    parser.add_argument("--alone", action="store_true", help="each request in a call of its own")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.replicas, asked.alone)
        return
    command = [sys.executable, __file__, "--serve", "{port}", "--replicas", str(asked.replicas)]
    command += ["--alone"] * asked.alone
    with started(Recipe("door", "ollama", "all-minilm", command), Texts(1)) as (bench, pid):
        for name, clients, texts in CASES:
            first = load.run(bench.closed_of("short", bench.requests("short", texts, 10 * clients), clients))
            count = max(clients, round(first.texts_per_second * asked.seconds / texts))
            requests = bench.requests("short", texts, count)

            def spent() -> tuple[float, float]:
                replicas = cpu_seconds(lambda _, line: line.startswith(b"ray::ServeReplica"))
                return cpu_seconds(lambda process, _: process == pid), replicas

            before, began = spent(), time.perf_counter()
            measured = load.run(bench.closed_of("short", requests, clients))
            took = time.perf_counter() - began
            door, replica = ((now - then) / len(requests) * 1000 for now, then in zip(spent(), before, strict=True))
            assert not measured.errors, measured.failures
            print(
                f"{name}: {len(requests) / took:,.0f} requests/s, p50 {measured.p50 * 1000:.1f} ms, CPU of a request "
                f"{door:.2f} ms in the door, {replica:.2f} ms in the replica",
                flush=True,
            )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
