"""Which linear layers of each architecture compute in 8 bits, and how: found by ``bench/int8_plan.py``."""

from __future__ import annotations

import re

from unitvec.models.config import (
    LAST,
    BertConfig,
    Blocks,
    Form,
    Gemma3Config,
    Plan,
    Qwen3Config,
    Rows,
    TransformerConfig,
)

_ROWS = Rows()
# What an activation function's output is multiplied by has outliers in columns that change from token to token.
_GATED: Plan = (
    ("self_attn.q_proj", _ROWS),
    ("self_attn.o_proj", _ROWS),
    ("mlp.gate_proj", _ROWS),
    ("mlp.up_proj", _ROWS),
    ("mlp.down_proj", Blocks()),
)

PLANS: dict[type[TransformerConfig], Plan] = {
    BertConfig: (
        ("attention.self.query", _ROWS),
        ("attention.self.key", _ROWS),
        ("attention.self.value", _ROWS),
        ("attention.output.dense", _ROWS),
        ("intermediate.dense", _ROWS),
        ("output.dense", Rows(zero=24, size=512, smooth=0)),  # GELU gives nothing below -0.17
        (LAST + "attention.self.value", None),
        (LAST + "attention.output.dense", None),
    ),
    Gemma3Config: _GATED,  # one head's keys and values are read by all: few weights, and errors in them count for most
    Qwen3Config: (*_GATED, ("self_attn.k_proj", Blocks()), ("self_attn.v_proj", Blocks())),
}

_LAYER = re.compile(r"(?:.*\.)?layers?\.(\d+)\.(.+)")


def form_of(name: str, plan: Plan, layers: int) -> Form | None:
    """What ``plan`` wants the layer ``name`` to be, ``"encoder.layer.3.output.dense"`` in a model of so many layers."""
    if not (found := _LAYER.fullmatch(name)):
        return None
    forms, kind = dict(plan), found[2]
    last = int(found[1]) == layers - 1
    return forms[LAST + kind] if last and LAST + kind in forms else forms.get(kind)
