"""Which linear layers of each architecture compute in 8 bits, and how: found by ``bench/int8_plan.py``."""

from __future__ import annotations

import re

from unitvec.models.config import (
    BertConfig,
    Blocks,
    Gemma3Config,
    Plan,
    Qwen3Config,
    Rows,
    TransformerConfig,
)

_ROWS, _FINE = Rows(), Rows(fine=True)
_DECODER = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)

PLANS: dict[type[TransformerConfig], Plan] = {
    BertConfig: (
        ("attention.self.query", _ROWS),
        # Values lose most of all, and pass it on undiminished; keys lose just too much for the ranking.
        ("attention.output.dense", _ROWS),
        ("intermediate.dense", _FINE),
        ("output.dense", Rows(zero=24, size=128)),  # GELU gives nothing below -0.17
    ),
    # One head's keys and values are read by all: few weights, and errors in them count for most.
    Gemma3Config: tuple((name, Blocks()) for name in _DECODER if name not in ("self_attn.k_proj", "self_attn.v_proj")),
    Qwen3Config: tuple((name, Blocks()) for name in _DECODER),
}

_LAYER = re.compile(r"(?:.*\.)?layers?\.\d+\.(.+)")


def kind_of(name: str) -> str | None:
    """Which of a transformer layer's parts a name means, ``"mlp.up_proj"``; None outside of the layers."""
    found = _LAYER.fullmatch(name)
    return found[1] if found else None
