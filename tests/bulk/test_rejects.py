"""Rows that cannot be embedded, and commands that cannot be done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Embed = Callable[..., subprocess.CompletedProcess[bytes]]

LINES = [
    b'{"id": 0, "text": "fine"}',
    b'{"id": 1, "text": null}',
    b'{"id": 2, "text": 7}',
    b"not json",
    b'{"id": 4, "text": "\xff"}',
    b'{"id": 5, "text": "' + b"word " * 400 + b'"}',
    b'["text"]',
    b'{"id": 7, "text": ""}',
]
REFUSED = [1, 2, 3, 4, 5, 6]


def _rejects(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_has_a_reason_and_keeps_its_place(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "another file"}\n')
    (tmp_path / "b.jsonl").write_bytes(b"\n".join(LINES))
    arguments = ["--input", "a.jsonl", "--input", "b.jsonl", "--no-truncate", "--window", "3"]
    result = embed(*arguments, "--carry", "id", "--output", "v.parquet")
    assert result.returncode == 3
    assert b"6 rows could not be embedded: v.parquet.rejects.jsonl says why" in result.stderr
    rejects = _rejects(tmp_path / "v.parquet.rejects.jsonl")
    assert [reject["row"] for reject in rejects] == [row + 1 for row in REFUSED]
    assert [(reject["file"], reject["file_row"]) for reject in rejects] == [("b.jsonl", row) for row in REFUSED]
    reasons = [str(reject["reason"]) for reject in rejects]
    for reason, said in zip(
        reasons,
        ["no 'text'", "not text but a number", "not JSON", "not JSON", "exceeds the context length", "an array"],
        strict=True,
    ):
        assert said in reason
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["id"].to_pylist() == [None, 0, 1, 2, None, None, 5, None, 7]
    assert [row + 1 for row in REFUSED] == [n for n, v in enumerate(table["embedding"].to_pylist()) if v is None]

    assert embed(*arguments, "--output", "v.npy").returncode == 3
    array = np.load(tmp_path / "v.npy")
    assert np.flatnonzero(np.isnan(array).all(axis=1)).tolist() == [row + 1 for row in REFUSED]
    assert np.isfinite(array).all(axis=1).sum() == 3


def test_parquet_of_nulls_and_bytes(embed: Embed, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([b"a", None, b"\xff"])}), tmp_path / "rows.parquet")
    assert embed("--input", "rows.parquet", "--output", "v.npy").returncode == 3
    reasons = [reject["reason"] for reject in _rejects(tmp_path / "v.npy.rejects.jsonl")]
    assert reasons == ["null", "not UTF-8"]


def test_damaged_csv_rows_are_rows(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"id,text\n1,a\n2,b,c\n3,\xff\n4,d\n")
    assert embed("--input", "rows.csv", "--carry", "id", "--output", "v.jsonl").returncode == 3
    reasons = [reject["reason"] for reject in _rejects(tmp_path / "v.jsonl.rejects.jsonl")]
    assert reasons == ["not CSV: 3 fields where the header has 2", "not UTF-8"]
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [line.get("id") for line in lines] == ["1", None, "3", "4"]


def test_fail_fast_names_the_row(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b"\n".join(LINES))
    result = embed("--input", "b.jsonl", "--output", "v.npy", "--fail-fast")
    assert result.returncode == 1
    assert result.stderr.decode().splitlines()[-1] == "Error: row 1 of b.jsonl: no 'text'"
    assert not (tmp_path / "v.npy").exists()


def test_rejects_of_an_earlier_run_do_not_stay(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": 1}')
    assert embed("--input", "rows.jsonl", "--output", "v.npy").returncode == 3
    (tmp_path / "rows.jsonl").write_text('{"text": "1"}')
    assert embed("--input", "rows.jsonl", "--output", "v.npy", "--restart").returncode == 0
    assert not (tmp_path / "v.npy.rejects.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "wrong"),
    [
        (["--input", "rows.jsonl"], 2, "--input and --output go together"),
        (["--column", "x", "a text"], 2, "--column is for files"),
        (["--input", "rows.jsonl", "--output", "v.npy", "a text"], 2, "no texts as arguments"),
        (["--input", "rows.jsonl", "--output", "v.npy", "--column", "x"], 2, "--field is for JSON lines"),
        (["--input", "rows.jsonl", "--output", "v.bin"], 1, "its name must end in .parquet"),
        (["--input", "none.jsonl", "--output", "v.npy"], 1, "no such file: none.jsonl"),
        (["--input", ".", "--output", "v.npy"], 1, "files of one kind at a time"),
        (["--input", "notes.md", "--output", "v.npy"], 1, "Say it with --input-format"),
        (["--input", "rows.csv", "--output", "v.npy"], 1, "rows.csv has no column 'text': it has 'a', 'b'"),
        (["--input", "rows.jsonl", "--input-format", "parquet", "--output", "v.npy"], 1, "cannot read rows.jsonl"),
        (["--input", "rows.jsonl", "--output", "v.jsonl", "--carry", "embedding"], 1, "cannot be carried"),
        (["--input", "rows.jsonl", "--output", "/proc/v.npy"], 1, "cannot write to"),
        (["--input", "rows.jsonl", "--output", "v.npy", "--carry", "id"], 1, "an array holds vectors only"),
        (["--input", "cut.jsonl.gz", "--output", "v.npy"], 1, "cut.jsonl.gz is damaged"),
    ],
)
def test_a_mistake_is_one_line(
    embed: Embed, rows: Path, tmp_path: Path, arguments: list[str], status: int, wrong: str
) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    result = embed(*arguments)
    assert result.returncode == status
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("Error: ")
    assert wrong.lower() in last.lower()
    assert not (tmp_path / "v.npy").exists()


def test_parquet_columns_must_be_there_and_fit(embed: Embed, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "n": ["1"]}), tmp_path / "b.parquet")
    for arguments, wrong in (
        (["--column", "body"], "a.parquet has no column 'body': it has 'text', 'n'"),
        (["--column", "n"], "column 'n' of a.parquet holds int64, not text"),
        (["--carry", "n"], "b.parquet has other columns than a.parquet: n: string; n: int64"),
    ):
        result = embed("--input", "*.parquet", "--output", "v.jsonl", *arguments)
        assert result.returncode == 1
        assert wrong in result.stderr.decode()


def test_without_pyarrow_the_extra_is_named(all_minilm: str, rows: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None; from unitvec.cli import main; "
        f"sys.argv = ['unitvec', 'embed', 'all-minilm', '--input', {str(rows)!r}, '--output', sys.argv[1]]; main()"
    )
    for name, status in (("v.parquet", 1), ("v.npy", 0)):
        result = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, check=False)
        assert result.returncode == status, result.stderr
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "v.parquet")], capture_output=True, check=False)
    assert result.stderr.decode() == "Error: Parquet files need pyarrow: pip install 'unitvec[bulk]'\n"
