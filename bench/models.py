"""Speed of full-sized models with random weights, as a share of what the machine's matrix products allow.

    python bench/models.py [embeddinggemma] [qwen3-embedding] [--threads N] [--seconds S]

Writes each model once as a GGUF file under build/ (0.6 GB each), loads it as the server does, and prints for short
texts (28 tokens) and passages (92) texts a second, one at a time and in micro-batches of about 512 tokens. Work is
counted as two operations for each linear weight and token. The ceiling is numpy's float32 product on as many threads,
which takes turns with the model.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import Process
from pathlib import Path

THREADS = next((sys.argv[n + 1] for n, argument in enumerate(sys.argv[:-1]) if argument == "--threads"), None)
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS") if THREADS else ():
    os.environ[variable] = THREADS  # read when numpy is imported

import gguf as writer  # noqa: E402
import numpy as np  # noqa: E402

from unitvec.checkpoint import gguf  # noqa: E402
from unitvec.engine.onnx import Engine  # noqa: E402

FOLDER = Path(__file__).parents[1] / "build" / "bench"
LENGTHS = {"short": 28, "passage": 92}
IDLE = 0.1  # seconds after which threads without work sleep


def write(path: Path, architecture: str, shape: dict[str, int], kind: str, extra: dict[str, int | float]) -> None:
    """A model file of the given numbers; its vocabulary is made up."""
    rng = np.random.default_rng(0)
    form = writer.GGMLQuantizationType[kind]
    file = writer.GGUFWriter(path, architecture)
    for key, value in {**shape, **extra}.items():
        if key == "vocab":
            continue
        add = file.add_float32 if isinstance(value, float) else file.add_uint32
        add(f"{architecture}.{key}", value)
    file.add_tokenizer_model("bert")
    file.add_token_list(["[UNK]", *(f"▁{number}" for number in range(1, shape["vocab"]))])
    for name in ("unknown", "bos", "eos"):
        file.add_uint32(f"tokenizer.ggml.{name}_token_id", 0)

    def matrix(name: str, rows: int, columns: int) -> None:
        weights = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(columns**-0.5)
        file.add_tensor(name, writer.quants.quantize(weights, form), raw_dtype=form)

    width, inner = shape["embedding_length"], shape["feed_forward_length"]
    head = shape["attention.key_length"]
    queries, keys = head * shape["attention.head_count"], head * shape["attention.head_count_kv"]
    matrix("token_embd.weight", shape["vocab"], width)
    file.add_tensor("output_norm.weight", np.ones(width, np.float32))
    norms = ["attn_norm", "ffn_norm"]
    norms += ["post_attention_norm", "post_ffw_norm"] if architecture == "gemma-embedding" else []
    for layer in range(shape["block_count"]):
        at = f"blk.{layer}"
        matrix(f"{at}.attn_q.weight", queries, width)
        matrix(f"{at}.attn_k.weight", keys, width)
        matrix(f"{at}.attn_v.weight", keys, width)
        matrix(f"{at}.attn_output.weight", width, queries)
        matrix(f"{at}.ffn_up.weight", inner, width)
        matrix(f"{at}.ffn_gate.weight", inner, width)
        matrix(f"{at}.ffn_down.weight", width, inner)
        for norm in norms:
            file.add_tensor(f"{at}.{norm}.weight", np.ones(width, np.float32))
        for norm in ("attn_q_norm", "attn_k_norm"):
            file.add_tensor(f"{at}.{norm}.weight", np.ones(head, np.float32))
    if architecture == "gemma-embedding":
        matrix("dense_2.weight", 3072, width)
        matrix("dense_3.weight", width, 3072)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def embeddinggemma(path: Path) -> None:
    shape = {
        "vocab": 262_144, "block_count": 24, "context_length": 2048, "embedding_length": 768,
        "feed_forward_length": 1152, "attention.head_count": 3, "attention.head_count_kv": 1,
        "attention.key_length": 256, "attention.value_length": 256,
    }  # fmt: skip
    write(path, "gemma-embedding", shape, "BF16", {"attention.sliding_window": 512, "pooling_type": 1})


def qwen3_embedding(path: Path) -> None:
    shape = {
        "vocab": 151_669, "block_count": 28, "context_length": 32_768, "embedding_length": 1024,
        "feed_forward_length": 3072, "attention.head_count": 16, "attention.head_count_kv": 8,
        "attention.key_length": 128, "attention.value_length": 128,
    }  # fmt: skip
    write(path, "qwen3", shape, "Q8_0", {"pooling_type": 3})


MODELS: dict[str, Callable[[Path], None]] = {"embeddinggemma": embeddinggemma, "qwen3-embedding": qwen3_embedding}


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def beside_the_ceiling(work: Callable[[], object], flops: float, seconds: float) -> tuple[float, float]:
    """GFLOP/s of ``work`` and of float32 products of 512 tokens with a 1024 x 3072 matrix, each a median.

    They take turns over ``seconds``, at least five, so that whatever else the machine does hits both. Each begins when
    the other's threads, which look for more work for a while, have gone to sleep.
    """
    tokens, weights = np.ones((512, 1024), np.float32), np.ones((1024, 3072), np.float32)
    work()
    taken: list[float] = []
    ceiling: list[float] = []
    while sum(taken) + sum(ceiling) < seconds or len(taken) < 5:
        time.sleep(IDLE)
        ceiling += [timed(lambda: tokens @ weights) for _ in range(5)][1:]  # the first finds other data in the caches
        time.sleep(IDLE)
        taken += [timed(work) for _ in range(3)][1:]
    product = 2 * tokens.shape[0] * weights.size
    return 1e-9 * flops / float(np.median(taken)), 1e-9 * product / float(np.median(ceiling))


def rows(engine: Engine, flops_a_token: float, seconds: float) -> Iterator[tuple[str, float, float, float]]:
    """Name, texts a second, GFLOP/s and the ceiling's of each kind of work."""
    rng = np.random.default_rng(0)
    for kind, length in LENGTHS.items():
        for texts in (1, max(1, round(512 / length))):
            batch = list(rng.integers(1, 100_000, (texts, length)))
            flops = flops_a_token * texts * length
            speed, ceiling = beside_the_ceiling(lambda batch=batch: engine.run(batch), flops, seconds)
            yield f"{kind} x {texts}", 1e9 * speed / flops * texts, speed, ceiling


def measure(name: str, threads: int | None, seconds: float) -> None:
    """Print a model's table."""
    path = FOLDER / f"{name}.gguf"
    if not path.exists():  # written elsewhere: a peak is of the loading alone
        writing = Process(target=MODELS[name], args=[path])
        writing.start()
        writing.join()
    base = peak()
    started = time.perf_counter()
    checkpoint = gguf.read(path)
    engine = Engine(checkpoint.spec, checkpoint.tensors, threads=threads, cache_dir=FOLDER)
    loaded, most = time.perf_counter() - started, peak()
    linear = sum(tensor["shape"][0] * tensor["shape"][1] for tensor in checkpoint.tensor_list
                 if len(tensor["shape"]) == 2 and tensor["name"].startswith("blk."))  # fmt: skip
    weights = engine.resident_bytes / 2**20
    print(f"{name}: {path.stat().st_size / 1e6:.0f} MB, ready in {loaded:.1f} s, weights {weights:.0f} MiB, peak "
          f"{most - base:.0f} MiB ({(most - base) / weights:.2f} x) above {base:.0f} MiB, {2e-9 * linear:.2f} GFLOP a "
          "token", flush=True)  # fmt: skip
    for kind, rate, speed, ceiling in rows(engine, 2 * linear, seconds):
        print(
            f"  {kind:14} {rate:8.2f} texts/s {speed:7.0f} of {ceiling:.0f} GFLOP/s {speed / ceiling:6.0%}", flush=True
        )


def peak() -> float:
    """The most that this process has had in memory, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if len(options.models) == 1:
        measure(options.models[0], options.threads, options.seconds)
    for name in options.models if len(options.models) > 1 else ():  # in a process each: a peak is one model's
        own = ["--threads", str(options.threads), "--seconds", str(options.seconds)]
        subprocess.run([sys.executable, __file__, name, *own], check=True)


if __name__ == "__main__":
    main()
