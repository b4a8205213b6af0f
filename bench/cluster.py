"""A cluster of single-thread replicas on this machine against the plain server: what Ray adds to a request.

    python bench/cluster.py [--rounds 5] [--seconds 3] [--json FILE]

Needs `pip install '.[ray]'`. All servers run at once and are measured in turns on texts that are new to each;
every figure is the median of the rounds. The plain server is measured as it starts by itself (one session
of as many threads as there are cores), and with single-thread workers, as the replicas are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from statistics import median

from servers import Figures, Others, Recipe, quietest, started
from unitvec import config
from unitvec.bench import load, machine
from unitvec.bench.measure import Bench
from unitvec.bench.texts import Texts

CORES = config.available_cores()
SERVERS = {
    "plain": ["--threads", str(CORES)],
    "plain, single-thread workers": ["--threads", "1", "--workers", str(CORES)],
    "Ray": ["--ray=local", "--threads", "1", "--min-replicas", str(CORES), "--max-replicas", str(CORES)],
    "Ray, behind Serve's proxy": [],
}


def measure(bench: Bench, seconds: float, pace: float) -> Figures:
    """Texts a second of 16 clients, and p50 of one by one in ms."""
    many = load.run(bench.closed_of("short", bench.requests("short", 1, max(64, round(pace * seconds))), 16))
    single = load.run(bench.closed_of("short", bench.requests("short", 1, max(30, round(pace * seconds / 4))), 1))
    assert not many.errors + single.errors, (many.failures, single.failures)
    return {
        "16 clients, texts/s": many.texts_per_second,
        "16 clients, p50 ms": many.p50 * 1000,
        "one by one, p50 ms": single.p50 * 1000,
    }


def command(name: str) -> list[str]:
    serve = [sys.executable, "-m", "unitvec", "serve", "all-minilm", "--log-level", "warning"]
    if SERVERS[name]:
        return [*serve, "--host", "127.0.0.1:{port}", *SERVERS[name]]
    return [sys.executable, __file__, "--proxied", "{port}"]


def proxied(port: int) -> None:
    """`serve run unitvec.cluster:app`, on a port and a cluster of its own."""
    import os
    import signal

    os.environ |= {"UNITVEC_MODELS": "all-minilm", "UNITVEC_THREADS": "1", "UNITVEC_LOG_LEVEL": "warning"}
    os.environ |= {"UNITVEC_MIN_REPLICAS": str(CORES), "UNITVEC_MAX_REPLICAS": str(CORES)}
    from unitvec.cluster import app  # isort: skip
    import ray
    from ray import serve

    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="time for each measurement, about")
    parser.add_argument("--quiet", type=float, default=0.1, help="share of the machine that others may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--proxied", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.proxied:
        proxied(asked.proxied)
        return
    texts = Texts(asked.seed)
    rounds: list[dict[str, Figures]] = []
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(started(Recipe(name, "ollama", "all-minilm", command(name)), texts))
            for name in SERVERS
        }
        pace = {name: measure(bench, 1, 150)["16 clients, texts/s"] for name, (bench, _) in running.items()}
        others = Others([group for _, group in running.values()])
        for number in range(1, asked.rounds + 1):
            figures = {}
            for name, (bench, _) in running.items():
                busy, found = quietest(lambda b=bench, n=name: measure(b, asked.seconds, pace[n]), others, asked.quiet)
                figures[name] = found | {"others, share of the machine": busy}
            rounds.append(figures)
            ratios = (
                f"{n} {f['16 clients, texts/s'] / figures['plain']['16 clients, texts/s']:.2f}"
                for n, f in figures.items()
            )
            print(f"round {number}, throughput as shares of the plain server's: {', '.join(ratios)}", flush=True)
    medians = {n: {k: median(r[n][k] for r in rounds) for k in rounds[0][n]} for n in SERVERS}
    for name, found in medians.items():
        share = median(r[name]["16 clients, texts/s"] / r["plain"]["16 clients, texts/s"] for r in rounds)
        more = median(r[name]["one by one, p50 ms"] - r["plain"]["one by one, p50 ms"] for r in rounds)
        print(f"\n{name}: share of the plain server's throughput {share:.2f}, p50 one by one {more:+.1f} ms")
        for key, value in found.items():
            print(f"  {key:<30} {value:>9.4g}")
    if asked.json:
        report = {"machine": machine.describe(), "seed": asked.seed, "medians": medians, "rounds": rounds}
        asked.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
