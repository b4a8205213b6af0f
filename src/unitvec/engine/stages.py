"""Cuts a graph into stages, each small against the whole, so that a large model need never be in memory twice.

onnxruntime copies a session's weights while the originals are still there. Loaded stage by stage, only one stage's
weights are there twice at any time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper
from onnxscript import ir

_SMALLEST = 32 << 20  # bytes of weights that are not worth a stage of their own
_STAGES = 16
_WHOLE = 128 << 20  # bytes of a model that is one stage: between two of them threads fall asleep


def cut(graph: ir.Graph, ir_version: int) -> Iterator[tuple[ModelProto, list[str]]]:
    """The stages of a graph in the order in which they run, and the weights that each matrix product has for itself.

    A stage takes what the graph takes and what stages before it give; the last one gives the graph's outputs.
    """
    model = ir.to_proto(ir.Model(graph, ir_version=ir_version))
    types = {value.name: value.dtype for node in graph for value in node.outputs}
    nodes = list(model.graph.node)
    reads = [_reads(node) for node in nodes]
    made = {name: position for position, node in enumerate(nodes) for name in node.output}
    last_read = {name: position for position, names in enumerate(reads) for name in names}
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    sizes = {name: math.prod(tensor.dims) * _itemsize(tensor.data_type) for name, tensor in initializers.items()}
    # numpy has no bfloat16, and what a stage gives is looked at.
    movable = {name: at for name, at in made.items() if types[name] == ir.DataType.FLOAT}
    fixed = {name: at for name, at in made.items() if name not in movable}
    weights = [sum(sizes.get(name, 0) for name in names) for names in reads]
    bounds = _bounds(weights, _crossing(movable, last_read, len(nodes)), _crossing(fixed, last_read, len(nodes)))
    last_read |= {value.name: len(nodes) for value in model.graph.output}
    for begin, end in pairwise(bounds):
        names = set().union(*reads[begin:end])
        came = [name for name in names if made.get(name, end) < begin]
        left = [name for name, at in made.items() if begin <= at < end <= last_read.get(name, -1)]
        outputs = [value for value in model.graph.output if value.name in left]
        known = {value.name for value in outputs}
        outside = [value for value in model.graph.input if value.name in names]
        part = GraphProto(name=f"{graph.name}.{begin}")
        part.node.extend(nodes[begin:end])
        part.input.extend([*outside, *(_described(name, types) for name in sorted(came))])
        part.output.extend([*outputs, *(_described(name, types) for name in sorted(left) if name not in known)])
        part.initializer.extend(initializers[name] for name in sorted(names & initializers.keys()))
        yield (
            helper.make_model(part, opset_imports=model.opset_import, ir_version=ir_version),
            _matrices(nodes, reads),
        )


def _crossing(made: dict[str, int], last_read: dict[str, int], count: int) -> list[int]:
    """How many values are made before each node and read by it or later."""
    crossing = [0] * (count + 1)
    for name, at in made.items():
        for boundary in range(at + 1, last_read.get(name, at) + 1):
            crossing[boundary] += 1
    return crossing


def _bounds(weights: list[int], movable: list[int], fixed: list[int]) -> list[int]:
    """Where stages begin and the last one ends.

    Args:
        weights: bytes of weights that each node reads.
        movable: float32 values that cross to each node and later ones.
        fixed: values of other types that do.
    """
    count = len(weights)
    # Between a model's layers fewer values cross than anywhere within them.
    fewest = min(movable[count // 4 : 3 * count // 4 + 1])
    whole = sum(weights)
    limit = whole if whole <= _WHOLE else max(_SMALLEST, whole // _STAGES)
    bounds, weight = [0], 0
    for position, size in enumerate(weights):
        if weight >= limit and movable[position] <= fewest and not fixed[position]:
            bounds.append(position)
            weight = 0
        weight += size
    return [*bounds, count]


def _reads(node: NodeProto) -> set[str]:
    """Names that a node reads, those that its body reads from around it included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        inside = set().union(*(_reads(inner) for inner in attribute.g.node))
        names |= inside - {name for inner in attribute.g.node for name in inner.output}
        names -= {value.name for value in attribute.g.input}
    return names


_PRODUCTS = ("Gemm", "MatMulIntegerToFloat", "MatMulNBits")


def _matrices(nodes: list[NodeProto], reads: list[set[str]]) -> list[str]:
    """What is the matrix of one product and read by nothing else."""
    matrices = [node.input[1] for node in nodes if node.op_type in _PRODUCTS]
    return [name for name in matrices if sum(name in names for names in reads) == 1]


def _described(name: str, types: dict[str | None, ir.DataType | None]) -> object:
    dtype = types[name]
    assert dtype is not None, "the graph builder infers types"
    return helper.make_tensor_value_info(name, dtype, None)


def _itemsize(data_type: int) -> int:
    return np.dtype(helper.tensor_dtype_to_np_dtype(data_type)).itemsize
