"""NATS message headers: their bytes on the wire, both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.requests import HEADERS

_VERSION = b"NATS/1.0"
_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BREAKS = re.compile(r"[\r\n\x00]")
HEADER_SUBJECT = "Nats-Subject"
"""Where the server puts the subject of a stored message that it sends again."""
HEADERS_BYTES_MAX = 65_000
"""Bytes of all headers of a message: the server stores up to 64 KiB."""
_SERVERS = ("Stream", "Subject", "Sequence", "Time-Stamp", "Num-Pending", "Last-Sequence")
"""Of the headers that a server adds to every stored message."""
_EXACT = {name: name for name in (*HEADERS, *(f"Nats-{name}" for name in _SERVERS))}
_ANY_CASE = {name.lower(): name for name in HEADERS}


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return the header block of a message; raises `bad_header` for what would be decoded otherwise."""
    lines = [_VERSION]
    for key, value in headers.items():
        if not _KEY.fullmatch(key):
            raise RequestError(Code.BAD_HEADER, f"{key[:80]!r} is not a header name.", where=key[:80])
        if _BREAKS.search(value) or value != value.strip():
            raise RequestError(
                Code.BAD_HEADER,
                f"The header {key} has a line break, a zero byte or outer spaces.",
                where=key,
                hint="Headers are one line of text.",
            )
        lines.append(f"{key}: {value}".encode())
    block = b"\r\n".join(lines) + b"\r\n\r\n"
    if len(block) > HEADERS_BYTES_MAX:
        raise RequestError(
            Code.BAD_HEADER, f"The headers have {len(block)} bytes; {HEADERS_BYTES_MAX} is the most.", where="headers"
        )
    return block


def decode_headers(block: bytes | None) -> dict[str, str]:
    """Return the headers of a message: a request's own under their names in `HEADERS`, however they are written.

    A header of a request that is repeated has its values on separate lines, which no single value can hold:
    `read_request` refuses it. Of any other repeated name the last value counts, since a server appends its own.
    """
    headers: dict[str, str] = {}
    if block:
        for line in block.decode("utf-8", "replace").split("\r\n")[1:-2]:
            key, _, value = line.partition(":")
            name = _EXACT.get(key) or _ANY_CASE.get(key.strip().lower(), key)
            value = value.strip()
            headers[name] = f"{headers[name]}\n{value}" if name in headers and name in HEADERS else value
    return headers


def storable_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a stored message's headers as they can be published again: without NATS' own, and what cannot be encoded.

    A value that no client of ours could have sent stays invalid.
    """
    return {
        key: _BREAKS.sub("?", value).strip()
        for key, value in headers.items()
        if _KEY.fullmatch(key) and not key.lower().startswith("nats-")
    }


def decode_status(block: bytes | None) -> int:
    """Return the status code of a header block, 0 if it carries none."""
    if not block or block[8:9] != b" ":
        return 0
    code = block[9:12]
    return int(code) if code.isdigit() else 0
