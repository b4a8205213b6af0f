"""What GGUF calls the parameters of each architecture, and what its Hugging Face checkpoint does.

``{}`` is a layer's number; ``.weight`` and ``.bias`` follow. From llama.cpp's ``gguf-py/gguf/tensor_mapping.py``.
"""

from __future__ import annotations

import re

BERT = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "blk.{}.attn_q": "encoder.layer.{}.attention.self.query",
    "blk.{}.attn_k": "encoder.layer.{}.attention.self.key",
    "blk.{}.attn_v": "encoder.layer.{}.attention.self.value",
    "blk.{}.attn_output": "encoder.layer.{}.attention.output.dense",
    "blk.{}.attn_output_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "blk.{}.ffn_up": "encoder.layer.{}.intermediate.dense",
    "blk.{}.ffn_down": "encoder.layer.{}.output.dense",
    "blk.{}.layer_output_norm": "encoder.layer.{}.output.LayerNorm",
}

_DECODER = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "blk.{}.attn_q": "layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "layers.{}.self_attn.o_proj",
    "blk.{}.attn_q_norm": "layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "layers.{}.self_attn.k_norm",
    "blk.{}.attn_norm": "layers.{}.input_layernorm",
    "blk.{}.ffn_gate": "layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "layers.{}.mlp.down_proj",
}

QWEN3 = _DECODER | {"blk.{}.ffn_norm": "layers.{}.post_attention_layernorm"}

GEMMA3 = _DECODER | {
    "blk.{}.post_attention_norm": "layers.{}.post_attention_layernorm",
    "blk.{}.ffn_norm": "layers.{}.pre_feedforward_layernorm",
    "blk.{}.post_ffw_norm": "layers.{}.post_feedforward_layernorm",
    "dense_2": "dense.0.linear",
    "dense_3": "dense.1.linear",
    "dense.0": "dense.0.linear",  # as files of the `gemma3` architecture have them
    "dense.1": "dense.1.linear",
}


def translate(name: str, table: dict[str, str]) -> str | None:
    """The checkpoint's name of the GGUF tensor ``name``; None where ``table`` has none."""
    stem, _, kind = name.rpartition(".")
    layer = re.match(r"blk\.(\d{1,5})\.", stem)
    number = layer[1] if layer else ""
    known = table.get(stem.replace(f"blk.{number}.", "blk.{}.", 1) if layer else stem)
    return f"{known.format(number)}.{kind}" if known and kind in ("weight", "bias") else None


def original(name: str, table: dict[str, str]) -> str:
    """What GGUF calls the checkpoint's parameter ``name``."""
    stem, _, kind = name.rpartition(".")
    for theirs, ours in table.items():
        if match := re.fullmatch(re.escape(ours).replace(r"\{\}", r"(\d+)"), stem):
            return f"{theirs.format(*match.groups())}.{kind}"
    return name
