"""A cluster of single-thread replicas on this machine against the plain server: what Ray adds to a request.

    python bench/cluster.py [--rounds 5] [--seconds 2] [--json FILE]

Needs `pip install '.[ray]'`. One server at a time, for Ray's own processes are never quite idle; the plain
server comes first and last, and what lies between its two turns tells how steady the machine was: shares are of
their mean. CPU is that of the server's processes alone, whatever else the machine does. Every figure is the median
of the rounds, on texts that are new to each server. The plain server is measured as it starts by itself, with one
run at a time on all cores, and with one on one thread, which is what a lone text has in a replica.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

from servers import Figures, Recipe, started, write_report
from unitvec import config
from unitvec.bench import load
from unitvec.bench.measure import Bench
from unitvec.bench.texts import Texts

CORES = str(config.available_cores())
SERVERS: dict[str, list[str] | None] = {
    "plain": [],
    "plain, one run on all cores": ["--threads", CORES, "--workers", "1"],
    "plain, one thread": ["--threads", "1", "--workers", "1"],
    "Ray": ["--ray=local", "--threads", "1", "--workers", "1", "--min-replicas", CORES, "--max-replicas", CORES],
    "Ray, behind Serve's proxy": None,
    "plain, once more": [],
}


def measure(bench: Bench, pid: int, seconds: float, pace: float) -> Figures:
    """Throughput of 16 clients, and the time of one by one; what the server's processes spent on a text."""
    requests = bench.requests("short", 1, max(64, round(pace * seconds)))
    before = cpu_seconds(pid)
    many = load.run(bench.closed_of("short", requests, 16))
    spent = cpu_seconds(pid) - before
    single = load.run(bench.closed_of("short", bench.requests("short", 1, max(30, round(pace * seconds / 4))), 1))
    assert not many.errors + single.errors, (many.failures, single.failures)
    return {
        "16 clients, texts/s": many.texts_per_second,
        "16 clients, p50 ms": many.p50 * 1000,
        "16 clients, ms of CPU a text": spent / len(requests) * 1000,
        "one by one, p50 ms": single.p50 * 1000,
        "one by one, p99 ms": single.p99 * 1000,
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all that descend from it, Ray's own among them."""
    spent, children = {}, defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            spent[int(folder.name)] = int(fields[11]) + int(fields[12])
            children[int(fields[1])].append(int(folder.name))
    family = [pid]
    for member in family:
        family += children[member]
    return sum(spent.get(member, 0) for member in family) / os.sysconf("SC_CLK_TCK")


def command(name: str) -> list[str]:
    serve = [sys.executable, "-m", "unitvec", "serve", "all-minilm", "--log-level", "warning"]
    if (options := SERVERS[name]) is not None:
        return [*serve, "--host", "127.0.0.1:{port}", *options]
    return [sys.executable, __file__, "--proxied", "{port}"]


def proxied(port: int) -> None:
    """`serve run unitvec.cluster:app`, on a port and a cluster of its own."""
    os.environ |= {
        "UNITVEC_MODELS": "all-minilm",
        "UNITVEC_THREADS": "1",
        "UNITVEC_WORKERS": "1",
        "UNITVEC_LOG_LEVEL": "warning",
    }
    os.environ |= {"UNITVEC_MIN_REPLICAS": CORES, "UNITVEC_MAX_REPLICAS": CORES}
    from unitvec.cluster import app, connect  # isort: skip
    import ray
    from ray import serve

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    connect.connect("local")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app)
    try:
        signal.pause()
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="time for each measurement, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--proxied", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.proxied:
        proxied(asked.proxied)
        return
    texts = Texts(asked.seed)
    rounds: dict[str, list[Figures]] = {}
    for name in SERVERS:
        with started(Recipe("cluster", "ollama", "all-minilm", command(name)), texts) as (bench, pid):
            pace = measure(bench, pid, 1, 150)["16 clients, texts/s"]
            rounds[name] = [measure(bench, pid, asked.seconds, pace) for _ in range(asked.rounds)]
        print(f"{name}: {median(one['16 clients, texts/s'] for one in rounds[name]):.0f} texts/s", flush=True)
    medians = {n: {key: median(one[key] for one in found) for key in found[0]} for n, found in rounds.items()}
    plain = {key: (value + medians["plain, once more"][key]) / 2 for key, value in medians["plain"].items()}
    for name, found in medians.items():
        share = found["16 clients, texts/s"] / plain["16 clients, texts/s"]
        more = found["one by one, p50 ms"] - plain["one by one, p50 ms"]
        print(f"\n{name}: {share:.2f} of the plain server's throughput, p50 one by one {more:+.1f} ms")
        for key, value in found.items():
            print(f"  {key:<36} {value:>9.4g}")
    if asked.json:
        write_report(asked.json, seed=asked.seed, medians=medians, rounds=rounds)


if __name__ == "__main__":
    main()
