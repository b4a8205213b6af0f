"""Reads Parquet: a few rows at a time, in constant memory however large its row groups are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unitvec.bulk import carried
from unitvec.bulk.extra import pyarrow
from unitvec.bulk.sources import ALL, Wanted
from unitvec.bulk.window import Position, Window
from unitvec.errors import InvalidRequest

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 256  # rows that are decoded at a time
_BUFFER = 1 << 20  # bytes of a column that are read at a time; without it, all that a row group has of it


def readers(files: Sequence[str], wanted: Wanted) -> Iterator[ParquetReader]:
    """One for each file; all carry the same columns along.

    Raises:
        InvalidRequest: a file cannot be read or lacks a column; a column is not text, or of several types.
    """
    first: ParquetReader | None = None
    for file in files:
        reader = ParquetReader(file, wanted)
        first = first or reader
        if reader.schema != first.schema:
            raise InvalidRequest(
                f"{file} has other columns than {first.path}: {_described(reader.schema)}; {_described(first.schema)}"
            )
        yield reader


class ParquetReader:
    """One file. See :class:`unitvec.bulk.sources.Reader`; an offset is a row.

    Args:
        path: the file.
        wanted: what is read of it.

    Attributes:
        rows: how many it has.
        schema: of the columns that are carried along.
    """

    def __init__(self, path: str, wanted: Wanted) -> None:
        self.path = path
        self._wanted = wanted
        with self._open() as file:
            self.rows: int = file.metadata.num_rows
            schema = file.schema_arrow
        names = schema.names if ALL in wanted.carry else list(wanted.carry)
        names = [name for name in names if name != carried.EMBEDDING]
        for name in [wanted.column, *names]:
            if schema.names.count(name) != 1:
                listed = ", ".join(map(repr, schema.names))
                raise InvalidRequest(f"{path} has {schema.names.count(name) or 'no'} column {name!r}: it has {listed}")
        self._check_text(schema.field(wanted.column).type)
        self._carry = names
        self.schema: pa.Schema = pyarrow("Parquet").schema([schema.field(name) for name in names])

    def windows(self, number: int, start: Position) -> Iterator[Window]:
        """See :class:`unitvec.bulk.sources.Reader`."""
        texts: list[str] = []
        refused: dict[int, str] = {}
        batches: list[pa.RecordBatch] = []
        characters, along = 0, 0
        for batch, weight in self._batches(start.row):
            begin = 0
            for row, value in enumerate(_values(batch.column(self._wanted.column)), 1):
                text, reason = _text(value)
                if reason:
                    refused[len(texts)] = reason
                texts.append(text)
                characters += len(text)
                along += weight
                if self._wanted.is_full(len(texts), characters, along):
                    batches.append(batch.slice(begin, row - begin))
                    window = self._window(number, start, texts, refused, batches)
                    yield window
                    texts, refused, batches, characters, along = [], {}, [], 0, 0
                    number, start, begin = number + 1, window.end, row
            if begin < batch.num_rows:
                batches.append(batch.slice(begin))
        if texts:
            yield self._window(number, start, texts, refused, batches)

    def _window(
        self, number: int, start: Position, texts: list[str], refused: dict[int, str], batches: list[pa.RecordBatch]
    ) -> Window:
        along = b""
        if self._carry:
            table = pyarrow("Parquet").Table.from_batches(batches).select(self._carry)
            along = carried.from_table(table.cast(self.schema))
        row = start.row + len(texts)
        return Window(number, start, Position(start.file, row, row), texts, refused, along)

    def _batches(self, row: int) -> Iterator[tuple[pa.RecordBatch, int]]:
        """What follows ``row``, and how many bytes each row of it carries along."""
        arrow = pyarrow("Parquet")
        columns = list(dict.fromkeys([self._wanted.column, *self._carry]))
        with self._open() as file:
            try:
                for number in range(file.metadata.num_row_groups):
                    group = file.metadata.row_group(number)
                    if row >= group.num_rows:
                        row -= group.num_rows
                        continue
                    weight = self._weight(group)
                    for batch in file.iter_batches(_BATCH, row_groups=[number], columns=columns, use_threads=False):
                        if row < batch.num_rows:
                            yield batch.slice(row), weight
                        row = max(0, row - batch.num_rows)
            except (OSError, arrow.ArrowException) as error:
                raise InvalidRequest(f"{self.path} is damaged: {error}") from None

    def _weight(self, group: pq.RowGroupMetaData) -> int:
        chunks = map(group.column, range(group.num_columns))
        sizes = [chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in self._carry]
        return int(sum(sizes) // group.num_rows)

    def _open(self) -> pq.ParquetFile:
        arrow = pyarrow("Parquet")
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False)
        except (OSError, arrow.ArrowException) as error:
            raise InvalidRequest(f"cannot read {self.path} as Parquet: {error}") from None

    def _check_text(self, kind: pa.DataType) -> None:
        types = pyarrow("Parquet").types
        value = kind.value_type if types.is_dictionary(kind) else kind
        tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
        if not any(test(value) for test in (*tests, types.is_null)):
            raise InvalidRequest(f"column {self._wanted.column!r} of {self.path} holds {kind}, not text")


def _values(column: pa.Array) -> list[str | bytes | None]:
    try:
        values: list[str | bytes | None] = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast("binary").to_pylist()
    return values


def _text(value: str | bytes | None) -> tuple[str, str]:
    """The text, or why there is none."""
    if value is None:
        return "", "null"
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value, ""
    except UnicodeDecodeError:
        return "", "not UTF-8"


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
