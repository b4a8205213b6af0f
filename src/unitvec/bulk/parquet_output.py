"""Parts to Parquet: a row group each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import orjson

from unitvec.bulk import carried
from unitvec.bulk.extra import pyarrow
from unitvec.bulk.outputs import Parts
from unitvec.bulk.window import Part, Vectors

if TYPE_CHECKING:
    import pyarrow as pa


def write_parquet(file: IO[bytes], parts: Parts, vectors: Vectors) -> None:
    """The columns carried along, and the vectors as a list of fixed size, null where a row was refused.

    Args:
        file: where to.
        parts: what of.
        vectors: an array of the type and width of all parts' vectors.
    """
    arrow = pyarrow("Parquet")
    from pyarrow import parquet

    types = _types(parts)
    names = list(types)
    listed = arrow.list_(arrow.from_numpy_dtype(vectors.dtype), vectors.shape[1])
    schema = arrow.schema([*types.items(), (carried.EMBEDDING, listed)])
    # Dictionaries and statistics are for the columns carried along: no two numbers of vectors are equal.
    with parquet.ParquetWriter(file, schema, use_dictionary=names, write_statistics=names) as writer:
        for part in parts():
            null = np.zeros(len(part.vectors), bool)
            null[list(part.refused)] = True
            flat = arrow.array(np.ascontiguousarray(part.vectors).reshape(-1))
            lists = arrow.FixedSizeListArray.from_arrays(flat, type=listed, mask=arrow.array(null))
            writer.write_table(arrow.Table.from_arrays([*_columns(part, types), lists], schema=schema))


def _types(parts: Parts) -> dict[str, pa.DataType]:
    """The columns that parts carry along, each of a type that holds all its values."""
    arrow = pyarrow("Parquet")
    types: dict[str, pa.DataType] = {}
    for part in parts():
        if not part.carried:
            continue
        if carried.is_table(part.carried):
            return {field.name: field.type for field in carried.to_table(part.carried).schema}
        rows = carried.to_rows(part.carried)
        for name in dict.fromkeys(name for row in rows for name in row):
            types[name] = _unified(types.get(name, arrow.null()), [row.get(name) for row in rows])
    return {name: kind if _is_plain(kind) else arrow.json_() for name, kind in types.items()}


def _unified(known: pa.DataType, values: Sequence[Any]) -> pa.DataType:
    """A type for values of a known type and these: JSON's text for those of several types, and for objects."""
    arrow = pyarrow("Parquet")
    if known == arrow.json_():
        return known
    try:
        found = arrow.array(values).type
        pair = [arrow.schema([("", kind)]) for kind in (known, found)]
        return arrow.unify_schemas(pair, promote_options="permissive").field(0).type
    except (arrow.ArrowException, OverflowError):
        return arrow.json_()


def _is_plain(kind: pa.DataType) -> bool:
    """Whether it is a number, a string, a boolean, or a list of them: what objects hold may vary from row to row."""
    types = pyarrow("Parquet").types
    value = kind.value_type if types.is_list(kind) else kind
    return not types.is_nested(value) and not types.is_null(value)


def _columns(part: Part, types: dict[str, pa.DataType]) -> list[pa.Array]:
    """The columns carried along, of these types."""
    arrow = pyarrow("Parquet")
    if not types:
        return []
    if carried.is_table(part.carried):
        return [column.combine_chunks() for column in carried.to_table(part.carried).columns]
    rows = carried.to_rows(part.carried)
    columns = []
    for name, kind in types.items():
        values = [row.get(name) for row in rows]
        if kind == arrow.json_():
            texts = [None if value is None else orjson.dumps(value).decode() for value in values]
            columns.append(arrow.array(texts, arrow.string()).cast(kind))
        else:
            columns.append(arrow.array(values, kind))
    return columns
