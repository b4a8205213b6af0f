"""Finds a model's plan of 8-bit layers: which linear layers, and in which form (``src/unitvec/models/plans.py``).

    python bench/int8_plan.py MODEL [--texts N]        MODEL: a name, a GGUF file or a folder

Each kind of layer is put into each form by itself; the loss of cosine with float32 and the time saved are measured on
the texts of ``unitvec verify --dtype int8``. Losses and savings add up nearly, so that all plans can be ranked by their
expected time; those that are expected to keep the promise are then measured, the fastest first and the ranking of
queries too, until one does.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unitvec import config, promise
from unitvec.checkpoint import gguf, huggingface
from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.engine.onnx import Engine, FloatArray
from unitvec.models.config import LAST, BertConfig, Blocks, Form, Plan, Rows
from unitvec.serving.model import finish
from unitvec.store.name import Name

BERT = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
        "intermediate.dense", "output.dense")  # fmt: skip
DECODER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
FORMS: dict[str, Form] = {
    "rows": Rows(),
    "rows, not smoothed": Rows(smooth=0),
    "parts": Rows(size=512, smooth=0),
    "off centre": Rows(zero=24, smooth=0),
    "off centre, parts": Rows(zero=24, size=512, smooth=0),
    "blocks": Blocks(),
}
BUT_LAST = " but in the last layer"
# Mean and most that are expected of a plan worth a measurement: with a larger mean the ranking was never kept.
LOSS_MEAN, LOSS_MOST = 0.00027, 0.8 * (1 - promise.COSINE_LEAST)
BATCH = 16
ROUNDS = 9
TRIED = 12


def plan_of(kind: str, label: str) -> Plan:
    if label == "float32":
        return ()
    whole = label.removesuffix(BUT_LAST)
    return (kind, FORMS[whole]), *(((LAST + kind, None),) if whole != label else ())


class Planned:
    """A model with a plan."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan) -> None:
        self.checkpoint = checkpoint
        self.limit = min(256, checkpoint.context_length)
        threads = config.available_cores()
        self.engine = Engine(replace(checkpoint.spec, plan=plan), checkpoint.tensors, threads=threads, spin=False)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.checkpoint.tokenizer.encode_batch(list(texts))
        cut = (e.ids if len(e.ids) <= self.limit else [*e.ids[: self.limit - 1], e.ids[-1]] for e in encoded)
        return [ids or [0] for ids in cut]  # of a text without tokens: any, the same for all plans

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors [len(texts), width]."""
        ids = self.ids(texts)
        order = np.argsort([len(text) for text in ids], kind="stable")
        vectors = np.empty((len(ids), self.checkpoint.spec.embedding_length), np.float32)
        for start in range(0, len(ids), BATCH):
            part = order[start : start + BATCH]
            vectors[part] = self.engine.run([ids[at] for at in part])
        return finish(vectors, 0)


def saving(exact: Planned, other: Planned, texts: Sequence[str]) -> float:
    """The share of a micro-batch's time that a plan saves, measured in turns."""
    batch = exact.ids(texts)
    times: list[list[float]] = []
    for _ in range(ROUNDS + 1):
        times.append([])
        for model in (exact, other):
            began = time.perf_counter()
            model.engine.run(batch)
            times[-1].append(time.perf_counter() - began)
    return 1 - float(np.median([after / before for before, after in times[1:]]))  # the first warms up


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
    texts = promise.texts()[:: max(1, 2000 // options.texts)]
    timed = sorted(texts, key=len)[len(texts) // 2 :][:BATCH]
    exact = Planned(checkpoint, ())
    wanted = exact.embed(texts)
    kinds = BERT if isinstance(checkpoint.spec.transformer, BertConfig) else DECODER
    found: dict[str, dict[str, tuple[np.ndarray, float]]] = {}
    for kind in kinds:
        found[kind] = {"float32": (np.zeros(len(texts)), 0.0)}
        # Only what feeds on GELU is off centre, and what is narrower than a part has none.
        forms = [label for label in FORMS if kind == "output.dense" or not label.endswith(("off centre", "parts"))]
        for label in (*forms, f"rows{BUT_LAST}"):
            one = Planned(checkpoint, plan_of(kind, label))
            losses = 1 - np.einsum("ij,ij->i", one.embed(texts), wanted, dtype=np.float64)
            saved = saving(exact, one, timed)
            found[kind][label] = losses, saved
            print(f"{kind:24} {label:28} loses {losses.mean():.6f}, at most {losses.max():.5f}; "
                  f"saves {saved:6.1%} of the time", flush=True)  # fmt: skip
    ranked = []
    for labels in itertools.product(*(found[kind] for kind in kinds)):
        chosen = [found[kind][label] for kind, label in zip(kinds, labels, strict=True)]
        losses = np.sum([losses for losses, _ in chosen], axis=0)
        if losses.mean() <= LOSS_MEAN and losses.max() <= LOSS_MOST:
            ranked.append((-sum(saved for _, saved in chosen), labels))
    for expected, labels in sorted(ranked)[:TRIED]:
        plan = tuple(entry for kind, label in zip(kinds, labels, strict=True) for entry in plan_of(kind, label))
        tried = Planned(checkpoint, plan)
        kept, faster = promise.measure(exact, tried), 1 / (1 - saving(exact, tried, timed))
        print(f"{faster:.2f} x, expected {1 / (1 + expected):.2f} x; {kept}: {labels}", flush=True)
        if kept.holds:
            print("the plan:", plan)
            return
    print("no plan keeps the promise: leave the model in float32")


if __name__ == "__main__":
    main()
