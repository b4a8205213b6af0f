"""unitvec's server against onnxruntime alone, in turns on the same texts: what serving costs.

    python bench/against_onnxruntime.py [--rounds 5] [--seconds 4] [--json FILE]

Starts a server of its own. Each round measures onnxruntime and then the server on texts that neither
has seen, and every figure is the median of the rounds' ratios: what else the machine does hits both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from servers import Others, Recipe, started
from unitvec.bench import load, machine
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
    "largest difference of a vector's number from onnxruntime's": ("at most 1e-6", lambda x: x <= 1e-6),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="all-minilm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="time for each measurement, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("serve", nargs="*", help="more arguments for `unitvec serve`, behind --")
    asked = parser.parse_args()
    texts = Texts(asked.seed)
    serve = [sys.executable, "-m", "unitvec", "serve", asked.model, "--host", "127.0.0.1:{port}", *asked.serve]
    figures: dict[str, list[float]] = defaultdict(list)
    raw: dict[str, list[float]] = defaultdict(list)
    with started(Recipe("unitvec", "ollama", asked.model, serve), texts) as (bench, group):
        yardstick = Yardstick(asked.model)
        others = Others([group])
        for number in range(asked.rounds + 1):
            # The first round is short and thrown away: it finds batch sizes and speeds.
            seconds = asked.seconds if number else asked.seconds / 4
            new, raw_new = one_round(bench, yardstick, texts, seconds)
            if number:
                raw_new["others"] = others.share()
                for name, value in new.items():
                    figures[name].append(value)
                for name, value in raw_new.items():
                    raw[name].append(value)
                shown = ", ".join(f"{value:.3g}" for value in new.values())
                print(f"round {number}: {shown}; others took {raw_new['others']:.0%} of the machine", flush=True)
            others.share()
    print()
    for name, values in figures.items():
        goal, reached = GOALS[name]
        value = median(values)
        print(f"{name:<60} {value:>9.3g}   {goal:<14} {'reached' if reached(value) else 'MISSED'}")
    print()
    for name, values in raw.items():
        print(f"{name:<60} {median(values):>9,.4g}")
    if asked.json:
        report = {"machine": machine.describe(), "seed": asked.seed, "rounds": figures, "raw": raw}
        asked.json.write_text(json.dumps(report, indent=2) + "\n")


def one_round(
    bench: Bench, yardstick: Yardstick, texts: Texts, seconds: float
) -> tuple[dict[str, float], dict[str, float]]:
    """All figures once."""
    raw: dict[str, float] = {}

    def share(kind: str, clients: int, batch: int) -> tuple[float, Measurement]:
        count = max(clients, round(PACE[kind] * seconds / batch))
        requests = bench.requests(kind, batch, count)
        ids = yardstick.encode([text for request in requests for text in request.texts])
        alone = yardstick.tokens_per_second(kind, ids)
        served = load.run(bench.closed_of(kind, requests, clients))
        assert served.tokens == sum(map(len, ids)), "the server counts other tokens"
        assert not served.errors, served.failures
        at = f"{clients} x {batch} {kind}, tokens/s"
        raw[f"{at}: onnxruntime"], raw[f"{at}: server"] = alone, served.tokens_per_second
        PACE[kind] = served.texts_per_second
        return served.tokens_per_second / alone, served

    sixteen, at_16 = share("short", 16, 1)
    short, _ = share("short", 1, 64)
    passages, _ = share("passages", 1, 64)

    singles = bench.requests("short", 1, max(20, round(40 * seconds)))
    ids = yardstick.encode([request.texts[0] for request in singles])
    own = float(np.median(yardstick.seconds_one_by_one(ids)))
    one = load.run(bench.closed_of("short", singles, 1)).p50
    raw["one by one, p50 ms: onnxruntime"], raw["one by one, p50 ms: server"] = own * 1000, one * 1000

    many = load.run(bench.closed_of("short", bench.requests("short", 1, max(512, round(PACE["short"] * seconds))), 256))
    raw["256 x 1 short, p50 ms"], raw["256 x 1 short, p99 ms"] = many.p50 * 1000, many.p99 * 1000
    mix = load.run(bench.mix(3 * seconds))
    for name in ("query_alone", "query_under_bulk"):
        measured = getattr(mix, name)
        raw[f"{name}, p50 ms"], raw[f"{name}, p99 ms"] = measured.p50 * 1000, measured.p99 * 1000
    raw["bulk_alone, texts/s"] = mix.bulk_alone.texts_per_second
    raw["bulk_with_query, texts/s"] = mix.bulk_with_query.texts_per_second
    figures = [
        sixteen,
        short,
        passages,
        (one - 1.15 * own) * 1000,
        mix.query_under_bulk.p99 / mix.query_alone.p50,
        mix.bulk_with_query.texts_per_second / mix.bulk_alone.texts_per_second,
        many.errors,
        many.tokens_per_second / at_16.tokens_per_second,
        many.p99 / many.p50,
        difference(bench, yardstick, texts),
    ]
    return dict(zip(GOALS, figures, strict=True)), raw


PACE = {"short": 150.0, "passages": 40.0}  # texts a second, as last seen


def difference(bench: Bench, yardstick: Yardstick, texts: Texts) -> float:
    """How far the server's numbers are from those computed here, for a batch of mixed lengths."""
    some = texts.take("mixed", 100)
    return float(np.abs(load.run(bench.embed(some)) - yardstick.vectors(yardstick.encode(some))).max())


if __name__ == "__main__":
    main()
