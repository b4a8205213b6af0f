"""What goes in, and what comes out."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import unitvec

Embed = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def wanted(all_minilm: str, texts: list[str]) -> np.ndarray:
    """The vectors of the texts, embedded the usual way."""
    with unitvec.load(all_minilm) as model:
        return model.embed(texts)


def _ok(result: subprocess.CompletedProcess[bytes]) -> None:
    assert result.returncode == 0, result.stderr.decode()


def test_parquet_with_columns_of_many_types(embed: Embed, tmp_path: Path, texts: list[str], wanted: np.ndarray) -> None:
    count = len(texts)
    table = pa.table(
        {
            "id": pa.array(range(count), pa.int32()),
            "text": pa.array(texts, pa.large_string()).dictionary_encode(),
            "at": pa.array(range(count), pa.timestamp("us", "UTC")),
            "tags": pa.array([["a"] * (n % 3) for n in range(count)]),
            "unused": pa.array([b"x"] * count),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=130)
    asked = ["--input", "rows.parquet", "--carry", "id", "--carry", "at", "--carry", "tags", "--window", "100"]
    _ok(embed(*asked, "--output", "vectors.parquet"))
    found = pq.read_table(tmp_path / "vectors.parquet")
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), 384)
    assert found.select(["id", "at", "tags"]).equals(table.select(["id", "at", "tags"]))
    vectors = found["embedding"].combine_chunks().flatten().to_numpy().reshape(count, 384)
    assert vectors == pytest.approx(wanted, abs=1e-5)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["rows.parquet", "vectors.parquet"]


def test_json_lines_to_each_output(embed: Embed, rows: Path, tmp_path: Path, wanted: np.ndarray) -> None:
    _ok(embed("--input", rows, "--output", "v.jsonl", "--carry", "id"))
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(len(wanted)))
    vectors = np.array([line["embedding"] for line in lines], np.float32)
    assert vectors == pytest.approx(wanted, abs=1e-5)

    _ok(embed("--input", rows, "--output", "v.npy"))
    array = np.load(tmp_path / "v.npy")
    assert array.dtype == np.float32
    assert np.array_equal(array, vectors)  # bit for bit: the same texts ran together

    _ok(embed("--input", rows, "--output", "half.parquet", "--dtype", "float16", "--dimensions", "64"))
    column = pq.read_table(tmp_path / "half.parquet")["embedding"].combine_chunks()
    assert column.type == pa.list_(pa.float16(), 64)
    short = wanted[:, :64] / np.linalg.norm(wanted[:, :64], axis=1, keepdims=True)
    assert column.flatten().to_numpy().reshape(-1, 64).astype(np.float32) == pytest.approx(short, abs=1e-3)


def test_fields_of_any_json_become_columns(embed: Embed, tmp_path: Path) -> None:
    values = [
        {"doc": {"text": "one"}, "n": 1, "mixed": 1, "object": {"a": 1}},
        {"doc": {"text": "two"}, "n": 2.5, "mixed": "b", "list": ["x"]},
        {"doc": {"text": "three"}, "n": None, "mixed": None, "object": {"b": [2]}},
    ]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(map(json.dumps, values)))
    carried = ["n", "mixed", "object", "list"]
    arguments = [argument for name in carried for argument in ("--carry", name)]
    _ok(embed("--input", "rows.jsonl", "--field", "doc.text", "--window", "1", *arguments, "--output", "v.parquet"))
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["n"].to_pylist() == [1.0, 2.5, None]
    assert table["list"].to_pylist() == [None, ["x"], None]
    assert table["mixed"].cast(pa.string()).to_pylist() == ["1", '"b"', None]
    assert table["object"].cast(pa.string()).to_pylist() == ['{"a":1}', None, '{"b":[2]}']
    assert pq.read_schema(tmp_path / "v.parquet").names == [*carried, "embedding"]


def test_csv_with_quotes_and_line_ends_in_it(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(
        b'\xef\xbb\xbfname,text\r\n"a, b","first\r\nline ""two"""\r\nc,\r\n\r\nd,third\r\n'
    )
    _ok(embed("--input", "rows.csv", "--carry", "*", "--output", "v.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [(line["name"], line["text"]) for line in lines] == [
        ("a, b", 'first\r\nline "two"'),
        ("c", ""),
        ("d", "third"),
    ]
    assert all(len(line["embedding"]) == 384 for line in lines)


def test_folders_patterns_and_compressed_files_in_order(
    embed: Embed, tmp_path: Path, texts: list[str], wanted: np.ndarray
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "1.txt").write_text("\n".join(texts[:5]))
    (folder / "0.txt.gz").write_bytes(gzip.compress("\n".join(texts[5:10]).encode()))
    with pa.CompressedOutputStream(str(folder / "2.txt.zst"), "zstd") as file:
        file.write("\n".join(texts[10:12]).encode())
    (folder / ".hidden.txt").write_text("no")
    (folder / "notes.md").write_text("no")
    _ok(embed("--input", "shards", "--output", "shards/v.npy", "--window", "3"))
    order = [5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 10, 11]
    assert np.load(folder / "v.npy") == pytest.approx(wanted[order], abs=1e-5)
    _ok(embed("--input", "shards/[01]*", "--output", "v.npy"))
    assert np.load(tmp_path / "v.npy") == pytest.approx(wanted[order[:10]], abs=1e-5)


def test_standard_input_to_standard_output(embed: Embed, tmp_path: Path, texts: list[str], wanted: np.ndarray) -> None:
    given = "\n".join(json.dumps({"t": text}) for text in texts[:10]) + '\n{"t": 1}'
    result = embed("--input", "-", "--field", "t", "--output", "-", "--window", "4", input=given.encode())
    assert result.returncode == 3
    vectors = [json.loads(line)["embedding"] for line in result.stdout.splitlines()]
    assert np.array(vectors[:10]) == pytest.approx(wanted[:10], abs=1e-5)
    assert vectors[10:] == [None]
    assert b'{"row":10,"file":"-","file_row":10,"reason":"not text but a number"}' in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_equal_texts_run_once(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("the same\n" * 500)
    result = embed("--input", "rows.txt", "--output", "v.npy", "--window", "250")
    assert b"500 rows, 2 different texts; 8 tokens" in result.stderr
    assert len(np.unique(np.load(tmp_path / "v.npy"), axis=0)) == 1


def test_no_rows(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("")
    for name in ("v.npy", "v.parquet", "v.jsonl"):
        _ok(embed("--input", "rows.txt", "--output", name))
    assert np.load(tmp_path / "v.npy").shape == (0, 384)
    assert pq.read_table(tmp_path / "v.parquet").num_rows == 0
    assert (tmp_path / "v.jsonl").read_bytes() == b""
