from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import tiny
from unitvec.checkpoint import gguf, gguf_file
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import Gemma3Config


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A valid file."""
    return tiny.qwen3().write(tmp_path_factory.mktemp("gguf") / "whole.gguf", "Q8_0").read_bytes()


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    """How bytes are refused, in one line."""

    def read(data: bytes) -> str:
        path = tmp_path / "broken.gguf"
        path.write_bytes(data)
        with pytest.raises(InvalidCheckpoint) as error:
            _ = gguf.read(path).tokenizer
        assert "\n" not in error.value.message
        assert len(error.value.message) < 600
        return error.value.message

    return read


def replaced(data: bytes, key: bytes, value: bytes, skip: int = 4) -> bytes:
    """``data`` with the bytes behind ``key`` and behind ``skip`` more replaced."""
    at = data.index(key) + len(key) + skip
    return data[:at] + value + data[at + len(value) :]


def test_what_is_told_about_a_model(tmp_path: Path) -> None:
    checkpoint = gguf.read(tiny.gemma3().write(tmp_path / "model.gguf", "Q8_0"))
    assert checkpoint.context_length == 256
    assert checkpoint.spec.embedding_length == 32
    assert checkpoint.details.family == "gemma-embedding"
    assert checkpoint.details.quantization_level == "Q8_0"
    assert checkpoint.model_info["general.parameter_count"] == checkpoint.details.parameter_count
    assert checkpoint.model_info["tokenizer.ggml.tokens"] is None
    assert checkpoint.model_info["gemma-embedding.rope.freq_base"] == 50_000.0
    table = next(tensor for tensor in checkpoint.tensor_list if tensor["name"] == "token_embd.weight")
    assert table == {"name": "token_embd.weight", "type": "Q8_0", "shape": [tiny.WIDTH, len(tiny.WORDS)]}
    assert checkpoint.tensors["embed_tokens.weight"].dtype == np.int8
    assert checkpoint.tensors["embed_tokens.scale"].dtype == np.float16


def test_version_2_is_read(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "two.gguf"
    path.write_bytes(whole[:4] + struct.pack("<I", 2) + whole[8:])
    assert gguf.read(path).details.family == "qwen3"


@pytest.mark.parametrize(
    ("version", "message"), [(1, "version 1"), (4, "version 4"), (3 << 24, "big-endian"), (0, "version 0")]
)
def test_other_versions_are_refused(whole: bytes, refused: Callable[[bytes], str], version: int, message: str) -> None:
    assert message in refused(whole[:4] + struct.pack("<I", version) + whole[8:])


def test_a_file_cut_anywhere_is_refused(whole: bytes, refused: Callable[[bytes], str], tmp_path: Path) -> None:
    path = tmp_path / "whole.gguf"
    path.write_bytes(whole)
    header = len(whole) - sum(len(tensor.raw) for tensor in gguf_file.read(path).tensors.values())
    for end in [*range(0, header, 97), *range(header, len(whole), 20011), len(whole) - 40]:
        assert refused(whole[:end])


def test_lies_are_refused(whole: bytes, refused: Callable[[bytes], str]) -> None:
    huge = struct.pack("<Q", 2**60)
    started = time.monotonic()
    assert "does not begin" in refused(b"GGML" + whole[4:])
    assert "tensors" in refused(whole[:8] + huge + whole[16:])
    assert "metadata entries" in refused(whole[:16] + huge + whole[24:])
    assert "ends at" in refused(whole[:24] + huge + whole[32:])
    assert "strings" in refused(replaced(whole, b"tokenizer.ggml.tokens", huge, 8))
    assert "arrays of type" in refused(replaced(whole, b"tokenizer.ggml.tokens", struct.pack("<I", 9), 4))
    assert "does not exist" in refused(replaced(whole, b"qwen3.block_count", struct.pack("<I", 99), 0))
    assert "format 77" in refused(replaced(whole, b"output_norm.weight", struct.pack("<I", 77), 12))
    assert "dimensions" in refused(replaced(whole, b"output_norm.weight", struct.pack("<I", 2**31), 0))
    assert "shape" in refused(replaced(whole, b"output_norm.weight", struct.pack("<Q", 0), 4))
    assert "lies outside" in refused(replaced(whole, b"output_norm.weight", huge, 16))
    assert "lies outside" in refused(replaced(whole, b"output_norm.weight", huge, 4))
    assert "lies outside" in refused(replaced(whole, b"blk.0.attn_norm.weight", struct.pack("<Q", 0), 16))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["block_count", "embedding_length", "feed_forward_length", "attention.head_count"])
def test_numbers_that_the_weights_contradict_are_refused(
    name: str, refused: Callable[[bytes], str], tmp_path: Path
) -> None:
    for wrong in (0, 5, 2**24 + 1):
        model = tiny.qwen3()
        model.metadata[name] = wrong
        assert refused(model.write(tmp_path / "model.gguf").read_bytes())
    model = tiny.qwen3()
    del model.metadata[name]
    assert name in refused(model.write(tmp_path / "model.gguf").read_bytes())


@pytest.mark.parametrize("make", [tiny.bert, tiny.qwen3, tiny.gemma3])
def test_models_without_one_of_their_weights_do_not_run(make: Callable[[], tiny.Tiny], tmp_path: Path) -> None:
    from unitvec.engine.onnx import Engine

    for name in list(make().weights):
        if name.startswith(("blk.1", "blk.2", "blk.3", "blk.4", "blk.5", "blk.6")):
            continue
        if name.startswith("dense_3"):  # without it, it is another model
            continue
        model = make()
        del model.weights[name]
        path = model.write(tmp_path / "model.gguf")
        with pytest.raises(InvalidCheckpoint, match="weight"):
            Engine((one := gguf.read(path)).spec, one.tensors, threads=1, cache_dir=tmp_path)


def test_weights_that_do_not_belong_are_refused(refused: Callable[[bytes], str], tmp_path: Path) -> None:
    model = tiny.qwen3()
    model.weights["blk.0.attn_q.bias2.weight"] = np.zeros(4, np.float32)
    assert "does not belong" in refused(model.write(tmp_path / "model.gguf").read_bytes())


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (tiny.qwen3, "blk.3.attn_norm.weight", "'blk.3.attn_norm.weight' does not belong"),
        (tiny.qwen3, "blk.0.attn_q.bias", "'blk.0.attn_q.bias' does not belong"),
        (tiny.gemma3, "dense_2.weight", "'dense_3.weight' does not belong"),  # taken away
        (tiny.bert, "blk.1.ffn_up.bias", "'blk.1.ffn_up.bias' is missing"),
        (tiny.gemma3, "blk.6.post_ffw_norm.weight", "'blk.6.post_ffw_norm.weight' is missing"),
        (tiny.bert, "token_types.weight", "'token_types.weight' is missing"),
        (tiny.qwen3, "output_norm.weight", "'output_norm.weight' is missing"),
    ],
)
def test_weights_must_be_those_of_the_model(
    make: Callable[[], tiny.Tiny], name: str, message: str, refused: Callable[[bytes], str], tmp_path: Path
) -> None:
    model = make()
    if model.weights.pop(name, None) is None:
        model.weights[name] = np.zeros(tiny.WIDTH, np.float32)
    assert message in refused(model.write(tmp_path / "model.gguf").read_bytes())


def test_fewer_layers_than_are_stored_are_refused(refused: Callable[[bytes], str], tmp_path: Path) -> None:
    model = tiny.qwen3()
    model.metadata["block_count"] = 2
    message = refused(model.write(tmp_path / "model.gguf").read_bytes())
    assert "'blk.2.attn_norm.weight' and 10 others do not belong" in message


def test_weights_that_are_known_to_be_of_no_use_are_left_out(refused: Callable[[bytes], str], tmp_path: Path) -> None:
    model = tiny.qwen3()
    model.weights["output.weight"] = np.zeros((len(tiny.WORDS), tiny.WIDTH), np.float32)
    model.weights["rope_freqs.weight"] = np.ones(8, np.float32)
    assert len(gguf.read(model.write(tmp_path / "model.gguf")).tensors) == len(tiny.qwen3().weights)
    model.weights["rope_freqs.weight"][3] = 2
    assert "rope_freqs" in refused(model.write(tmp_path / "model.gguf").read_bytes())


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (tiny.qwen3, {"rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn', which is not supported"),
        (tiny.qwen3, {"rope.scaling.factor": 4.0}, "rope.scaling.factor is 4.0, which is not supported"),
        (tiny.gemma3, {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}, "factor is 8.0"),
        (tiny.gemma3, {"rope.scale_linear": 2.0}, "rope.scale_linear is 2.0"),
        (tiny.qwen3, {"rope.dimension_count": 8}, "rope.dimension_count is 8, which is not supported"),
        (tiny.qwen3, {"attention.scale": 0.1}, "attention.scale is 0.1"),
        (tiny.bert, {"attention.scale": 0.1}, "attention.scale is 0.1"),
        (tiny.bert, {"attention.causal": True}, "attention.causal is True, which is not supported"),
        (tiny.gemma3, {"attention.causal": True}, "attention.causal is True, which is not supported"),
        (tiny.bert, {"attention.causal": 1}, "attention.causal is 1"),
        (tiny.gemma3, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        (tiny.qwen3, {"attention.sliding_window": 64}, "attention.sliding_window is 64"),
        (tiny.qwen3, {"pooling_type": 0}, "its pooling_type is 0"),
        (tiny.bert, {"pooling_type": 4}, "its pooling_type is 4"),
        (tiny.bert, {"pooling_type": "mean"}, "pooling_type is 'mean'"),
        (tiny.qwen3, {"block_count": 1 << 24}, "'blk.3.attn_q.weight' is missing"),
    ],
)
def test_what_would_change_vectors_and_is_not_carried_out_is_refused(
    make: Callable[[], tiny.Tiny], settings: dict[str, Any], message: str, refused: Callable[[bytes], str],
    tmp_path: Path,
) -> None:  # fmt: skip
    model = make()
    model.metadata |= settings
    assert message in refused(model.write(tmp_path / "model.gguf").read_bytes())


def test_what_asks_for_nothing_is_let_through(tmp_path: Path) -> None:
    nothing = {
        "rope.dimension_count": tiny.HEAD, "rope.scaling.type": "none", "rope.scaling.factor": 40.0,
        "attn_logit_softcapping": 0.0, "final_logit_softcapping": 30.0, "attention.scale": tiny.HEAD**-0.5,
    }  # fmt: skip
    for make in (tiny.qwen3, tiny.gemma3):
        model, plain = make(), make()
        model.metadata |= nothing
        spec = gguf.read(model.write(tmp_path / "model.gguf")).spec
        assert spec == gguf.read(plain.write(tmp_path / "plain.gguf")).spec


def test_the_bases_of_older_gemma_files_are_read(tmp_path: Path) -> None:
    model = tiny.gemma3(architecture="gemma3")
    del model.metadata["rope.freq_base"]
    model.metadata |= {"rope.global.freq_base": 77_000.0, "rope.local.freq_base": 7_000.0}
    config = gguf.read(model.write(tmp_path / "model.gguf")).spec.transformer
    assert isinstance(config, Gemma3Config)
    assert (config.rope_theta, config.rope_local_base_freq) == (77_000.0, 7_000.0)


def test_a_gemma_file_s_own_scale_is_carried_out(tmp_path: Path) -> None:
    model = tiny.gemma3()
    model.metadata["attention.scale"] = 24**-0.5
    config = gguf.read(model.write(tmp_path / "model.gguf")).spec.transformer
    assert isinstance(config, Gemma3Config)
    assert config.query_pre_attn_scalar == pytest.approx(24, rel=1e-6)


def test_an_alignment_that_is_none_is_refused_in_few_words(refused: Callable[[bytes], str], tmp_path: Path) -> None:
    path = tiny.qwen3().write(tmp_path / "model.gguf")
    data = path.read_bytes()
    count = struct.unpack_from("<Q", data, 16)[0]
    key = b"general.alignment"
    for kind, value in ((8, struct.pack("<Q", 5000) + b"a" * 5000), (4, struct.pack("<I", 48)), (6, b"\0" * 4)):
        entry = struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value
        message = refused(data[:16] + struct.pack("<Q", count + 1) + entry + data[24:])
        assert "general.alignment is" in message


def test_unsupported_models_are_refused_by_name(refused: Callable[[bytes], str], tmp_path: Path) -> None:
    model = tiny.qwen3()
    model.architecture = "llama"
    message = refused(model.write(tmp_path / "model.gguf").read_bytes())
    assert "'llama' is not supported" in message
    assert "bert, gemma-embedding, gemma3, qwen3" in message
    for name in ("qwen3", "gemma3"):
        model = tiny.qwen3() if name == "qwen3" else tiny.gemma3(architecture="gemma3")
        del model.metadata["pooling_type"]
        message = refused(model.write(tmp_path / "model.gguf").read_bytes())
        assert f"this {name} model generates text" in message
        assert "its pooling_type is missing" in message
        assert "bert, gemma-embedding, gemma3, qwen3" in message


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with a few bytes changed, mostly in its directory, or a piece of it cut out, doubled or swapped."""
    out = bytearray(data)
    reach = len(out) if rng.random() < 0.1 else 6000
    match rng.integers(4):
        case 0:
            for at in rng.integers(0, reach, rng.integers(1, 9)):
                out[at] = rng.integers(256)
        case 1:
            at = int(rng.integers(0, reach))
            numbers = [0, 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1, len(data)]
            out[at : at + 8] = int(numbers[rng.integers(len(numbers))]).to_bytes(8, "little")
        case 2:
            at, size = (int(n) for n in rng.integers(0, reach, 2))
            del out[at : at + size % 64]
        case _:
            at, to = (int(n) for n in rng.integers(0, reach, 2))
            out[to:to] = out[at : at + 32]
    return bytes(out)


def survives(path: Path, data: bytes) -> bool:
    """Whether a file is read; what happens otherwise is one line and quick."""
    path.write_bytes(data)
    started = time.monotonic()
    try:
        checkpoint = gguf.read(path)
        _ = checkpoint.tokenizer
        assert sum(tensor.nbytes for tensor in checkpoint.tensors.values()) < 8 * len(data)
    except InvalidCheckpoint as error:
        assert "\n" not in error.message
        return False
    finally:
        assert time.monotonic() - started < 5
    return True


@pytest.mark.parametrize("count", [1500, pytest.param(100_000, marks=pytest.mark.slow)])
def test_changed_files_are_read_or_refused(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(count)
    files = [
        make().write(tmp_path / "model.gguf", kind).read_bytes()
        for make, kind in ((tiny.qwen3, "Q8_0"), (tiny.bert, "F16"), (tiny.gemma3, "Q4_0"))
    ]
    read = sum(survives(tmp_path / "model.gguf", mutated(files[n % 3], rng)) for n in range(count))
    assert 0 < read < count  # neither trivially valid nor trivially broken
