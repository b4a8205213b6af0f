"""Linear layers that multiply in 8 bits, and which layers of each architecture do.

An activation is quantized by the scale of its own row, or of a block of it, never by one of the whole micro-batch:
a text's vector does not depend on its neighbours. The products are onnxruntime's own (``MatMulIntegerToFloat`` and
``MatMulNBits``, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Callable

from onnxscript import ir, nn

from unitvec.models.config import FINE, Blocks, Form, Plan, Rows
from unitvec.models.layers import Linear, Op, Value
from unitvec.models.plans import kind_of

_MICROSOFT = "com.microsoft"
_TINY = 1e-12  # the scale of a row of zeros


def quantize(embedder: nn.Module, plan: Plan) -> None:
    """Put 8-bit layers in the place of those that ``plan`` names."""
    forms = dict(plan)
    for path, parent in list(embedder.named_modules()):
        for name, child in list(parent.named_children()):
            form = forms.get(kind_of(f"{path}.{name}") or "")
            if form and isinstance(child, Linear):
                setattr(parent, name, _layer(form, child))


class RowsLinear(nn.Module):
    """``x @ weight.T + bias`` with an 8-bit scale for each row of x and each column of the product.

    Weights lie as int8 [inputs, outputs], one array a group of inputs; of a fine layer, each stands once more below
    itself at a sixteenth of its size, for the part of an activation that its first 8 bits leave over.
    """

    def __init__(self, form: Rows, linear: Linear) -> None:
        super().__init__()
        self.form = form
        self.inputs = linear.inputs
        self.bias = linear.bias
        self.weights, self.scales = [], []
        self.groups = form.groups(self.inputs)
        rows = self.inputs // self.groups * (2 if form.fine else 1)
        for group in range(self.groups):
            weight = nn.Parameter([rows, linear.outputs], dtype=ir.DataType.INT8, name=f"weight.{group}")
            scale = nn.Parameter([linear.outputs], name=f"scale.{group}")
            setattr(self, f"weight_{group}", weight)
            setattr(self, f"scale_{group}", scale)
            self.weights.append(weight)
            self.scales.append(scale)

    def forward(self, op: Op, x: Value) -> Value:
        scales, numbers = _quantized(op, x, self.form, self.inputs)
        zero = op.Constant(value=ir.tensor(self.form.zero, dtype=ir.DataType.UINT8))
        parts, of_group = [numbers], [scales]
        if self.groups > 1:
            parts = op.Split(numbers, axis=1, num_outputs=self.groups, _outputs=self.groups)
            of_group = op.Split(scales, axis=1, num_outputs=self.groups, _outputs=self.groups)
        total = None
        for group, part in enumerate(parts):
            product = op.MatMulIntegerToFloat(
                part, self.weights[group], 1.0, self.scales[group], zero, _domain=_MICROSOFT
            )
            product.type = ir.TensorType(ir.DataType.FLOAT)  # the builder knows standard operators only
            product = op.Mul(product, of_group[group])
            total = product if total is None else op.Add(total, product)
        return total if self.bias is None else op.Add(total, self.bias)


def _quantized(op: Op, x: Value, form: Rows, width: int) -> tuple[Value, Value]:
    """Scales, float32 [T, groups], and what they multiply: uint8 [T, width], twice as wide if fine.

    Layers that read the same values share them: queries, keys and values do.
    """
    made: dict[tuple[object, ...], Value] = x.meta.setdefault("int8", {})

    def once(key: tuple[object, ...], make: Callable[[], Value]) -> Value:
        if key not in made:
            made[key] = make()
        return made[key]

    groups = form.groups(width)
    size = width // groups
    zero = op.Constant(value=ir.tensor(form.zero, dtype=ir.DataType.UINT8))

    def scale() -> Value:
        rows = op.Reshape(x, [-1, groups, size]) if groups > 1 else x
        above = op.Mul(op.ReduceMax(rows, [-1], keepdims=int(groups == 1)), 1 / (255 - form.zero))
        below = op.Mul(op.ReduceMin(rows, [-1], keepdims=int(groups == 1)), -1 / form.zero)
        return op.Max(above, below, _TINY)

    def coarse() -> Value:
        return op.QuantizeLinear(x, scales, op.Expand(zero, op.Shape(scales)), axis=1, block_size=size)

    def fine() -> Value:
        steps = op.Div(x, scales)
        first = op.QuantizeLinear(steps, 1.0, zero)
        second = op.QuantizeLinear(op.Sub(steps, op.Round(steps)), 1 / FINE, zero)
        return op.Concat(first, second, axis=1)

    scales = once((form.zero, groups), scale)
    return scales, once((form.zero, groups, form.fine), fine if form.fine else coarse)


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


def _layer(form: Form, linear: Linear) -> nn.Module:
    return RowsLinear(form, linear) if isinstance(form, Rows) else BlockLinear(form, linear)
