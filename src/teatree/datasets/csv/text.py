"""The text of a CSV file in blocks of UTF-8, whatever its encoding; bad bytes are refused with their line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import IO

from teatree.contracts.errors import Code, RequestError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARK = "\ufeff"
_MARK_BYTES_MAX = 4
_SHOWN_BYTES = 24


def utf8_blocks(file: IO[bytes], encoding: str | None, block_bytes: int) -> Iterator[bytes]:
    """Yield a file's text as UTF-8, about `block_bytes` of the file at a time, without its byte order mark.

    Raises `bad_source` for bytes that are none of the encoding, naming the line.
    """
    block = file.read(max(block_bytes, _MARK_BYTES_MAX))
    name = encoding or next((of for mark, of in _MARKS if block.startswith(mark)), "utf-8")
    decoder = codecs.getincrementaldecoder(name)(errors="strict")
    line = 1
    first = True
    while True:
        text = _decoded(decoder, block, name, encoding, line)
        if first and text:
            text = text.removeprefix(_MARK)
            first = False
        if "\0" in text:
            _refuse_nul(text, line)
        line += text.count("\n")
        if text:
            yield text.encode()
        if not block:
            return
        block = file.read(block_bytes)


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes, name: str, given: str | None, line: int) -> str:
    try:
        return decoder.decode(block, final=not block)
    except UnicodeDecodeError as e:
        line += e.object[: e.start].decode(name, "replace").count("\n")
        before = e.object[max(0, e.start - _SHOWN_BYTES // 2) : e.start].rpartition(b"\n")[2]
        shown = before + e.object[e.start : e.start + _SHOWN_BYTES // 2].partition(b"\n")[0].rstrip(b"\r")
        raise RequestError(
            Code.BAD_SOURCE,
            f"Line {line} is not {name}: byte 0x{e.object[e.start]:02x} in {shown!r}.",
            where=f"line {line}",
            hint=_HINT if given is None else "Give the file's own `encoding`.",
        ) from None
    except UnicodeError as e:  # UTF-16 without its mark, and the like
        raise RequestError(Code.BAD_SOURCE, f"The file is not {name}: {e}.", where="encoding", hint=_HINT) from None


_HINT = "Give its `encoding`: cp1252 for most spreadsheets of Western Europe, latin-1, utf-16, …"


def _refuse_nul(text: str, line: int) -> None:
    line += text.count("\n", 0, text.index("\0"))
    raise RequestError(
        Code.BAD_SOURCE,
        f"Line {line} holds a NUL, so this is no text, or in another encoding.",
        where=f"line {line}",
        hint="Give its `encoding`, for example utf-16-le.",
    )
