"""Linear layers that multiply in 8 bits, and which layers of each architecture do.

An activation is quantized by the scale of its own row, or of a block of it, never by one of the whole micro-batch:
a text's vector does not depend on its neighbours. The products are onnxruntime's own (``MatMulIntegerToFloat`` and
``MatMulNBits``, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from __future__ import annotations

from typing import NamedTuple

from onnxscript import ir, nn

from unitvec.models.config import LARGEST, Blocks, Form, Plan, Rows, Watched
from unitvec.models.layers import Linear, Op, Value
from unitvec.models.plans import form_of

_MICROSOFT = "com.microsoft"
_TINY = 1e-12  # the scale of a row of zeros


def quantize(embedder: nn.Module, plan: Plan, layers: int) -> None:
    """Put 8-bit layers in the place of those that ``plan`` names in a model of so many layers."""
    for path, parent in list(embedder.named_modules()):
        for name, child in list(parent.named_children()):
            form = form_of(f"{path}.{name}", plan, layers)
            if form and isinstance(child, Linear) and not (isinstance(form, Blocks) and child.inputs % form.size):
                setattr(parent, name, _layer(form, child))


class RowsLinear(nn.Module):
    """``x @ weight.T + bias`` with an 8-bit scale for each row of x and each column of the product.

    Weights lie as int8 [inputs, outputs], one array a group of inputs. ``columns`` of x stay in float32 and are
    multiplied by ``outer``; ``inner`` is zero for them, and what the others are multiplied by before they are rounded.
    """

    def __init__(self, form: Rows, linear: Linear) -> None:
        super().__init__()
        self.form = form
        self.inputs = linear.inputs
        self.bias = linear.bias
        exact = form.columns(self.inputs)
        self.columns = nn.Parameter([exact], dtype=ir.DataType.INT64)
        self.inner = nn.Parameter([self.inputs])
        self.outer = nn.Parameter([exact, linear.outputs])
        self.weights, self.scales = [], []
        self.groups = form.groups(self.inputs)
        for group in range(self.groups):
            weight = nn.Parameter(
                [self.inputs // self.groups, linear.outputs], dtype=ir.DataType.INT8, name=f"weight.{group}"
            )
            scale = nn.Parameter([linear.outputs], name=f"scale.{group}")
            setattr(self, f"weight_{group}", weight)
            setattr(self, f"scale_{group}", scale)
            self.weights.append(weight)
            self.scales.append(scale)

    def forward(self, op: Op, x: Value) -> Value:
        read: dict[Rows, _Quantized] = x.meta.setdefault("int8", {})
        if self.form not in read:  # queries, keys and values read the same: their columns are the same too
            read[self.form] = _quantized(op, x, self.form, self.inner, self.columns)
        of = read[self.form]
        zero = op.Constant(value=ir.tensor(self.form.zero, dtype=ir.DataType.UINT8))
        parts, scales = [of.numbers], [of.scales]
        if self.groups > 1:
            parts = op.Split(of.numbers, axis=1, num_outputs=self.groups, _outputs=self.groups)
            scales = op.Split(of.scales, axis=1, num_outputs=self.groups, _outputs=self.groups)
        total = op.Gemm(of.outliers, self.outer, self.bias)
        for group, part in enumerate(parts):
            product = op.MatMulIntegerToFloat(
                part, self.weights[group], 1.0, self.scales[group], zero, _domain=_MICROSOFT
            )
            product.type = ir.TensorType(ir.DataType.FLOAT)  # the builder knows standard operators only
            total = op.Add(total, op.Mul(product, scales[group]))
        return total


class _Quantized(NamedTuple):
    """An activation [T, inputs]: scales, float32 [T, groups], what they multiply, uint8 [T, inputs], and its outliers,
    float32 [T, columns]."""

    scales: Value
    numbers: Value
    outliers: Value


def _quantized(op: Op, x: Value, form: Rows, inner: Value, columns: Value) -> _Quantized:
    width = int(inner.shape[0])
    groups = form.groups(width)
    zero = op.Constant(value=ir.tensor(form.zero, dtype=ir.DataType.UINT8))
    rest = op.Mul(x, inner)
    rows = op.Reshape(rest, [-1, groups, width // groups]) if groups > 1 else rest
    above = op.Mul(op.ReduceMax(rows, [-1], keepdims=int(groups == 1)), 1 / (255 - form.zero))
    below = op.Mul(op.ReduceMin(rest, [-1]), -1 / form.zero)  # of the whole row: quicker, and GELU's is soon reached
    scales = op.Max(above, below, _TINY)
    numbers = op.QuantizeLinear(rest, scales, op.Expand(zero, op.Shape(scales)), axis=1, block_size=width // groups)
    return _Quantized(scales, numbers, op.Gather(x, columns, axis=1))


class BlockLinear(nn.Module):
    """``x @ weight.T + bias`` with an 8-bit scale for each block of a row, of x and of the weights."""

    def __init__(self, form: Blocks, linear: Linear) -> None:
        super().__init__()
        self.inputs, self.outputs = linear.inputs, linear.outputs
        self.size = form.size
        blocks = self.inputs // form.size
        self.weight = nn.Parameter([self.outputs, blocks, form.size], dtype=ir.DataType.UINT8)
        self.scale = nn.Parameter([self.outputs, blocks])
        self.bias = linear.bias

    def forward(self, op: Op, x: Value) -> Value:
        product = op.MatMulNBits(
            x,
            self.weight,
            self.scale,
            K=self.inputs,
            N=self.outputs,
            bits=8,
            block_size=self.size,
            accuracy_level=4,  # activations in 8 bits
            _domain=_MICROSOFT,
        )
        product.type = ir.TensorType(ir.DataType.FLOAT)
        return product if self.bias is None else op.Add(product, self.bias)


class WatchedLinear(Linear):
    """The same layer, and an output of the graph: how large each column of x gets, float32 [inputs]."""

    def forward(self, op: Op, x: Value) -> Value:
        op.builder.add_output(op.ReduceMax(op.Abs(x), [0], keepdims=0), f"{self.weight.name}{LARGEST}")
        return super().forward(op, x)


def _layer(form: Form, linear: Linear) -> nn.Module:
    match form:
        case Rows():
            return RowsLinear(form, linear)
        case Blocks():
            return BlockLinear(form, linear)
        case Watched():
            return WatchedLinear(linear.inputs, linear.outputs, bias=linear.bias is not None)
