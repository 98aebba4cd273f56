"""A CSV file as rows of a table's types: read as texts, converted exactly, or refused with line and column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.dtypes import Date, Decimal, Dtype, Float, Integer, Timestamp
from teatree.contracts.types.schema import Field, Schema
from teatree.datasets.arrow.types import to_arrow_schema
from teatree.datasets.csv.cells import BadCellError, convert_cells, without_nulls
from teatree.datasets.csv.guess import ColumnGuess
from teatree.datasets.csv.options import DELIMITERS, CsvOptions
from teatree.datasets.csv.records import Piece, read_pieces
from teatree.datasets.csv.text import utf8_blocks

BLOCK_BYTES = 8_000_000
"""Bytes of the file that become rows at once: a few times as much is held in memory."""

_HEADER_BYTES_MAX = 65_536


@frozen
class CsvFile:
    """One file; it is read anew by each method."""

    path: Path
    options: CsvOptions
    block_bytes: int = BLOCK_BYTES

    def guess_schema(self) -> Schema:
        """Return the columns with types that hold all of the file's cells unchanged; reads all of it."""
        if not self.options.header:
            message = "A file without a header does not name the columns of a new table."
            raise RequestError(Code.BAD_ARGUMENT, message, where="header", hint="Create the table first.")
        with self._hinting(), self.path.open("rb") as file:
            pieces = self._pieces(file)
            names = self._names(pieces)
            if len(names) == 1 and self._likely_delimiter() is not None:
                raise RequestError(Code.BAD_SOURCE, f"The header has one column, {names[0]!r}.", where="line 1")
            guesses = [ColumnGuess(self.options) for _ in names]
            for piece in pieces:
                for guess, cells in zip(guesses, piece.columns, strict=True):
                    guess.see(cells)
        try:
            return Schema(tuple(Field(name, guess.dtype) for name, guess in zip(names, guesses, strict=True)))
        except RequestError as e:  # its places are those of a schema, which was not sent
            raise RequestError(e.code, e.message, where="line 1", hint=e.hint) from None

    def tables(self, schema: Schema, reached: Callable[[float], None] = lambda _: None) -> Iterator[pa.Table]:
        """Yield the rows in pieces, at least one, with exactly the types of the columns that the file has.

        `reached` is called with the part of the file that was read. Raises a RequestError that names the line, the
        column and the value.
        """
        with self._hinting(), self.path.open("rb") as file:
            pieces = self._pieces(file)
            columns = self._columns(self._names(pieces), schema) if self.options.header else tuple(schema)
            empty, size_bytes = True, max(1, self.path.stat().st_size)
            for piece in pieces:
                yield self._table(piece, columns)
                reached(file.tell() / size_bytes)
                empty = False
            if empty:
                yield to_arrow_schema(Schema(columns)).empty_table()

    def _pieces(self, file: IO[bytes]) -> Iterator[Piece]:
        blocks = utf8_blocks(file, self.options.encoding, self.block_bytes)
        return read_pieces(blocks, self._delimiter, self.options.quote, self.block_bytes)

    @property
    def _delimiter(self) -> str:
        return self.options.delimiter_of(self.path.name)

    # --- the header ---

    def _names(self, pieces: Iterator[Piece]) -> list[str]:
        header = next(pieces, None)
        if header is None:
            raise RequestError(Code.BAD_SOURCE, f"{self.path.name!r} is empty: it has no header.", where="line 1")
        return [column[0].as_py() for column in header.columns]

    def _columns(self, names: Sequence[str], schema: Schema) -> tuple[Field, ...]:
        for name in names:
            if name not in schema:
                known = f"The table's columns are {', '.join(schema.names[:20])}{', …' if len(schema) > 20 else ''}."
                message = f"The header names a column {name!r}, which the table does not have."
                raise RequestError(Code.UNKNOWN_COLUMN, message, where="line 1", hint=known)
        columns = tuple(schema[name] for name in names)
        for place, column in enumerate(columns):
            if column in columns[:place]:
                first = names[columns.index(column)]
                message = f"The header names the column {column.name!r} twice, as {first!r} and {names[place]!r}."
                raise RequestError(Code.DUPLICATE_KEY, message, where="line 1")
        return columns

    @contextmanager
    def _hinting(self) -> Iterator[None]:
        """Name the delimiter that the file seems to have beside whatever else is wrong with its form."""
        try:
            yield
        except RequestError as e:
            looks = self._likely_delimiter() if e.code in (Code.BAD_SOURCE, Code.UNKNOWN_COLUMN) else None
            if looks is None:
                raise
            hint = f"It looks like delimiter {looks!r}: give the option delimiter."
            raise RequestError(e.code, e.message, where=e.where, hint=f"{e.hint or ''} {hint}".strip()) from None

    def _likely_delimiter(self) -> str | None:
        """Return another delimiter that is in the first line, where the file's own is not."""
        if self.options.delimiter is not None:
            return None
        with self.path.open("rb") as file:
            header = file.readline(_HEADER_BYTES_MAX).replace(b"\0", b"").decode("latin-1")
        found = next((mark for mark in DELIMITERS if mark in header), None)
        return None if self._delimiter in header else found

    # --- cells ---

    def _table(self, piece: Piece, columns: Sequence[Field]) -> pa.Table:
        if len(piece.columns) != len(columns):
            message = f"The line has {len(piece.columns)} cells; the table has {len(columns)} columns."
            raise RequestError(Code.BAD_SOURCE, message, where=f"line {piece.line_of(0)}")
        arrays = []
        for column, cells, quoted in zip(columns, piece.columns, piece.quoted, strict=True):
            texts = without_nulls(cells, quoted, column.dtype, self.options)
            try:
                array = convert_cells(texts, column.dtype, self.options)
            except BadCellError as e:
                hint = self._value_hint(e.text, column.dtype)
                raise self._refused(piece, e.row, column.name, e.error.code, e.error.message, hint) from None
            if not column.nullable and array.null_count:
                row = array.is_null().index(True).as_py()
                message = "The column does not take null, and the cell is empty."
                raise self._refused(piece, row, column.name, Code.NOT_NULL, message, None)
            arrays.append(array)
        return pa.Table.from_arrays(arrays, schema=to_arrow_schema(Schema(tuple(columns))))

    def _refused(self, piece: Piece, row: int, column: str, code: Code, message: str, hint: str | None) -> RequestError:
        where = f"line {piece.line_of(row)}, column {column}"
        return RequestError(code, f"In {where}: {message}", where=where, hint=hint)

    def _value_hint(self, text: str, dtype: Dtype) -> str | None:
        match dtype:
            case Integer() | Float() | Decimal() if "," in text and self.options.decimal == ".":
                return "If the file writes 1.234,5, give decimal ',' and, if need be, thousands '.'."
            case Integer() | Float() | Decimal() if self.options.decimal == "," and not self.options.thousands:
                return "Give the option thousands if its numbers have such marks."
            case Date() if self.options.date_format is None:
                return "Give the option date_format, for example %d.%m.%Y."
            case Timestamp() if self.options.timestamp_format is None:
                return "Give the option timestamp_format, for example %d.%m.%Y %H:%M:%S."
            case _:
                return None
