"""Columns carried along: bytes of Arrow's stream format where they come from Parquet, else lines of JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING = "embedding"  # the column that the vectors get; another of that name is not carried along
_MARK = b"{"  # how lines of JSON begin, and Arrow's streams do not


def from_rows(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows of JSON values, at least one."""
    return b"\n".join(orjson.dumps({name: value for name, value in row.items() if name != EMBEDDING}) for row in rows)


def from_table(table: pa.Table) -> bytes:
    """A table with its types."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def is_table(carried: bytes) -> bool:
    """Whether there are types with it."""
    return not carried.startswith(_MARK)


def to_table(carried: bytes) -> pa.Table:
    """What :func:`from_table` was given."""
    import pyarrow as pa

    with pa.ipc.open_stream(carried) as reader:
        return reader.read_all()


def to_rows(carried: bytes) -> list[dict[str, Any]]:
    """The rows, values of a table as Python has them."""
    if is_table(carried):
        rows: list[dict[str, Any]] = to_table(carried).to_pylist()
        return rows
    return [orjson.loads(line) for line in carried.split(b"\n")]


def in_json(value: object) -> str:
    """How JSON has a value that is none of its own: bytes in base64, decimals and others as their text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
