"""Windows are the same wherever reading begins, and may be done in any order."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unitvec.bulk import run, work
from unitvec.bulk.finish import finish
from unitvec.bulk.inputs import InputFile
from unitvec.bulk.plan import Plan, Settings
from unitvec.bulk.sources import Source, Wanted
from unitvec.bulk.window import Embedded, Window, embed_window
from unitvec.errors import UnitvecError

KINDS = ("parquet", "jsonl", "jsonl.gz", "csv", "txt")


def _texts(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return ["é" * chance.choice((0, 1, 50, 3000)) + f" {number}" for number in range(count)]


def _write(folder: Path, kind: str, texts: list[str]) -> Path:
    path = folder / f"{len(texts)}.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"n": range(len(texts)), "text": texts}), path, row_group_size=300)
    elif kind == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("n", "text"), *((n, f'{text}\n"') for n, text in enumerate(texts))])
    elif kind == "txt":
        path.write_text("\r\n".join(texts))
    else:
        lines = "".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(texts))
        path.write_bytes(gzip.compress(lines.encode()) if kind.endswith("gz") else lines.encode())
    return path


def _source(folder: Path, kind: str, rows: int) -> Source:
    files = [_write(folder, kind, _texts(seed, count)) for seed, count in enumerate((900, 1, 1300))]
    name = {"txt": "lines", "jsonl.gz": "jsonl"}.get(kind, kind)
    return Source(list(map(str, files)), name, Wanted("text", () if kind == "txt" else ("n",), rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [7, 256, 1000])
def test_from_any_place_on_they_are_the_same(tmp_path: Path, kind: str, rows: int) -> None:
    source = _source(tmp_path, kind, rows)
    windows = list(source.windows())
    assert [window.number for window in windows] == list(range(len(windows)))
    assert sum(len(window.texts) for window in windows) == 2201
    assert max(len(window.texts) for window in windows) <= rows
    for begin in (*range(min(len(windows), 4)), len(windows) - 1):
        assert list(source.windows(begin, windows[begin].start)) == windows[begin:]
    assert list(source.windows(len(windows), windows[-1].end)) == []
    shares = [source.share(window.end) for window in windows]
    assert shares == sorted(shares) if kind != "jsonl.gz" else shares == [None] * len(windows)


def test_a_window_of_long_texts_has_few(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("\n".join("word " * 60_000 for _ in range(10)))
    windows = Source([str(path)], "lines", Wanted("text", (), 4096)).windows()
    assert [len(window.texts) for window in windows] == [4, 4, 2]


def _embed(texts: Sequence[str]) -> Embedded:
    """A model that counts characters, and refuses some."""
    counts = [[len(text), text.count("é")] for text in texts]
    refused = {index: "no" for index, text in enumerate(texts) if text.endswith("7")}
    return Embedded(np.array(counts, np.float32).reshape(-1, 2), sum(map(len, texts)), refused)


def test_in_any_order_they_give_the_same(tmp_path: Path) -> None:
    source = _source(tmp_path, "jsonl", 100)
    settings = Settings("jsonl", "text", ("n",), 100)
    plan = Plan("m", "0" * 64, tuple(map(InputFile.of, source.files)), settings)
    texts = [text for window in source.windows() for text in window.texts]
    outputs = []
    for seed in range(3):
        output = tmp_path / f"{seed}.npy"
        chance = random.Random(seed)
        with work.opened(output, plan, restart=False) as parts:
            some = [window for window in source.windows() if chance.random() < 0.6]
            chance.shuffle(some)
            for window in some:
                parts.write(embed_window(window, _embed))
        with work.opened(output, plan, restart=False) as parts:
            rest: list[Window] = list(run.missing(source, parts))
            assert {window.number for window in (*some, *rest)} == set(range(len(list(source.windows()))))
            assert not {window.number for window in rest} & {window.number for window in some}
            for window in rest:
                parts.write(embed_window(window, _embed))
            whole = finish(parts, output, source.files, width=2, dtype="float32")
        assert whole.rows == 2201
        assert whole.refused == sum(text.endswith("7") for text in texts)
        outputs.append(np.load(output))
    assert np.array_equal(outputs[0], outputs[1], equal_nan=True)
    assert np.array_equal(outputs[0], outputs[2], equal_nan=True)
    wanted = np.array([[np.nan] * 2 if text.endswith("7") else [len(text), text.count("é")] for text in texts])
    assert np.array_equal(outputs[0], wanted, equal_nan=True)


def test_a_damaged_part_is_named_and_made_again(tmp_path: Path) -> None:
    source = _source(tmp_path, "txt", 500)
    plan = Plan("m", "0" * 64, tuple(map(InputFile.of, source.files)), Settings("lines", "text", (), 500))
    output = tmp_path / "v.npy"
    with work.opened(output, plan, restart=False) as parts:
        for window in source.windows():
            parts.write(embed_window(window, _embed))
        path = parts.folder / "000000001.npz"
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(UnitvecError, match=r"000000001\.npz is damaged: delete it"):
            finish(parts, output, source.files, width=2, dtype="float32")
        assert not output.exists()
        path.unlink()
        assert [window.number for window in run.missing(source, parts)] == [1]
