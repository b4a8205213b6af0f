from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

_LOAD = """
import sys
from pathlib import Path
from unitvec import pages
from unitvec.checkpoint import gguf
from unitvec.serving.model import LoadedModel
small, large = (gguf.read(Path(path)) for path in sys.argv[1:])
first = LoadedModel(small, threads=1, cache_dir=None)
del large
pages.collect()
before = pages.resident()
model = LoadedModel(gguf.read(Path(sys.argv[2])), threads=1, cache_dir=None)
pages.collect()
print(model.bytes, model.lanes.resident_bytes, pages.resident() - before)
"""


def write(path: Path, words: int) -> Path:
    """A BERT of one layer with a large vocabulary."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "bert")
    shape = {"block_count": 1, "context_length": 32, "embedding_length": 32, "feed_forward_length": 32,
             "attention.head_count": 2, "pooling_type": 1}  # fmt: skip
    for key, value in shape.items():
        writer.add_uint32(f"bert.{key}", value)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(["[UNK]", *(f"\N{LOWER ONE EIGHTH BLOCK}word{number}" for number in range(1, words))])
    for name in ("unknown", "bos", "eos"):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", 0)
    q4 = gguf.GGMLQuantizationType.Q4_0
    table = gguf.quants.quantize(rng.standard_normal((words, 32), dtype=np.float32), q4)
    writer.add_tensor("token_embd.weight", table, raw_dtype=q4)
    writer.add_tensor("position_embd.weight", np.ones((32, 32), np.float32))
    writer.add_tensor("token_types.weight", np.ones((2, 32), np.float32))
    linear = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
    for name in linear:
        writer.add_tensor(f"blk.0.{name}.weight", np.ones((32, 32), np.float32))
    norms = ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm")
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    for name in (*norms, *(f"blk.0.{name}" for name in linear)):
        writer.add_tensor(f"{name}.bias", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_model_tells_what_it_takes_in_memory(tmp_path: Path) -> None:
    files = write(tmp_path / "small.gguf", 100), write(tmp_path / "large.gguf", 400_000)
    run = subprocess.run([sys.executable, "-c", _LOAD, *files], capture_output=True, check=True)
    told, weights, took = map(int, run.stdout.split())
    assert weights > 400_000 * 32 * 2
    assert took > 1.5 * weights  # the tokenizer of such a model is larger than its weights
    assert 0.85 * took < told < 1.15 * took
