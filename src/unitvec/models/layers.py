"""The layers that architectures are written with. Each emits standard ONNX operators (opset 23).

Tokens are packed, not padded: everything but attention works on one ``[T, width]`` matrix that
holds all texts of a micro-batch one after another. Only attention sees ``[B, S, width]``.
B is the number of texts, T of tokens in all, S of tokens in the longest text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from onnxscript import ir, nn

from unitvec.models.config import Q8_BLOCK, VECTOR, Activation, PoolingMode, TableType

Op = Any  # onnxscript's OpBuilder and the values that it returns are made at run time
Value = Any

_TABLE_DTYPES: dict[TableType, ir.DataType] = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "int8": ir.DataType.INT8,
}


@dataclass(frozen=True)
class PackedBatch:
    """The graph's inputs, int64 but for one: what the tokens are and where each one stands.

    Attention goes through the queries in N blocks of C places, so that its scores never take more memory than one
    block's do. Where an entry is past a text's end, it may be any valid row.

    Attributes:
        ids: [T] token ids, text after text.
        texts: [T] the text that each token belongs to.
        positions: [T] each token's place in its text.
        lengths: [B] the number of tokens of each text.
        places: [S] the numbers 0 .. S-1.
        inside: bool [B, 1, 1, S] whether a text has a token at each place.
        spread: [B, S] the packed row of each text's tokens.
        blocks: [N, B, C] the same, in blocks.
        block_places: [N, C] the places of each block: 0 .. N*C-1.
        slots: [T] where each token's row lies in the flattened blocks.
    """

    ids: Value
    texts: Value
    positions: Value
    lengths: Value
    places: Value
    inside: Value
    spread: Value
    blocks: Value
    block_places: Value
    slots: Value


class Linear(nn.Module):
    """``x @ weight.T + bias``, float32 [T, inputs] to [T, outputs]; the weight lies as in the checkpoint."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.inputs = inputs
        self.outputs = outputs
        self.weight = nn.Parameter([outputs, inputs])
        self.bias = nn.Parameter([outputs]) if bias else None

    def forward(self, op: Op, x: Value) -> Value:
        return op.Gemm(x, self.weight, self.bias, transB=1)


class Embedding(nn.Module):
    """Rows of a table as float32 [T, width]; the table keeps the precision of the file it came from."""

    def __init__(self, rows: int, width: int, table: TableType = "float32") -> None:
        super().__init__()
        self.width = width
        self.table = table
        self.weight = nn.Parameter([rows, width], dtype=_TABLE_DTYPES[table])
        self.scale = nn.Parameter([rows, width // Q8_BLOCK], dtype=ir.DataType.FLOAT16) if table == "int8" else None

    def forward(self, op: Op, index: Value) -> Value:
        rows = op.Gather(self.weight, index)
        if self.table == "float32":
            return rows
        rows = op.Cast(rows, to=ir.DataType.FLOAT)
        if self.scale is None:
            return rows
        scales = op.Cast(op.Gather(self.scale, index), to=ir.DataType.FLOAT)
        blocks = op.Reshape(rows, [-1, self.width // Q8_BLOCK, Q8_BLOCK])
        return op.Reshape(op.Mul(blocks, op.Unsqueeze(scales, [2])), [-1, self.width])


class LayerNorm(nn.Module):
    """Layer normalization over the last axis."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter([width])
        self.bias = nn.Parameter([width])

    def forward(self, op: Op, x: Value) -> Value:
        return op.LayerNormalization(x, self.weight, self.bias, axis=-1, epsilon=self.epsilon)


class RMSNorm(nn.Module):
    """Root mean square normalization over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter([width])

    def forward(self, op: Op, x: Value) -> Value:
        return op.RMSNormalization(x, self.weight, axis=-1, epsilon=self.epsilon)


def rotary_angles(op: Op, batch: PackedBatch, width: int, base: float) -> tuple[Value, Value]:
    """Cosines and sines of rotary positions (Su et al. 2021) for heads of ``width``: twice float32 [1, T, width/2]."""
    frequencies = op.Constant(value_floats=[base ** (-2 * i / width) for i in range(width // 2)])
    places = op.Cast(batch.positions, to=ir.DataType.FLOAT)
    angles = op.Mul(op.Unsqueeze(places, [0, 2]), frequencies)
    return op.Cos(angles), op.Sin(angles)


class NormedHeads(nn.Module):
    """RMSNorm of each head by itself and rotary positions: [T, heads x width] to the same."""

    def __init__(self, heads: int, width: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.width = width
        self.epsilon = epsilon
        self.weight = nn.Parameter([width])

    def forward(self, op: Op, x: Value, angles: tuple[Value, Value]) -> Value:
        x = op.Reshape(x, [-1, self.heads, self.width])
        x = op.RMSNormalization(x, self.weight, axis=-1, epsilon=self.epsilon)
        packed = op.Reshape(x, [1, -1, self.heads * self.width])
        return op.Squeeze(op.RotaryEmbedding(packed, *angles, num_heads=self.heads), [0])


class GatedMLP(nn.Module):
    """The feed-forward block of gated transformers: ``down(activation(gate(x)) * up(x))`` (Shazeer 2020)."""

    def __init__(self, width: int, inner: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.gate_proj = Linear(width, inner, bias=False)
        self.up_proj = Linear(width, inner, bias=False)
        self.down_proj = Linear(inner, width, bias=False)

    def forward(self, op: Op, x: Value) -> Value:
        gate = activate(op, self.gate_proj(op, x), self.activation)
        return self.down_proj(op, op.Mul(gate, self.up_proj(op, x)))


def activate(op: Op, x: Value, activation: Activation) -> Value:
    """The element-wise function named ``activation``."""
    match activation:
        case "identity":
            return x
        case "tanh":
            return op.Tanh(x)
        case "gelu":
            return op.Gelu(x)
        case "gelu_tanh":
            return op.Gelu(x, approximate="tanh")
        case "silu":
            return op.Mul(x, op.Sigmoid(x))
        case "relu":
            return op.Relu(x)
    raise ValueError(f"unknown activation {activation!r}; known: {', '.join(get_args(Activation))}")


@dataclass(frozen=True)
class Sight:
    """What a token sees of its own text: others less than ``back`` places before it and ``ahead`` behind it.

    None is no bound; ``ahead=1`` is causal attention.
    """

    back: int | None = None
    ahead: int | None = None


@dataclass(frozen=True)
class Heads:
    """The number of query heads, of key and value heads, and how wide each is."""

    queries: int
    keys: int
    width: int


def attend(
    op: Op, batch: PackedBatch, qkv: tuple[Value, Value, Value], heads: Heads, sight: Sight, scale: float
) -> Value:
    """Scaled dot-product attention within each text.

    Args:
        op: the graph in the making.
        batch: where the tokens stand.
        qkv: packed queries [T, heads.queries x width], keys and values [T, heads.keys x width].
        heads: how they are divided.
        sight: which tokens see which.
        scale: what the products of queries and keys are multiplied by.

    Returns:
        [T, heads.queries x width]
    """
    width = heads.queries * heads.width
    queries, keys, values = qkv[0], *(op.Gather(x, batch.spread, axis=0) for x in qkv[1:])

    def block(op: Op, rows: Value, at: Value) -> Value:
        """Attention of the queries at the places ``at`` [C], which are the packed ``rows`` [B, C]."""
        op.builder.push_module("block")  # names of its own: the builder counts nodes anew in here
        places, inside, k, v = batch.places, batch.inside, keys, values
        if sight.back or sight.ahead:  # keys out of sight of the whole block are left out
            begin, end = [0], [_FAR]
            if sight.back:
                begin = _down(op, op.Max(op.Sub(op.Gather(at, [0]), [sight.back - 1]), [0]), _SLAB)
            if sight.ahead:
                end = _down(op, op.Add(op.Gather(at, [-1]), [sight.ahead + VECTOR - 1]), VECTOR)
            along = (places, 0), (inside, 3), (k, 1), (v, 1)
            places, inside, k, v = (op.Slice(x, begin, end, [axis]) for x, axis in along)
        mask = _mask(op, at, places, inside, sight)
        q = op.Gather(queries, rows, axis=0)
        seen = op.Attention(q, k, v, mask, q_num_heads=heads.queries, kv_num_heads=heads.keys, scale=scale)
        return op.Reshape(seen, [0, 0, width])  # Scan has to know how wide its output is

    integers = ir.TensorType(ir.DataType.INT64)
    body = op.builder.subgraph(
        block,
        [ir.Value(name=name, type=integers) for name in ("rows", "at")],
        [ir.Value(name="seen", type=ir.TensorType(ir.DataType.FLOAT))],
        name="block",
    )
    seen = op.Scan(batch.blocks, batch.block_places, body=body, num_scan_inputs=2)
    return op.Gather(op.Reshape(seen, [-1, width]), batch.slots, axis=0)


# Sums over keys have the same order to the last bit wherever a block's begin: onnxruntime's products add 256 at a time.
_SLAB = 256
_FAR = 2**62  # past any text's end


def _down(op: Op, place: Value, multiple: int) -> Value:
    return op.Mul(op.Div(place, [multiple]), [multiple])


def _mask(op: Op, at: Value, places: Value, inside: Value, sight: Sight) -> Value:
    """Who sees whom: bool [B, 1, C, keys], the full shape, which onnxruntime wants on CPU."""
    at = op.Unsqueeze(at, [1])
    if not (sight.back or sight.ahead):
        return op.And(inside, op.GreaterOrEqual(at, [0]))
    ahead = op.Sub(op.Unsqueeze(places, [0]), at)
    if sight.ahead:
        inside = op.And(inside, op.Less(ahead, [sight.ahead]))
    if sight.back:
        inside = op.And(inside, op.Greater(ahead, [-sight.back]))
    return inside


class Pooling(nn.Module):
    """One vector a text: the mean of its tokens' states, the first one's or the last one's. [T, W] to [B, W]."""

    def __init__(self, mode: PoolingMode) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, op: Op, batch: PackedBatch, x: Value) -> Value:
        if self.mode == "mean":
            member = op.OneHot(batch.texts, op.Shape(batch.lengths), [0.0, 1.0], axis=0)
            count = op.Unsqueeze(op.Cast(batch.lengths, to=ir.DataType.FLOAT), [1])
            return op.Div(op.MatMul(member, x), count)
        first = op.Gather(batch.spread, 0, axis=1)
        row = first if self.mode == "cls" else op.Add(first, op.Sub(batch.lengths, [1]))
        return op.Gather(x, row, axis=0)


class Dense(nn.Module):
    """sentence-transformers' Dense head: a linear layer and an activation, [B, inputs] to [B, outputs]."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, activation: Activation) -> None:
        super().__init__()
        self.linear = Linear(inputs, outputs, bias=bias)
        self.activation = activation

    def forward(self, op: Op, x: Value) -> Value:
        return activate(op, self.linear(op, x), self.activation)
