"""What running a model takes in memory."""

from __future__ import annotations

from unitvec.models.config import BertConfig, ModelSpec

SCORES = 64 << 20  # bytes that the attention scores of one block of queries may take
_SMALLEST_BLOCK = 16  # places: fewer make the products of a block too small to be quick


def _shape(spec: ModelSpec) -> tuple[int, int, int, int, int]:
    """Query heads, widths of all queries and of all keys, of the states and of the feed-forward block."""
    config = spec.transformer
    if isinstance(config, BertConfig):
        width = config.hidden_size
        return config.num_attention_heads, width, width, width, config.intermediate_size
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    return heads, heads * config.head_dim, keys * config.head_dim, config.hidden_size, 2 * config.intermediate_size


def block_size(spec: ModelSpec, texts: int, longest: int) -> int:
    """Places that attention takes at once, so that a block's scores fit into ``SCORES`` if they can."""
    heads = _shape(spec)[0]
    return max(_SMALLEST_BLOCK, min(longest, SCORES // (4 * heads * texts * longest)))


def footprint(spec: ModelSpec, texts: int, longest: int, tokens: int) -> int:
    """About how many bytes a micro-batch takes while it runs, weights aside.

    Attention is padded: it costs what as many texts of the longest's length would.

    Args:
        spec: the model.
        texts: how many.
        longest: tokens of the longest one.
        tokens: of all of them together.
    """
    heads, queries, keys, width, inner = _shape(spec)
    padded = texts * longest
    scores = texts * min(block_size(spec, texts, longest), longest) * longest * (4 * heads + 16)
    # Keys and values are spread, and laid out anew head by head as the queries' results are.
    attention = 4 * padded * (2 * queries + 2 * keys)
    packed = 4 * tokens * (3 * width + 2 * queries + 2 * keys + inner)
    return scores + attention + packed
