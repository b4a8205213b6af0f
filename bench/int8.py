"""Speed and memory of the int8 mode beside float32, in turns, so that whatever else the machine does meets both.

    python bench/int8.py [all-minilm] [embeddinggemma] [qwen3-embedding] [--rounds N] [--seconds S]

all-minilm over HTTP, in requests of 64 short texts and of 64 passages, all new; the others as ``bench/models.py``
makes them, with random weights, in micro-batches. The median of the rounds, and the rounds' least and greatest ratio.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import httpx2
import numpy as np

from models import FOLDER, MODELS
from unitvec.bench.texts import Texts
from unitvec.checkpoint import gguf
from unitvec.engine.onnx import Engine
from unitvec.models.plans import PLANS

PORTS = {"float32": 11601, "int8": 11602}
Work = Callable[[], int]  # gives the tokens that it ran


def in_turns(forms: dict[str, Work], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Tokens a second of each in each round."""
    rates: dict[str, list[float]] = {name: [] for name in forms}
    for work in forms.values():  # and so that a server may build what it builds when it is first wanted
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            work()
    for _ in range(rounds):
        for name, work in forms.items():
            began, tokens = time.perf_counter(), 0
            while (taken := time.perf_counter() - began) < seconds or not tokens:
                tokens += work()
            rates[name].append(tokens / taken)
    return rates


def told(what: str, rates: dict[str, list[float]]) -> None:
    ratios = np.divide(rates["int8"], rates["float32"])
    exact, small = (np.median(rates[name]) for name in ("float32", "int8"))
    print(f"{what:32} float32 {exact:8,.0f} tokens/s  int8 {small:8,.0f}  {np.median(ratios):.2f} x "
          f"({ratios.min():.2f} to {ratios.max():.2f})", flush=True)  # fmt: skip


def over_http(rounds: int, seconds: float) -> None:
    servers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "unitvec",
                "serve",
                "all-minilm",
                "--dtype",
                dtype,
                "--log-level",
                "warning",
                "--host",
                f"127.0.0.1:{port}",
            ]
        )
        for dtype, port in PORTS.items()
    ]
    try:
        with httpx2.Client(timeout=120, trust_env=False) as client:
            prose = Texts(int(time.time()))

            def ask(port: int, kind: str) -> int:
                body = {"model": "all-minilm", "input": prose.take(kind, 64)}
                return int(client.post(f"http://127.0.0.1:{port}/api/embed", json=body).json()["prompt_eval_count"])

            for port in PORTS.values():
                for _ in range(200):
                    try:
                        client.get(f"http://127.0.0.1:{port}/api/version")
                        break
                    except httpx2.TransportError:
                        time.sleep(0.1)
            for kind in ("short", "passages"):
                forms = {dtype: (lambda port=port, kind=kind: ask(port, kind)) for dtype, port in PORTS.items()}
                told(f"all-minilm, HTTP, 64 {kind}", in_turns(forms, rounds, seconds))
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


def full_shape(name: str, rounds: int, seconds: float) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.gguf"
    if not path.exists():
        MODELS[name](path)
    checkpoint = gguf.read(path)
    plan = PLANS[type(checkpoint.spec.transformer)]
    exact = Engine(checkpoint.spec, checkpoint.tensors, threads=2, cache_dir=FOLDER)
    began = time.perf_counter()
    small = Engine(replace(checkpoint.spec, plan=plan), gguf.read(path).tensors, threads=2, cache_dir=FOLDER)
    ready = time.perf_counter() - began
    rng = np.random.default_rng(0)
    for kind, length, count in (("short", 28, 18), ("passages", 92, 6)):
        batch = list(rng.integers(1, 100_000, (count, length)))

        def run(engine: Engine, batch: list[np.ndarray] = batch) -> int:
            engine.run(batch)
            return sum(map(len, batch))

        told(
            f"{name}, {count} {kind}",
            in_turns({"float32": lambda: run(exact), "int8": lambda: run(small)}, rounds, seconds),
        )
    share = small.resident_bytes / exact.resident_bytes
    print(f"{name}: weights {exact.resident_bytes >> 20} MiB, int8 {small.resident_bytes >> 20} MiB ({share:.0%}), "
          f"int8 ready in {ready:.1f} s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["all-minilm", *MODELS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    for name in options.models:
        if name == "all-minilm":
            over_http(options.rounds, options.seconds)
        else:
            full_shape(name, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
