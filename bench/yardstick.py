"""onnxruntime alone: what this machine can do with a model when nobody has to be served.

It is what an expert does by hand: token ids ready before the clock starts, all texts sorted by length,
batches of the size that runs fastest, onnxruntime's own choice of threads. No server, no HTTP, no
tokenizer, nobody who waits. The graph is unitvec's own, which packs tokens and so pads nothing.

    python bench/yardstick.py [MODEL]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from unitvec import config
from unitvec.bench.texts import KINDS, Texts
from unitvec.engine.onnx import Engine
from unitvec.serving.batcher import Ids
from unitvec.serving.model import LoadedModel
from unitvec.store.name import Name

SIZES = (512, 1024)  # tokens a batch; fewer or more are slower here, and the better of these two counts each time
OWN_CHOICE = 0  # of threads


class Yardstick:
    """One model in this process, run the plain way."""

    def __init__(self, model: str) -> None:
        stored = config.stores().fetch(Name.parse(model))
        checkpoint = stored.open()
        loaded = LoadedModel(checkpoint, threads=1, cache_dir=config.cache_dir())
        self._loaded = loaded
        self._context = int(stored.parameters.get("num_ctx", loaded.checkpoint.context_length))
        self._engine = Engine(checkpoint.spec, checkpoint.tensors, threads=OWN_CHOICE, cache_dir=config.cache_dir())

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids."""
        return self._loaded.encode(texts, self._context, truncate=True)

    def tokens_per_second(self, ids: list[Ids]) -> float:
        """Throughput on all of ``ids``."""
        return max(self.throughput(ids, size) for size in SIZES)

    def seconds_one_by_one(self, ids: list[Ids]) -> list[float]:
        """How long each takes by itself."""
        seconds = []
        for one in ids:
            began = time.perf_counter()
            self._engine.run([one])
            seconds.append(time.perf_counter() - began)
        return seconds

    def vectors(self, ids: list[Ids]) -> np.ndarray:
        """What the answers must be: float32 [texts, width], each of unit length."""
        found = np.concatenate([self._engine.run([one]) for one in ids])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def throughput(self, ids: list[Ids], size: int) -> float:
        """Tokens a second in batches of ``size`` tokens, one at a time on all cores."""
        batches = _batches(ids, size)
        began = time.perf_counter()
        for batch in batches:
            self._engine.run(batch)
        return sum(map(len, ids)) / (time.perf_counter() - began)

    def throughput_side_by_side(self, ids: list[Ids], size: int) -> float:
        """The same, as many at a time as there are cores, each on one."""
        batches = _batches(ids, size)
        with ThreadPoolExecutor(config.available_cores()) as pool:
            began = time.perf_counter()
            for _ in pool.map(self._loaded.run, batches):
                pass
            return sum(map(len, ids)) / (time.perf_counter() - began)


def _batches(ids: list[Ids], size: int) -> list[list[Ids]]:
    batches: list[list[Ids]] = [[]]
    for one in sorted(ids, key=len):
        if sum(map(len, batches[-1])) + len(one) > max(size, len(one)):
            batches.append([])
        batches[-1].append(one)
    return batches


def main() -> None:
    yardstick = Yardstick(sys.argv[1] if len(sys.argv) > 1 else "all-minilm")
    texts = Texts(0)
    print(f"{'texts':<10} {'tokens':>7} {'tokens/s':>9} {'one, p50 ms':>12} {'tokenizing, tokens/s':>21}")
    for kind in KINDS:
        some = texts.take(kind, 300)
        began = time.perf_counter()
        ids = yardstick.encode(some)
        tokenizing = sum(map(len, ids)) / (time.perf_counter() - began)
        speed = np.median([yardstick.tokens_per_second(ids) for _ in range(5)])
        one = np.median(yardstick.seconds_one_by_one(ids[:100])) * 1000
        mean = sum(map(len, ids)) / len(ids)
        print(f"{kind:<10} {mean:>7.1f} {speed:>9,.0f} {one:>12.2f} {tokenizing:>21,.0f}")


if __name__ == "__main__":
    main()
