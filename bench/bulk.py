"""`unitvec embed --input` against onnxruntime alone on the same file, and the memory it takes for files of any size.

    python bench/bulk.py speed [--rows 200000] [--model all-minilm] [--json FILE]
    python bench/bulk.py memory [--rows 10000,1000000] [--json FILE]

speed: a Parquet file of short texts, none twice. onnxruntime runs it as in `yardstick.py`: token ids ready, all rows
sorted by length, the better of two batch sizes. Its rows are dealt out to two halves, one of which runs before the
command and one behind it, so that a machine that changes its pace hits both. The command is the whole program in a
process of its own; what it takes for a file of one row (Python, the model) is its start, and is not counted. Reading,
tokenizing, writing parts and making the output are. Beside it stands what onnxruntime does with batches side by side,
each on a core of its own, as the command runs them; that is measured on a quarter of the rows.

memory: the peak of the resident memory of the command's process on files of so many rows, with a model so small that
a million rows take no hours.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers

from servers import write_report
from unitvec.bench.texts import Texts
from yardstick import SIZES, Yardstick

_CHUNK = 10_000  # rows that are written, and tokenized, at a time
_TRIAL = 500  # rows that tell which batch size is the better one


def write_rows(path: Path, count: int) -> None:
    """A Parquet file of numbered short texts, as large row groups as its writer makes by itself."""
    texts = Texts(count)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        tables = []
        for first in range(0, count, _CHUNK):
            some = texts.take("short", min(_CHUNK, count - first))
            tables.append(pa.table({"id": np.arange(first, first + len(some)), "text": some}, schema))
        writer.write_table(pa.concat_tables(tables))


def command(model: str, rows: Path, output: Path) -> list[str]:
    arguments = ["--input", str(rows), "--output", str(output), "--carry", "id", "--restart"]
    return [sys.executable, "-m", "unitvec", "embed", model, *arguments]


def seconds(model: str, rows: Path, output: Path) -> float:
    began = time.perf_counter()
    subprocess.run(command(model, rows, output), check=True)
    return time.perf_counter() - began


def speed(model: str, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        rows, one, output = Path(folder, "rows.parquet"), Path(folder, "one.parquet"), Path(folder, "out.parquet")
        write_rows(rows, count)
        write_rows(one, 1)
        yardstick = Yardstick(model)
        ids = sorted((one for texts in _texts(rows) for one in yardstick.encode(texts)), key=len)
        trial = ids[:: max(1, len(ids) // _TRIAL)]
        size = max(SIZES, key=lambda size: yardstick.throughput(trial, size))
        tokens = sum(map(len, ids))
        start = min(seconds(model, one, output) for _ in range(3))
        beside = yardstick.throughput_side_by_side(ids[::8], SIZES[0])
        before = yardstick.throughput(ids[::2], size)
        took = seconds(model, rows, output) - start
        behind = yardstick.throughput(ids[1::2], size)
        beside = (beside + yardstick.throughput_side_by_side(ids[4::8], SIZES[0])) / 2
        own = tokens / (sum(map(len, ids[::2])) / before + sum(map(len, ids[1::2])) / behind)
        assert pq.read_metadata(output).num_rows == count
    return {
        "rows": count,
        "tokens": tokens,
        "onnxruntime, tokens/s": own,
        "onnxruntime before, tokens/s": before,
        "onnxruntime behind, tokens/s": behind,
        "unitvec embed, tokens/s": tokens / took,
        "unitvec embed, seconds": took,
        "its start, seconds": start,
        "share": tokens / took / own,
        "onnxruntime side by side, tokens/s": beside,
        "share of that": tokens / took / beside,
    }


def _texts(rows: Path) -> Iterator[list[str]]:
    with pq.ParquetFile(rows) as file:
        for batch in file.iter_batches(_CHUNK, columns=["text"]):
            yield batch.column("text").to_pylist()


def memory(counts: list[int]) -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A store of its own, and no server that could have another.
        os.environ |= {"UNITVEC_HOME": str(folder / "home"), "OLLAMA_MODELS": "", "OLLAMA_HOST": "127.0.0.1:1"}
        write_model(folder / "tiny")
        create = [sys.executable, "-m", "unitvec", "create", "tiny", "--from", str(folder / "tiny")]
        subprocess.run(create, check=True)
        rows, output = folder / "rows.parquet", folder / "out.parquet"
        write_rows(rows, 1)
        peak("tiny", rows, output)  # builds the graph, which later runs only load
        for count in counts:
            # Not in this process: what starts another hands its own peak on to it.
            writer = multiprocessing.get_context("spawn").Process(target=write_rows, args=(rows, count))
            writer.start()
            writer.join()
            figures[f"{count} rows, peak MB"] = peak("tiny", rows, output) / 1e6
            print(f"{count:>9,} rows: {figures[f'{count} rows, peak MB']:,.0f} MB", flush=True)
    peaks = list(figures.values())
    figures["largest / smallest"] = max(peaks) / min(peaks)
    return figures


def peak(model: str, rows: Path, output: Path) -> int:
    """Bytes that the command's process had in memory at its largest."""
    process = subprocess.Popen(command(model, rows, output))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_model(folder: Path) -> None:
    """One layer of a BERT of random weights, as sentence-transformers saves it; its words are those of the texts."""
    width, inner, longest = 64, 128, 256
    words = sorted({word for text in Texts(0).take("short", 20_000) for word in text.split()})
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = {
        "model_type": "bert", "vocab_size": len(vocabulary), "hidden_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": inner, "max_position_embeddings": longest,
    }  # fmt: skip
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    tokenizer.save(str(folder / "tokenizer.json"))
    layer = "encoder.layer.0."
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(vocabulary), width),
        "embeddings.position_embeddings.weight": (longest, width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    for norm in ("embeddings.LayerNorm", f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    products = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    products |= {"attention.output.dense": (width, width)}
    products |= {"intermediate.dense": (inner, width), "output.dense": (width, inner)}
    for name, shape in products.items():
        shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
    chance, header, data = np.random.default_rng(0), {}, b""
    for name, shape in shapes.items():
        weights = chance.standard_normal(shape).astype(np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(weights)]}
        data += weights
    described = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(described).to_bytes(8, "little") + described + data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--rows", help="how many; for memory several, with commas between")
    parser.add_argument("--model", default="all-minilm", help="whose speed")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.what == "speed":
        figures = speed(asked.model, int(asked.rows or 200_000))
    else:
        figures = memory([int(count) for count in (asked.rows or "10000,1000000").split(",")])
    for name, value in figures.items():
        print(f"{name:<40} {value:>14,.4g}")
    if asked.json:
        write_report(asked.json, **{asked.what: figures})


if __name__ == "__main__":
    main()
