"""unitvec's server against onnxruntime alone, in turns on the same texts: what serving costs.

    python bench/against_onnxruntime.py [--rounds 5] [--seconds 3] [--json FILE]

Starts a server of its own. Each round measures onnxruntime and then the server on texts that neither
has seen, and every figure is the median of the rounds' ratios: what else the machine does hits both.
A measurement waits for a moment in which other processes take no more of the machine than --quiet; if
they come back meanwhile it is made again, up to three times, and the quietest counts. How busy the
machine was is printed with the figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from servers import Figures, Others, Recipe, quietest, started, write_report
from unitvec.bench import load
from unitvec.bench.measure import Bench, Measurement
from unitvec.bench.texts import Texts
from yardstick import Yardstick

# what is measured -> (what is to be reached, whether a figure reaches it)
GOALS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "16 clients x 1 short: share of onnxruntime's tokens/s": ("at least 0.85", lambda x: x >= 0.85),
    "batches of 64 short: share": ("at least 0.92", lambda x: x >= 0.92),
    "batches of 64 passages: share": ("at least 0.92", lambda x: x >= 0.92),
    "one by one: ms that p50 is over 1.15 x onnxruntime's": ("at most 0.8", lambda x: x <= 0.8),
    "lone query under bulk: p99 / idle p50": ("at most 5", lambda x: x <= 5),
    "bulk with the query: share of bulk alone": ("at least 0.90", lambda x: x >= 0.9),
    "256 clients: errors": ("0", lambda x: x == 0),
    "256 clients: share of 16 clients' tokens/s": ("at least 0.95", lambda x: x >= 0.95),
    "256 clients: p99 / p50": ("under 2", lambda x: x < 2),
    "largest difference of a vector's number": ("at most 1e-6", lambda x: x <= 1e-6),
}


@dataclass
class Comparison:
    """A server and onnxruntime, measured in turns on texts that are new to both."""

    bench: Bench
    yardstick: Yardstick
    texts: Texts
    seconds: float
    pace: dict[str, float] = field(default_factory=lambda: {"short": 150.0, "passages": 40.0})  # texts/s, last seen

    def one_by_one(self) -> Figures:
        singles = self.bench.requests("short", 1, max(20, round(self.seconds * self.pace["short"] / 4)))
        ids = self.yardstick.encode([request.texts[0] for request in singles])
        own = float(np.median(self.yardstick.seconds_one_by_one(ids))) * 1000
        served = load.run(self.bench.closed_of("short", singles, 1)).p50 * 1000
        return {
            "one by one: ms that p50 is over 1.15 x onnxruntime's": served - 1.15 * own,
            "one by one, p50 ms: onnxruntime": own,
            "one by one, p50 ms: server": served,
        }

    def many_clients(self) -> Figures:
        share, sixteen, figures = self._share("short", 16, 1)
        count = max(768, round(self.pace["short"] * self.seconds))
        many = load.run(self.bench.closed_of("short", self.bench.requests("short", 1, count), 256))
        return figures | {
            "16 clients x 1 short: share of onnxruntime's tokens/s": share,
            "256 clients: errors": many.errors,
            "256 clients: share of 16 clients' tokens/s": _tokens(many) / _tokens(sixteen),
            "256 clients: p99 / p50": many.p99 / many.p50,
            "256 x 1 short, p50 ms": many.p50 * 1000,
            "256 x 1 short, p99 ms": many.p99 * 1000,
        }

    def batches_of_short(self) -> Figures:
        share, _, figures = self._share("short", 1, 64)
        return figures | {"batches of 64 short: share": share}

    def batches_of_passages(self) -> Figures:
        share, _, figures = self._share("passages", 1, 64)
        return figures | {"batches of 64 passages: share": share}

    def mix(self) -> Figures:
        mix = load.run(self.bench.mix(3 * self.seconds))
        alone, under = mix.query_alone, mix.query_under_bulk
        bulk, together = mix.bulk_alone.texts_per_second, mix.bulk_with_query.texts_per_second
        return {
            "lone query under bulk: p99 / idle p50": under.p99 / alone.p50,
            "bulk with the query: share of bulk alone": together / bulk,
            "lone query idle, p50 ms": alone.p50 * 1000,
            "lone query idle, p99 ms": alone.p99 * 1000,
            "lone query under bulk, p50 ms": under.p50 * 1000,
            "lone query under bulk, p99 ms": under.p99 * 1000,
            "bulk alone, texts/s": bulk,
            "bulk with the query, texts/s": together,
        }

    def vectors(self) -> Figures:
        some = self.texts.take("mixed", 100)
        served = load.run(self.bench.embed(some))
        own = self.yardstick.vectors(self.yardstick.encode(some))
        return {"largest difference of a vector's number": float(np.abs(served - own).max())}

    def _share(self, kind: str, clients: int, batch: int) -> tuple[float, Measurement, Figures]:
        """The server's share of onnxruntime's throughput, on the same texts."""
        requests = self.bench.requests(kind, batch, max(clients, round(self.pace[kind] * self.seconds / batch)))
        ids = self.yardstick.encode([text for request in requests for text in request.texts])
        own = self.yardstick.tokens_per_second(ids)
        served = load.run(self.bench.closed_of(kind, requests, clients))
        assert not served.errors, served.failures
        assert served.tokens == sum(map(len, ids)), "the server counts other tokens"
        self.pace[kind] = served.texts_per_second
        at = f"{clients} x {batch} {kind}, tokens/s"
        return _tokens(served) / own, served, {f"{at}: onnxruntime": own, f"{at}: server": _tokens(served)}


def _tokens(measured: Measurement) -> float:
    assert measured.tokens_per_second is not None
    return measured.tokens_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="all-minilm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="time for each measurement, about")
    parser.add_argument("--quiet", type=float, default=0.1, help="share of the machine that others may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("serve", nargs="*", help="more arguments for `unitvec serve`, behind --")
    asked = parser.parse_args()
    texts = Texts(asked.seed)
    command = [sys.executable, "-m", "unitvec", "serve", asked.model, "--host", "127.0.0.1:{port}", *asked.serve]
    rounds: list[Figures] = []
    with started(Recipe("unitvec", "ollama", asked.model, command), texts) as (bench, group):
        comparison = Comparison(bench, Yardstick(asked.model), texts, asked.seconds / 4)
        cases = [comparison.one_by_one, comparison.many_clients, comparison.batches_of_short,
                 comparison.batches_of_passages, comparison.mix, comparison.vectors]  # fmt: skip
        for case in cases[:-2]:  # finds speeds, fills buffers
            case()
        comparison.seconds = asked.seconds
        others = Others([group])
        for number in range(1, asked.rounds + 1):
            figures: Figures = {}
            for case in cases:
                busy, found = quietest(case, others, asked.quiet)
                figures |= found | {f"others, share of the machine: {case.__name__}": busy}
            rounds.append(figures)
            print(f"round {number}: " + ", ".join(f"{figures[goal]:.3g}" for goal in GOALS), flush=True)
    medians = {name: median(figures[name] for figures in rounds) for name in rounds[0]}
    print()
    for name, (goal, reached) in GOALS.items():
        print(f"{name:<55} {medians[name]:>9.3g}   {goal:<14} {'reached' if reached(medians[name]) else 'missed'}")
    print()
    for name, value in medians.items():
        if name not in GOALS:
            print(f"{name:<55} {value:>9,.4g}")
    if asked.json:
        write_report(asked.json, seed=asked.seed, medians=medians, rounds=rounds)


if __name__ == "__main__":
    main()
