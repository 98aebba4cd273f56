"""The records of a CSV file: cells found by their delimiters and quotes, exactly or refused.

A block is scanned at once: a separator counts where the number of quotes before it is even, and a quote stands at a
cell's begin, at its end, or doubled in between. Anything else is refused with its line. A piece ends with a record, so
no cell, quote or line break is ever cut in two.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import evolve, frozen

from teatree.contracts.errors import Code, RequestError

RECORD_BYTES_MAX = 64_000_000
"""Bytes of one record, which is held in memory: an unclosed quote must not take a large file for a single cell."""
_LF, _CR = 10, 13
_Places = np.ndarray[tuple[int], np.dtype[np.int64]]
_Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]


@frozen(eq=False)
class Piece:
    """Some records one after the other, with the same number of cells."""

    columns: tuple[pa.Array, ...]
    """By column the cells' texts, quotes undone."""
    quoted: tuple[_Flags, ...]
    """By column which cells were quoted."""
    _data: bytes
    _starts: _Places
    _line: int

    def __len__(self) -> int:
        return len(self._starts)

    def line_of(self, row: int) -> int:
        """Return the file's line in which a record begins."""
        return self._line + _line_breaks(self._data[: int(self._starts[row])])


def read_pieces(blocks: Iterator[bytes], delimiter: str, quote: str, block_bytes: int) -> Iterator[Piece]:
    """Yield all records, the first of them alone: it sets the number of cells of each.

    Lines without anything are left out, but where records have one cell: there they are an empty one. Raises
    `bad_source`, naming the line.
    """
    scan = _Scan(ord(delimiter), quote)
    buffer, line, wanted, at_end = b"", 1, block_bytes, False
    cells: int | None = None
    while not at_end:
        parts, size_bytes = [buffer], len(buffer)
        while size_bytes < wanted and not at_end:
            block = next(blocks, b"")
            parts.append(block)
            size_bytes += len(block)
            at_end = not block
        buffer = b"".join(parts)
        found = scan.records(buffer, line, at_end=at_end)
        if found is None:
            if len(buffer) > RECORD_BYTES_MAX:
                raise _refused(line, f"The record has more than {RECORD_BYTES_MAX:,} bytes", "Is its quote closed?")
            wanted = 2 * len(buffer)  # what was scanned in vain is scanned a few times, not once a block
            continue
        if cells is None:
            found = found.from_first()
            if len(found.firsts):
                cells = int(found.counts[0])
                yield found.rows(slice(0, 1)).piece(cells)
                found = found.rows(slice(1, None))
        if cells is not None and len(found.firsts):
            yield from _nonempty(found.piece(cells))
        line += _line_breaks(buffer[: found.consumed])
        buffer = buffer[found.consumed :]
        wanted = block_bytes


def _nonempty(piece: Piece) -> Iterator[Piece]:
    if len(piece):
        yield piece


@frozen(eq=False)
class _Found:
    """Whole records in a buffer: where each cell starts and ends, quotes included."""

    data: bytes
    line: int
    starts: _Places
    ends: _Places
    firsts: _Places
    """Of each record its first cell's place among the cells."""
    counts: _Places
    """Of each record the number of its cells."""
    quoted: _Flags
    doubled: _Flags
    quote: str
    consumed: int

    def rows(self, keep: _Flags | slice) -> _Found:
        return evolve(self, firsts=self.firsts[keep], counts=self.counts[keep])

    def from_first(self) -> _Found:
        """Return the records from the first that is not empty."""
        return self.rows(slice(int(np.argmin(self.are_empty)) if not self.are_empty.all() else len(self.firsts), None))

    @property
    def are_empty(self) -> _Flags:
        empty: _Flags = (self.counts == 1) & (self.starts[self.firsts] == self.ends[self.firsts])
        return empty

    def piece(self, cells: int) -> Piece:
        found = self if cells == 1 else self.rows(~self.are_empty)
        wrong = np.flatnonzero(found.counts != cells)
        if len(wrong):
            row = int(wrong[0])
            line = self.line + _line_breaks(self.data[: int(self.starts[found.firsts[row]])])
            raise _refused(
                line,
                f"It has {_cells(int(found.counts[row]))}; the first line has {cells}",
                "A cell with a delimiter is quoted.",
            )
        inner_starts = self.starts + self.quoted
        offsets = np.empty(2 * len(self.starts), np.int32)
        offsets[0::2], offsets[1::2] = inner_starts, self.ends - self.quoted
        # Every second text lies between two cells.
        texts = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(self.data))
        columns, quoted = [], []
        for column in range(cells):
            places = found.firsts + column
            values = texts.take(pa.array(2 * places))
            doubled = self.doubled[places]
            if doubled.any():
                mask = pa.array(doubled)
                undone = pc.replace_substring(values.filter(mask), 2 * self.quote, self.quote)
                values = pc.replace_with_mask(values, mask, undone)
            columns.append(values)
            quoted.append(self.quoted[places])
        return Piece(tuple(columns), tuple(quoted), self.data, self.starts[found.firsts], self.line)


@frozen
class _Scan:
    """Finds records by one delimiter and one quote."""

    delimiter: int
    quote: str

    def records(self, data: bytes, line: int, *, at_end: bool) -> _Found | None:
        """Return the whole records at the front of a buffer; None if there is none yet."""
        octets = np.frombuffer(data, np.uint8)
        separators, quotes = self._separators(octets)
        kinds = octets[separators]
        if not at_end and len(kinds) and kinds[-1] == _CR and separators[-1] == len(data) - 1:
            separators, kinds = separators[:-1], kinds[:-1]  # its line feed may follow
        pairs = (kinds[:-1] == _CR) & (kinds[1:] == _LF) & (separators[1:] == separators[:-1] + 1)
        keep = np.concatenate(([True], ~pairs)) if len(kinds) else np.zeros(0, bool)
        after = separators + 1
        after[:-1][pairs] += 1
        ends, after, is_last = separators[keep], after[keep], kinds[keep] != self.delimiter
        is_open = at_end and len(quotes) % 2 == 1
        if at_end and len(data) > (int(after[is_last][-1]) if is_last.any() else 0):
            ends, after = np.append(ends, len(data)), np.append(after, len(data))
            is_last = np.append(is_last, True)
        lasts = np.flatnonzero(is_last)
        if not len(lasts):
            nothing = _Found(data, line, ends, ends, lasts, lasts, is_last, is_last, self.quote, 0)
            return nothing if at_end else None
        count = int(lasts[-1]) + 1
        ends, consumed = ends[:count], int(after[count - 1])
        starts = np.concatenate((np.zeros(1, np.int64), after[: count - 1]))
        firsts = np.concatenate((np.zeros(1, np.int64), lasts[:-1] + 1))
        quotes = quotes[quotes < consumed]
        quoted, doubled = self._quoted(data, line, octets, quotes[:-1] if is_open else quotes, starts, ends)
        if is_open:
            what = "A quote opens here and is never closed"
            raise _refused(line + _line_breaks(data[: int(quotes[-1])]), what, _QUOTE_HINT)
        return _Found(data, line, starts, ends, firsts, lasts - firsts + 1, quoted, doubled, self.quote, consumed)

    def _separators(self, octets: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> tuple[_Places, _Places]:
        marks = (octets == self.delimiter) | (octets == _LF) | (octets == _CR)
        if not self.quote:
            return np.flatnonzero(marks), np.zeros(0, np.int64)
        marks |= octets == ord(self.quote)
        places = np.flatnonzero(marks)
        is_quote = octets[places] == ord(self.quote)
        outside = np.cumsum(is_quote) % 2 == 0
        return places[outside & ~is_quote], places[is_quote]

    def _quoted(
        self,
        data: bytes,
        line: int,
        octets: np.ndarray[tuple[int], np.dtype[np.uint8]],
        quotes: _Places,
        starts: _Places,
        ends: _Places,
    ) -> tuple[_Flags, _Flags]:
        """Return which cells are quoted, and which hold doubled quotes; refuses a quote that is neither."""
        doubled = np.zeros(len(starts), bool)
        if not len(quotes):
            return doubled, doubled
        opens, closes = quotes[0::2], quotes[1::2]
        pairs = closes[:-1] + 1 == opens[1:]
        no = np.zeros(1, bool)
        opens_well = np.concatenate((no, pairs)) | _contains(starts, opens)
        closes_well = np.concatenate((pairs, no)) | _contains(ends, closes + 1)
        if not (opens_well & closes_well).all():
            pair = int(np.flatnonzero(~(opens_well & closes_well))[0])
            what = (
                "A quoted cell begins here, and text follows its closing quote"
                if opens_well[pair]
                else ("A quote stands in a cell that does not begin with one")
            )
            raise _refused(line + _line_breaks(data[: int(opens[pair])]), what, _QUOTE_HINT)
        doubled[np.searchsorted(starts, closes[:-1][pairs], "right") - 1] = True
        return (starts < ends) & (octets[np.minimum(starts, len(octets) - 1)] == ord(self.quote)), doubled


_QUOTE_HINT = "A quote within a quoted cell is doubled; if the file quotes nothing, give an empty `quote`."


def _contains(places: _Places, wanted: _Places) -> _Flags:
    """Return which of the wanted are among sorted places."""
    at = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
    found: _Flags = places[at] == wanted
    return found


def _line_breaks(data: bytes) -> int:
    """Return how many lines end in the data: by LF, CR LF or CR."""
    if b"\r" not in data:
        return data.count(b"\n")
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count:,} cells"


def _refused(line: int, what: str, hint: str | None = None) -> RequestError:
    return RequestError(Code.BAD_SOURCE, f"In line {line}: {what}.", where=f"line {line}", hint=hint)
