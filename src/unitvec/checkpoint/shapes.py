"""Which parameters a model has, and a file's weights held against them.

It says once more what the modules of ``unitvec.models`` say, because reading a file must not import the graph
builder; a test holds one against the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from unitvec.models.config import BertConfig, Gemma3Config, ModelSpec, Qwen3Config

Shape = tuple[int, ...]


def parameters(spec: ModelSpec) -> Iterator[tuple[str, Shape]]:
    """Name and shape of each parameter, by checkpoint name; one at a time, as a lying file may promise any number."""
    transformer = spec.transformer
    yield from _bert(transformer) if isinstance(transformer, BertConfig) else _decoder(transformer)
    for number, head in enumerate(spec.dense):
        yield f"dense.{number}.linear.weight", (head.out_features, head.in_features)
        if head.bias:
            yield f"dense.{number}.linear.bias", (head.out_features,)


def check(spec: ModelSpec, found: Mapping[str, Shape], told: Callable[[str], str] = str) -> None:
    """Hold weights against a model: it has to have each of its parameters, in its shape, and no others.

    Args:
        spec: the model.
        found: the weights' shapes, by checkpoint name.
        told: what the file itself calls a weight.

    Raises:
        ValueError: one is missing, has another shape or would be left out, which gives wrong vectors.
    """
    left = set(found)
    for name, shape in parameters(spec):
        if name not in found:
            raise ValueError(f"the weight {told(name)!r} is missing")
        if found[name] != shape:
            raise ValueError(f"the weight {told(name)!r} is {list(found[name])} where the settings say {list(shape)}")
        left.discard(name)
    if left:
        others = f" and {len(left) - 1} others do" if len(left) > 1 else " does"
        raise ValueError(
            f"the weight {told(min(left))[:80]!r}{others} not belong to the model that the settings describe"
        )


def _linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _layer_norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _bert(config: BertConfig) -> Iterator[tuple[str, Shape]]:
    width, inner = config.hidden_size, config.intermediate_size
    yield "embeddings.word_embeddings.weight", (config.vocab_size, width)
    yield "embeddings.position_embeddings.weight", (config.max_position_embeddings, width)
    yield "embeddings.token_type_embeddings.weight", (config.type_vocab_size, width)
    yield from _layer_norm("embeddings.LayerNorm", width)
    for layer in range(config.num_hidden_layers):
        at = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _linear(f"{at}.attention.{name}", width, width)
        yield from _layer_norm(f"{at}.attention.output.LayerNorm", width)
        yield from _linear(f"{at}.intermediate.dense", inner, width)
        yield from _linear(f"{at}.output.dense", width, inner)
        yield from _layer_norm(f"{at}.output.LayerNorm", width)


def _decoder(config: Gemma3Config | Qwen3Config) -> Iterator[tuple[str, Shape]]:
    width, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    norms = ["input_layernorm", "post_attention_layernorm"]
    if isinstance(config, Gemma3Config):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    yield "embed_tokens.weight", (config.vocab_size, width)
    yield "norm.weight", (width,)
    for layer in range(config.num_hidden_layers):
        at = f"layers.{layer}"
        yield f"{at}.self_attn.q_proj.weight", (queries, width)
        yield f"{at}.self_attn.k_proj.weight", (keys, width)
        yield f"{at}.self_attn.v_proj.weight", (keys, width)
        yield f"{at}.self_attn.o_proj.weight", (width, queries)
        yield from ((f"{at}.self_attn.{name}_norm.weight", (head,)) for name in "qk")
        yield f"{at}.mlp.gate_proj.weight", (inner, width)
        yield f"{at}.mlp.up_proj.weight", (inner, width)
        yield f"{at}.mlp.down_proj.weight", (width, inner)
        yield from ((f"{at}.{name}.weight", (width,)) for name in norms)
