"""From a ModelSpec to the bytes of an ONNX graph without weights, kept between starts.

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
from pathlib import Path

import orjson

from unitvec import models
from unitvec.models.config import ModelSpec

OPSET = 23
IR_VERSION = 11  # the first that knows opset 23

_AXES = {  # the others: ["tokens"]
    "lengths": ["batch"],
    "places": ["seq"],
    "spread": ["batch", "seq"],
    "blocks": ["blocks", "batch", "block"],
    "block_places": ["blocks", "block"],
}


@dataclass(frozen=True)
class Graph:
    """A built model.

    Attributes:
        onnx: the serialized ONNX model, its initializers declared and without data.
        parameters: by checkpoint name, numpy dtype name and shape of each initializer to be bound.
        packed: those that are the matrix of a Gemm and nothing else, which onnxruntime lays out anew for itself.
    """

    onnx: bytes
    parameters: dict[str, tuple[str, list[int]]]
    packed: list[str]


def build(spec: ModelSpec) -> Graph:
    """Trace the modules of ``spec``."""
    from onnxscript import GraphBuilder, ir

    from unitvec.models.embedder import Embedder
    from unitvec.models.layers import PackedBatch

    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="embedder")
    builder = GraphBuilder(graph)
    axes = [(field.name, _AXES.get(field.name, ["tokens"])) for field in fields(PackedBatch)]
    batch = PackedBatch(**{name: builder.input(name, ir.DataType.INT64, shape) for name, shape in axes})
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
    packed = [
        name
        for name, value in graph.initializers.items()
        if name in parameters and [(use.node.op_type, use.idx) for use in value.uses()] == [("Gemm", 1)]
    ]
    return Graph(bytes(ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()), parameters, packed)


def load(spec: ModelSpec, cache_dir: Path | None) -> Graph:
    """As :func:`build`, from ``cache_dir`` where it was built before; a folder that cannot be written is no error."""
    if cache_dir is None:
        return build(spec)
    kept = cache_dir / f"{_key(spec)}.graph"
    with contextlib.suppress(OSError, ValueError):
        header, onnx = kept.read_bytes().split(b"\n", 1)
        return Graph(onnx, **orjson.loads(header))
    graph = build(spec)
    with contextlib.suppress(OSError):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache_dir, delete=False) as part:
            part.write(orjson.dumps({"parameters": graph.parameters, "packed": graph.packed}) + b"\n" + graph.onnx)
        os.replace(part.name, kept)  # whole or not at all
    return graph


@cache
def _source_digest() -> str:
    """Changes with any line of the model language or of this builder."""
    digest = hashlib.sha256()
    for file in sorted([*Path(models.__path__[0]).glob("*.py"), Path(__file__)]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _key(spec: ModelSpec) -> str:
    parts = (repr(spec), _source_digest(), version("onnxscript"), version("onnx-ir"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
