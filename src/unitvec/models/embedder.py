"""A whole embedding model: a transformer, its pooling and the Dense heads behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxscript import nn

from unitvec.models.bert import Bert
from unitvec.models.config import BertConfig, Gemma3Config, ModelSpec, Qwen3Config, TransformerConfig
from unitvec.models.gemma3 import Gemma3
from unitvec.models.int8 import quantize
from unitvec.models.layers import Dense, Op, PackedBatch, Pooling, Value
from unitvec.models.qwen3 import Qwen3

# The one place that knows which module belongs to which numbers.
TRANSFORMERS: dict[type[TransformerConfig], Callable[[Any], nn.Module]] = {
    BertConfig: Bert,
    Gemma3Config: Gemma3,
    Qwen3Config: Qwen3,
}


class Embedder(nn.Module):
    """Packed tokens to one vector a text: float32 [B, embedding_length], not yet of unit length.

    The transformer's parameters are named as in its Hugging Face checkpoint, the heads' ``dense.N.linear.*``.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(name="")
        self.transformer = TRANSFORMERS[type(spec.transformer)](spec.transformer)
        self.transformer._set_name("")  # its parameters stand at the checkpoint's root
        quantize(self.transformer, spec.plan, spec.transformer.num_hidden_layers)
        self.pooling = Pooling(spec.pooling)
        self.dense = nn.ModuleList(
            [Dense(d.in_features, d.out_features, bias=d.bias, activation=d.activation) for d in spec.dense]
        )

    def forward(self, op: Op, batch: PackedBatch) -> Value:
        x = self.pooling(op, batch, self.transformer(op, batch))
        for head in self.dense:
            x = head(op, x)
        return x
