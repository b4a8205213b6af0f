"""Parts to one file: Parquet, lines of JSON, or an array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from unitvec.bulk import carried
from unitvec.bulk.window import Part, Vectors
from unitvec.errors import InvalidRequest

_SUFFIXES = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy"}
_IN_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS

Parts = Callable[[], Iterator[Part]]  # all parts in order, one at a time in memory; may be called again


def kind_of(output: Path) -> str:
    """``parquet``, ``jsonl`` or ``npy``.

    Raises:
        InvalidRequest: the name says none of them.
    """
    kind = _SUFFIXES.get(output.suffix.lower())
    if kind is None:
        raise InvalidRequest(f"what kind of file is {output} to be? Its name must end in {', '.join(_SUFFIXES)}")
    return kind


def write(kind: str, file: IO[bytes], parts: Parts, rows: int, vectors: Vectors) -> None:
    """Write an output.

    Args:
        kind: as :func:`kind_of` gives it.
        file: where to.
        parts: what of.
        rows: how many they have together.
        vectors: an array [any, width] of the type of all parts' vectors, which may have none.
    """
    if kind == "parquet":
        from unitvec.bulk.parquet_output import write_parquet

        write_parquet(file, parts, vectors)
    elif kind == "jsonl":
        for part in parts():
            file.writelines(json_lines(part))
    else:
        header = {
            "descr": np.lib.format.dtype_to_descr(vectors.dtype),
            "fortran_order": False,
            "shape": (rows, vectors.shape[1]),
        }
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts():
            file.write(np.ascontiguousarray(part.vectors).data)


def json_lines(part: Part) -> Iterator[bytes]:
    """A line for each row: the columns carried along, and the vector, null where there is none."""
    rows = carried.to_rows(part.carried) if part.carried else [{}] * len(part.vectors)
    for number, (row, vector) in enumerate(zip(rows, part.vectors.astype(np.float32), strict=True)):
        value = None if number in part.refused else vector
        yield orjson.dumps({**row, carried.EMBEDDING: value}, default=carried.in_json, option=_IN_JSON)


def write_rejects(file: IO[bytes], parts: Iterable[Part], files: Sequence[str], before: int = 0) -> None:
    """A line of JSON for each row without a vector; ``row`` counts from 0 over the output, ``file_row`` in its file.

    Args:
        file: where to.
        parts: which follow each other.
        files: the input's.
        before: rows before the first of them.
    """
    for part in parts:
        for row, reason in sorted(part.refused.items()):
            value = {
                "row": before + row,
                "file": files[part.start.file],
                "file_row": part.start.row + row,
                "reason": reason,
            }
            file.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
        before += len(part.vectors)
