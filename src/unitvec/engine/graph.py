"""From a ModelSpec to the bytes of ONNX graphs without weights, kept between starts.

Importing the graph builder takes a second and building some tenths; reading the kept bytes takes
nothing. The key covers everything that the graph depends on, so a stale one is never found.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson

from unitvec import models, pages
from unitvec.models.config import ModelSpec

OPSET = 23
IR_VERSION = 11  # the first that knows opset 23

_AXES: dict[str, list[int | str]] = {  # the others: ["tokens"]
    "lengths": ["batch"],
    "places": ["seq"],
    "inside": ["batch", 1, 1, "seq"],
    "spread": ["batch", "seq"],
    "blocks": ["blocks", "batch", "block"],
    "block_places": ["blocks", "block"],
}


@dataclass(frozen=True)
class Stage:
    """A part of a model that is loaded by itself.

    Attributes:
        onnx: the serialized ONNX model, its initializers declared and without data.
        inputs: names of the values that it takes, from outside or from stages before.
        outputs: names of those that it gives.
        parameters: by checkpoint name, numpy dtype name and shape of each initializer to be bound.
        packed: those that are the matrix of a product and nothing else, which onnxruntime lays out anew for itself.
    """

    onnx: bytes
    inputs: list[str]
    outputs: list[str]
    parameters: dict[str, tuple[str, list[int]]]
    packed: list[str]


def build(spec: ModelSpec) -> list[Stage]:
    """Trace the modules of ``spec`` and cut the graph into stages: one, or several for a large model."""
    from onnxscript import GraphBuilder, ir

    from unitvec.engine.stages import cut
    from unitvec.models.embedder import Embedder
    from unitvec.models.layers import PackedBatch

    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET, "com.microsoft": 1}, name="embedder")
    builder = GraphBuilder(graph)
    axes = [(field.name, _AXES.get(field.name, ["tokens"])) for field in fields(PackedBatch)]
    types = {"inside": ir.DataType.BOOL}
    batch = PackedBatch(**{n: builder.input(n, types.get(n, ir.DataType.INT64), shape) for n, shape in axes})
    embedder = Embedder(spec)
    builder.add_output(embedder(builder.op, batch), "embeddings")
    parameters = {}
    for parameter in embedder.parameters():
        name, dtype = parameter.name, parameter.dtype
        assert name is not None
        assert dtype is not None
        assert parameter.shape is not None
        shape = [int(n) for n in parameter.shape.numpy()]
        parameters[name] = (dtype.numpy().name, shape)
        size = math.prod(shape) * dtype.itemsize
        parameter.const_value = ir.ExternalTensor("", 0, int(size), dtype, shape=parameter.shape, name=name)
    for node in graph:
        node.metadata_props.clear()  # scope names: half of the bytes, and of use only to the builder
    stages = []
    for model, matrices in cut(graph, IR_VERSION):
        mine = {tensor.name: parameters[tensor.name] for tensor in model.graph.initializer if tensor.name in parameters}
        stages.append(
            Stage(
                model.SerializeToString(),
                [value.name for value in model.graph.input],
                [value.name for value in model.graph.output],
                mine,
                [name for name in matrices if name in mine],
            )
        )
    return stages


def load(spec: ModelSpec, cache_dir: Path | None) -> list[Stage]:
    """As :func:`build`, from ``cache_dir`` where it was built before; a folder that cannot be written is no error."""
    if cache_dir is None:
        return build(spec)
    kept = cache_dir / f"{_key(spec)}.graph"
    with contextlib.suppress(OSError, ValueError):
        header, graphs = kept.read_bytes().split(b"\n", 1)
        ends = accumulate(stage["size"] for stage in orjson.loads(header))
        return [
            Stage(graphs[end - stage.pop("size") : end], **stage)
            for end, stage in zip(ends, orjson.loads(header), strict=True)
        ]
    stages = build(spec)
    pages.collect()  # the builder's objects refer to each other
    header = orjson.dumps([{"size": len(stage.onnx), **_description(stage)} for stage in stages])
    with contextlib.suppress(OSError):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache_dir, delete=False) as part:
            part.write(header + b"\n" + b"".join(stage.onnx for stage in stages))
        os.replace(part.name, kept)  # whole or not at all
    return stages


def _description(stage: Stage) -> dict[str, Any]:
    return {field.name: getattr(stage, field.name) for field in fields(Stage) if field.name != "onnx"}


@cache
def _source_digest() -> str:
    """Changes with any line of the model language or of this builder."""
    digest = hashlib.sha256()
    for file in sorted([*Path(models.__path__[0]).glob("*.py"), *Path(__file__).parent.glob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _key(spec: ModelSpec) -> str:
    parts = (repr(spec), _source_digest(), version("onnxscript"), version("onnx-ir"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
