"""Reads plain lines, lines of JSON, and CSV: constant memory, and from any row on."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import orjson

from unitvec.api.values import type_name
from unitvec.bulk import carried
from unitvec.bulk.extra import pyarrow
from unitvec.bulk.inputs import STDIN
from unitvec.bulk.sources import ALL, Wanted
from unitvec.bulk.window import Position, Window
from unitvec.errors import InvalidRequest

_LONGEST = 64 << 20  # bytes of a line that are read; what is longer has no end in sight
_STEP = 1 << 20
_BOM = b"\xef\xbb\xbf"
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def _plain(path: str) -> IO[bytes]:
    return open(path, "rb")


_OPENERS: dict[str, Callable[[str], Any]] = {
    "gz": gzip.open,
    "bz2": bz2.open,
    "xz": lzma.open,
    "zst": lambda path: io.BufferedReader(pyarrow("zst").CompressedInputStream(path, "zstd")),
}


@dataclass(frozen=True)
class _Row:
    """What is read of a row; without a text it has a reason."""

    text: str = ""
    reason: str = ""
    columns: dict[str, Any] | None = None


class TextReader:
    """One file of lines. See :class:`unitvec.bulk.sources.Reader`.

    Args:
        path: the file, or ``-`` for standard input.
        kind: ``lines``, ``jsonl``, ``csv`` or ``tsv``.
        wanted: what is read of it.

    Raises:
        InvalidRequest: it cannot be read, or is CSV without that column.
    """

    rows = None

    def __init__(self, path: str, kind: str, wanted: Wanted) -> None:
        self._path = path
        self._kind = kind
        self._wanted = wanted
        if path != STDIN:
            with self._open() as file:
                next(self._rows(_Lines(file), 0), None)

    def windows(self, number: int, start: Position) -> Iterator[Window]:
        """See :class:`unitvec.bulk.sources.Reader`."""
        texts: list[str] = []
        refused: dict[int, str] = {}
        columns: list[dict[str, Any]] = []
        characters, along = 0, 0
        end = start
        with self._open() as file:
            lines = _Lines(file)
            for row in self._rows(lines, start.offset):
                if row.reason:
                    refused[len(texts)] = row.reason
                texts.append(row.text)
                columns.append(row.columns or {})
                characters += len(row.text)
                along += lines.offset - end.offset if self._wanted.carry else 0
                end = Position(start.file, end.row + 1, lines.offset)
                if self._wanted.is_full(len(texts), characters, along):
                    yield self._window(number, start, end, texts, refused, columns)
                    texts, refused, columns, characters, along = [], {}, [], 0, 0
                    number, start = number + 1, end
        if texts:
            yield self._window(number, start, end, texts, refused, columns)

    def _window(
        self,
        number: int,
        start: Position,
        end: Position,
        texts: list[str],
        refused: dict[int, str],
        columns: list[dict[str, Any]],
    ) -> Window:
        along = carried.from_rows(columns) if self._wanted.carry else b""
        return Window(number, start, end, texts, refused, along)

    def _open(self) -> IO[bytes]:
        if self._path == STDIN:
            if sys.stdin is None:
                raise InvalidRequest("standard input is closed")
            return sys.stdin.buffer
        suffix = self._path.rpartition(".")[2].lower()
        try:
            opened: IO[bytes] = _OPENERS.get(suffix, _plain)(self._path)
        except OSError as error:
            raise InvalidRequest(f"cannot read {self._path}: {error.strerror or error}") from None
        return opened

    def _rows(self, lines: _Lines, offset: int) -> Iterator[_Row]:
        try:
            if self._kind in _DELIMITERS:
                yield from self._csv_rows(lines, offset)
                return
            lines.skip_to(offset)
            read = self._json_row if self._kind == "jsonl" else self._line_row
            for line in lines:
                if self._kind == "jsonl" and not line.strip():
                    continue
                yield _Row(reason=_TOO_LONG) if lines.cut else read(line)
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, OSError) as error:
            raise InvalidRequest(f"{self._path} is damaged behind byte {lines.offset}: {error}") from None

    def _line_row(self, line: bytes) -> _Row:
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            return _Row(reason=_NOT_UTF8)
        return _Row(text, columns={self._wanted.column: text})

    def _json_row(self, line: bytes) -> _Row:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return _Row(reason=f"not JSON: {error}")
        if not isinstance(value, dict):
            return _Row(reason=f"not a JSON object but {type_name(value)}")
        carry = self._wanted.carry
        columns = value if ALL in carry else {name: _field(value, name) for name in carry}
        text = _field(value, self._wanted.column)
        if isinstance(text, str):
            return _Row(text, columns=columns)
        reason = f"no {self._wanted.column!r}" if text is None else f"not text but {type_name(text)}"
        return _Row(reason=reason, columns=columns)

    def _csv_rows(self, lines: _Lines, offset: int) -> Iterator[_Row]:
        reader, header = self._csv_reader(lines)
        lines.skip_to(offset)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _Row(reason=f"not CSV: {error}")
                continue
            if row:
                yield _Row(reason=_TOO_LONG) if lines.cut else self._csv_row(header, row)

    def _csv_reader(self, lines: _Lines) -> tuple[Iterator[list[str]], list[str]]:
        """Rows behind the header, and the header."""
        csv.field_size_limit(_LONGEST)
        # Bytes that are no UTF-8 come through as surrogates, so that one bad row stays one.
        decoded = (line.decode("utf-8", "surrogateescape") for line in lines)
        reader = csv.reader(decoded, delimiter=_DELIMITERS[self._kind])
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise InvalidRequest(f"{self._path} has no header: {error}") from None
        wanted = [self._wanted.column, *(name for name in self._wanted.carry if name != ALL)]
        if header and (missing := [name for name in wanted if name not in header]):
            raise InvalidRequest(f"{self._path} has no column {missing[0]!r}: it has {', '.join(map(repr, header))}")
        return reader, header

    def _csv_row(self, header: list[str], row: list[str]) -> _Row:
        if len(row) != len(header):
            return _Row(reason=f"not CSV: {len(row)} fields where the header has {len(header)}")
        fields = dict(zip(header, row, strict=True))
        text = fields[self._wanted.column]
        carry = header if ALL in self._wanted.carry else self._wanted.carry
        columns = {name: _replaced(fields[name]) for name in carry}
        return _Row(text, columns=columns) if _is_utf8(text) else _Row(reason=_NOT_UTF8, columns=columns)


_NOT_UTF8 = "not UTF-8"
_TOO_LONG = f"a line of more than {_LONGEST >> 20} MiB"


class _Lines:
    """Lines of a file with their ends.

    Attributes:
        offset: bytes that they took of it so far, uncompressed.
        cut: the last one was too long, and its rest was skipped.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.offset = 0
        self.cut = False

    def skip_to(self, offset: int) -> None:
        """Go on behind so many bytes."""
        if offset > self.offset and self._file.seekable():
            self.offset = self._file.seek(offset)
        while (left := offset - self.offset) > 0 and (skipped := len(self._file.read(min(left, _STEP)))):
            self.offset += skipped

    def __iter__(self) -> Iterator[bytes]:
        while line := self._file.readline(_LONGEST):
            first = self.offset == 0
            self.offset += len(line)
            self.cut = False
            rest = line
            while not rest.endswith(b"\n") and (rest := self._file.readline(_STEP)):
                self.cut = True
                self.offset += len(rest)
            yield line.removeprefix(_BOM) if first else line


def _field(value: dict[str, Any], path: str) -> Any:
    """The value at ``a.b``, None where there is none; a field whose name has that dot in it goes first."""
    if path in value:
        return value[path]
    found: Any = value
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _replaced(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
