"""Finds a model's plan of 8-bit layers: which linear layers, and in which form (``src/unitvec/models/plans.py``).

    python bench/int8_plan.py MODEL [--texts N]        MODEL: a name, a GGUF file or a folder

Each kind of layer is put into each form by itself; the loss of cosine with float32 and the time saved are measured on
the texts of ``unitvec verify --dtype int8``. Losses and savings add up nearly, so that all plans can be ranked by their
expected time; those that are expected to keep the promise are then measured, the fastest first, until one does.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from unitvec import config, promise
from unitvec.checkpoint import gguf, huggingface
from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.engine.onnx import Engine, FloatArray
from unitvec.models.config import BertConfig, Blocks, Form, Plan, Rows
from unitvec.serving.model import finish
from unitvec.store.name import Name

BERT = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
        "intermediate.dense", "output.dense")  # fmt: skip
DECODER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
FORMS: dict[str, Form | None] = {
    "float32": None,
    "rows": Rows(),
    "fine": Rows(fine=True),
    "off centre": Rows(zero=24),
    "parts": Rows(size=256),
    "off centre, parts": Rows(zero=24, size=256),
    "blocks": Blocks(),
}
MARGIN = 0.8  # of the promise's allowance may be spent: other weights of the architecture will lose more
BATCH = 16
ROUNDS = 5
TRIED = 12


class Measured:
    """One plan: unit vectors and seconds for the texts."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan, texts: list[list[int]]) -> None:
        self.engine = Engine(replace(checkpoint.spec, plan=plan), checkpoint.tensors, threads=config.available_cores())
        parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        self.vectors: FloatArray = finish(np.concatenate([self.engine.run(part) for part in parts]), 0)
        middle = parts[len(parts) // 2]
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            self.engine.run(middle)
            times.append(time.perf_counter() - began)
        self.seconds = float(np.median(times))

    def losses(self, exact: FloatArray) -> np.ndarray:
        """1 - cosine of each text."""
        return 1 - np.einsum("ij,ij->i", self.vectors, exact, dtype=np.float64)


def keeps(losses: np.ndarray) -> bool:
    return bool(
        losses.mean() <= MARGIN * (1 - promise.COSINE_MEAN) and losses.max() <= MARGIN * (1 - promise.COSINE_LEAST)
    )


def opened(name: str) -> Checkpoint:
    path = Path(name)
    if path.is_dir():
        return huggingface.read(path)
    return gguf.read(path) if path.exists() else config.stores().fetch(Name.parse(name)).open()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=400)
    options = parser.parse_args()
    checkpoint = opened(options.model)
    limit = min(256, checkpoint.context_length)
    sample = promise.texts()[:: max(1, 2000 // options.texts)]
    texts = sorted((e.ids[:limit] for e in checkpoint.tokenizer.encode_batch(sample) if e.ids), key=len)
    exact = Measured(checkpoint, (), texts)
    kinds = BERT if isinstance(checkpoint.spec.transformer, BertConfig) else DECODER
    found: dict[str, dict[str, tuple[np.ndarray, float]]] = {}
    for kind in kinds:
        found[kind] = {"float32": (np.zeros(len(texts)), 0.0)}
        for label, form in FORMS.items():
            if form is None or (label.startswith("off centre") and kind != "output.dense"):
                continue
            one = Measured(checkpoint, ((kind, form),), texts)
            losses, saved = one.losses(exact.vectors), 1 - one.seconds / exact.seconds
            found[kind][label] = losses, saved
            print(f"{kind:24} {label:18} mean {1 - losses.mean():.5f} least {1 - losses.max():.5f} "
                  f"saves {saved:6.1%} of the time", flush=True)  # fmt: skip
    ranked = []
    for labels in itertools.product(*(found[kind] for kind in kinds)):
        chosen = [found[kind][label] for kind, label in zip(kinds, labels, strict=True)]
        if keeps(np.sum([losses for losses, _ in chosen], axis=0)):
            ranked.append((-sum(saved for _, saved in chosen), labels))
    for expected, labels in sorted(ranked)[:TRIED]:
        named = {kind: FORMS[label] for kind, label in zip(kinds, labels, strict=True)}
        plan = tuple((kind, form) for kind, form in named.items() if form)
        whole = Measured(checkpoint, plan, texts)
        losses = whole.losses(exact.vectors)
        faster = exact.seconds / whole.seconds
        print(f"mean {1 - losses.mean():.5f} least {1 - losses.max():.5f} {faster:.2f} x, "
              f"expected {1 / (1 + expected):.2f} x: {labels}", flush=True)  # fmt: skip
        if keeps(losses):
            print("the plan:", plan)
            return
    print("no plan keeps the promise: leave the model in float32")


if __name__ == "__main__":
    main()
