from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny
from unitvec.checkpoint import gguf, gguf_file
from unitvec.errors import InvalidCheckpoint


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
        if name.startswith("dense"):  # without it, it is another model
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
