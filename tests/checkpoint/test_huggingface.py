from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.store.tiny_model import write_model_folder
from unitvec.checkpoint import huggingface, safetensors
from unitvec.errors import InvalidCheckpoint, InvalidRequest
from unitvec.serving.model import LoadedModel, context_limit

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
NORMALIZE = {"path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model_folder(tmp_path / "model")


def refused(folder: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as error:
        _ = huggingface.read(folder).tokenizer
    assert "\n" not in error.value.message
    assert len(error.value.message) < 600
    return error.value.message


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, data = {}, b""
    for name, array in tensors.items():
        raw = array.astype(np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    described = json.dumps(header).encode()
    path.write_bytes(len(described).to_bytes(8, "little") + described + data)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(tensor) for name, tensor in safetensors.read(folder / "model.safetensors")[0].items()}


def change(path: Path, **settings: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in (content | settings).items() if value is not ...}))


def with_dense(folder: Path, modules: list[dict[str, str]], **settings: Any) -> Path:
    (folder / "2_Dense").mkdir()
    linear = {"in_features": 8, "out_features": 4, "bias": False}
    change(folder / "2_Dense" / "config.json", **linear | settings)
    write(folder / "2_Dense" / "model.safetensors", {"linear.weight": np.ones((4, 8))})
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_weights_that_the_model_would_leave_out_are_refused(folder: Path) -> None:
    whole = weights(folder)
    for name in ("encoder.layer.1.output.dense.weight", "encoder.layer.0.attention.self.query.extra", "head.weight"):
        write(folder / "model.safetensors", whole | {name: np.zeros(3)})
        assert f"'{name}' does not belong" in refused(folder)


def test_weights_that_are_known_to_be_of_no_use_are_left_out(folder: Path) -> None:
    more = {"pooler.dense.weight": np.zeros((8, 8)), "embeddings.position_ids": np.zeros((1, 32))}
    write(folder / "model.safetensors", weights(folder) | more)
    assert "pooler.dense.weight" not in huggingface.read(folder).tensors


def test_one_weight_under_two_names_is_refused(folder: Path) -> None:
    whole = weights(folder)
    write(folder / "model.safetensors", whole | {"bert.embeddings.LayerNorm.bias": np.zeros(8)})
    assert "'embeddings.LayerNorm.bias' twice" in refused(folder)


def test_shards_that_lack_what_the_index_lists_are_refused(folder: Path) -> None:
    whole = weights(folder)
    (folder / "model.safetensors").unlink()
    names = list(whole)
    where = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(names)}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    write(folder / "part-0.safetensors", {name: whole[name] for name in names[::2]})
    assert "part-1.safetensors" in refused(folder)
    write(folder / "part-1.safetensors", {name: whole[name] for name in names[3::2]})
    assert f"part-1.safetensors: it lacks {names[1]!r}" in refused(folder)
    write(folder / "part-1.safetensors", {name: whole[name] for name in names[1::2]})
    assert set(huggingface.read(folder).tensors) == set(names)
    for broken in ("[]", "{", '{"weight_map": []}', '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": 1}}', "{}"):
        index.write_text(broken)
        assert refused(folder)


def test_dense_heads_behind_pooling_run(folder: Path) -> None:
    with_dense(folder, [TRANSFORMER, POOLING, DENSE, NORMALIZE])
    spec = huggingface.read(folder).spec
    assert [(head.in_features, head.out_features, head.activation) for head in spec.dense] == [(8, 4, "tanh")]


@pytest.mark.parametrize(
    "modules",
    [
        [TRANSFORMER, POOLING, NORMALIZE, DENSE],
        [TRANSFORMER, DENSE, POOLING],
        [TRANSFORMER, POOLING, POOLING],
        [TRANSFORMER, NORMALIZE],
        [POOLING, TRANSFORMER],
        [TRANSFORMER, POOLING, {"path": "2_Dense", "type": "sentence_transformers.models.LayerNorm"}],
    ],
)
def test_modules_in_another_order_are_refused(folder: Path, modules: list[dict[str, str]]) -> None:
    with_dense(folder, modules)
    kinds = [module["type"].rsplit(".", 1)[1] for module in modules]
    message = refused(folder)
    assert f"the modules {', '.join(kinds)} are not supported" in message.replace(", Normalize are", " are") or (
        kinds[-1] == "Normalize" and "the modules Transformer are not supported" in message
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.Sigmoid"}, "Sigmoid' is not supported; supported: torch"),
        ({"activation_function": "gelu"}, "'gelu' is not supported"),
        ({"activation_function": ["a"]}, "is not supported"),
        ({"module_input_name": "token_embeddings"}, "module_input_name 'token_embeddings' is not supported"),
        ({"use_residual": True}, "use_residual is not supported"),
        ({"in_features": 9}, "'dense.0.linear.weight' is [4, 8] where the settings say [4, 9]"),
        ({"bias": True}, "'dense.0.linear.bias' is missing"),
        ({"out_features": ...}, "lack 'out_features'"),
    ],
)
def test_dense_heads_that_are_not_supported_are_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with_dense(folder, [TRANSFORMER, POOLING, DENSE], **settings)
    assert message in refused(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": ["bert"]}, "is not supported"),
        ({"model_type": "x" * 5000}, "is not supported"),
        ({"hidden_size": ...}, "hidden_size is missing"),
        ({"hidden_size": "8"}, "hidden_size is 8"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 3}, "3 heads do not divide the width 8"),
        ({"num_hidden_layers": 1 << 24}, "'encoder.layer.1.attention.self.query.weight' is missing"),
        ({"num_hidden_layers": 1e300}, "num_hidden_layers is"),
        ({"max_position_embeddings": ...}, "max_position_embeddings is missing"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
        ({"hidden_act": "quick_gelu"}, "hidden_act 'quick_gelu' is not supported; supported: gelu"),
        ({"hidden_act": {}}, "hidden_act '{}' is not supported"),
        ({"is_decoder": True}, "is_decoder True is not supported"),
        ({"layer_norm_eps": None}, "layer_norm_eps is None"),
        ({"layer_norm_eps": 0}, "layer_norm_eps is 0"),
        ({"model_type": "qwen3", "num_key_value_heads": 2, "rope_theta": -1.0}, "rope_theta is -1.0"),
        ({"model_type": "qwen3", "num_key_value_heads": 2, "rope_parameters": {"rope_theta": 0}}, "rope_theta is 0"),
        ({"model_type": "qwen3", "num_key_value_heads": 2, "rope_parameters": []}, "'embed_tokens.weight' is missing"),
        ({"model_type": "qwen3", "num_key_value_heads": 2, "rope_parameters": "a"}, "settings"),
        ({"model_type": "xlm-roberta", "pad_token_id": None}, "settings"),
        ({"model_type": "xlm-roberta", "pad_token_id": 40}, "max_position_embeddings is 32"),
        ({"model_type": "qwen3", "num_key_value_heads": 0}, "num_key_value_heads is 0"),
    ],
)
def test_settings_that_lie_are_refused_in_one_line(folder: Path, settings: dict[str, Any], message: str) -> None:
    change(folder / "config.json", **settings)
    assert message in refused(folder)


@pytest.mark.parametrize("content", ["", "[]", "1", "null", '"a"', "{}", "[{}]", "[[]]", '[{"type": 1, "path": 2}]'])
@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json", "tokenizer.json"])
def test_files_of_another_kind_are_refused_in_one_line(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert refused(folder)


def test_weights_files_that_lie_are_refused_in_one_line(folder: Path) -> None:
    path = folder / "model.safetensors"
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    wrong: list[dict[str, Any]] = [
        {"dtype": ["F32"]}, {"dtype": "F8"}, {"shape": 3}, {"shape": [-1, -2]}, {"shape": [2.5]}, {"shape": ["a"]},
        {"data_offsets": [0.0, 8.0]}, {"data_offsets": [0]}, {"data_offsets": [8, 0]}, {"data_offsets": [0, 1 << 62]},
        {"shape": [1 << 62, 1 << 62]},
    ]  # fmt: skip
    for one in wrong:
        described = json.dumps({"a" * 9000: entry | one}).encode()
        path.write_bytes(len(described).to_bytes(8, "little") + described + bytes(8))
        assert refused(folder)
    described = b"{}"
    path.write_bytes(len(described).to_bytes(8, "little") + described)
    assert "is missing" in refused(folder)


def context(folder: Path, *, asked: int | None = None, parameters: dict[str, int] | None = None) -> int:
    model = LoadedModel(huggingface.read(folder), threads=1, cache_dir=None)
    return context_limit(model, parameters or {}, asked, 4096)


def test_texts_are_cut_where_sentence_transformers_cuts_them(folder: Path) -> None:
    assert context(folder) == 32
    change(folder / "tokenizer_config.json", model_max_length=10**30)
    assert context(folder) == 32
    change(folder / "tokenizer_config.json", model_max_length=20)
    assert context(folder) == 20
    change(folder / "sentence_bert_config.json", max_seq_length=None)
    assert context(folder) == 20
    change(folder / "sentence_bert_config.json", max_seq_length=16)
    assert context(folder) == 16
    assert context(folder, asked=24) == 24
    assert context(folder, asked=64) == 32
    assert context(folder, parameters={"num_ctx": 30}) == 30
    for wrong in (0, -1, "16"):
        change(folder / "sentence_bert_config.json", max_seq_length=wrong)
        assert context(folder) == 32


def test_texts_are_put_in_lower_case_where_the_settings_say_so(folder: Path) -> None:
    unknown = huggingface.read(folder).tokenizer.encode("A").ids
    change(folder / "sentence_bert_config.json", do_lower_case=True)
    tokenizer = huggingface.read(folder).tokenizer
    assert tokenizer.encode("A").ids == tokenizer.encode("a").ids != unknown


def test_a_whole_file_goes_before_an_index(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, other := tmp_path / "other")
    (other / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    assert set(huggingface.read(other).tensors) == set(huggingface.read(folder).tensors)


def test_a_token_that_the_model_has_no_embedding_for_is_the_text_s_error(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["more"] = 4
    content["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(content))
    model = LoadedModel(huggingface.read(folder), threads=1, cache_dir=None)
    assert model.encode(["a"], 8, truncate=True) == [(3,)]
    with pytest.raises(InvalidRequest, match="no embedding for the token 'more'"):
        model.encode(["a more"], 8, truncate=True)
