"""A MERGE split into statements whose syntax trees DuckDB returns: its target, source, conditions and actions.

Every token of the statement is part of a piece or is one of a few keywords, so nothing in it is left unchecked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import duckdb
from attrs import frozen

from teatree.contracts.errors import Code, RequestError

PIECES_BYTES_MAX = 524_288
"""Bytes of all pieces: the WITH and the target of a MERGE are in the pieces of each WHEN, and each piece is parsed."""
_PIECE_BYTES_MIN = 1_000
"""A shorter piece counts as much: parsing it takes no less time."""
_MATCH_WORDS = frozenset({"not", "matched", "by", "source", "target"})
_PLAIN_ACTION_WORDS = frozenset({"by", "name", "position", "*", "set", "default", "values"})
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


@frozen
class MergePieces:
    """The pieces of a MERGE, as statements that together hold all of it."""

    queries: tuple[str, ...]
    changes: tuple[str, ...]
    """Statements that change the target."""

    @property
    def size_bytes(self) -> int:
        """How much there is to parse."""
        return sum(max(len(piece.encode()), _PIECE_BYTES_MIN) for piece in (*self.queries, *self.changes))


@frozen
class _Token:
    text: str
    gap: str
    """The space between it and the next token, or nothing."""
    depth: int
    """Number of parentheses and CASE expressions that enclose it."""

    @property
    def word(self) -> str:
        return self.text.lower() if self.depth == 0 else ""


def merge_pieces(sql: str, where: str) -> MergePieces:
    """Split a MERGE, which DuckDB parsed as one before, into pieces.

    Raises `bad_sql` if its form is not known, or if the pieces would take too long to check.
    """
    tokens = _tokens(sql, where)
    merge = _find(tokens, ("merge",), where)
    using = _find(tokens, ("using",), where, merge)
    join = _find(tokens, ("on", "using"), where, using + 1)
    whens = [i for i in range(join, len(tokens)) if tokens[i].word == "when"]
    returning = next((i for i in range(join, len(tokens)) if tokens[i].word == "returning"), len(tokens))
    if not whens or tokens[merge + 1].word != "into":
        raise _unparsed(where)
    prefix, target = _text(tokens[:merge]), _target(tokens[merge + 2 : using])
    condition = _text(tokens[join + 1 : whens[0]])
    queries = [
        f"{prefix}\nSELECT * FROM {_text(tokens[using + 1 : join])}",
        f"{prefix}\nSELECT {condition if tokens[join].word == 'using' else f'({condition})'}",
    ]
    changes = [f"DELETE FROM {target}"]
    size_bytes = 0
    for start, end in itertools.pairwise([*whens, returning]):
        more = _take_when(tokens[start + 1 : end], prefix, target, where)
        queries.extend(more.queries)
        changes.extend(more.changes)
        size_bytes += more.size_bytes
        if size_bytes > PIECES_BYTES_MAX:
            raise _too_long(where)
    if returning < len(tokens):
        queries.append(f"{prefix}\nSELECT {_text(tokens[returning + 1 :])}")
    return MergePieces(tuple(queries), tuple(changes))


def _target(tokens: Sequence[_Token]) -> str:
    """Return the target as a DELETE takes it: with AS before its alias, which only a MERGE may leave out."""
    if len(tokens) > 1 and tokens[-2].word not in (".", "as"):
        return f"{_text(tokens[:-1])} AS {_text(tokens[-1:])}"
    return _text(tokens)


def _take_when(tokens: Sequence[_Token], prefix: str, target: str, where: str) -> MergePieces:
    """Split `NOT MATCHED BY SOURCE AND condition THEN action` into pieces."""
    then = _find(tokens, ("then",), where)
    head = next((i for i in range(then) if tokens[i].word == "and"), then)
    if not all(token.word in _MATCH_WORDS for token in tokens[:head]):
        raise _unparsed(where)
    queries = [f"{prefix}\nSELECT ({_text(tokens[head + 1 : then])})"] if head < then else []
    changes = []
    verb, rest = (tokens[then + 1].word, tokens[then + 2 :]) if then + 1 < len(tokens) else ("", ())
    if verb in ("delete", "do") or all(token.word in _PLAIN_ACTION_WORDS for token in rest):
        if not all(token.word in _PLAIN_ACTION_WORDS | {"nothing"} for token in rest):
            raise _unparsed(where)
    elif verb == "update":
        changes.append(f"{prefix}\nUPDATE {target} {_text(rest)}")
    elif verb == "insert":
        changes.append(f"{prefix}\nINSERT INTO {target} {_text(rest)}")
    elif verb == "error":
        queries.append(f"{prefix}\nSELECT ({_text(rest)})")
    else:
        raise _unparsed(where)
    return MergePieces(tuple(queries), tuple(changes))


def _tokens(sql: str, where: str) -> list[_Token]:
    """Split SQL with DuckDB's lexer; comments are refused, since lexer and parser may treat them differently."""
    raw = sql.encode()
    starts = duckdb.tokenize(sql)
    ends = [start for start, _ in starts[1:]] + [len(raw)]
    tokens = []
    depth = 0
    for (start, kind), end in zip(starts, ends, strict=True):
        whole = raw[start:end].decode()
        text = whole.rstrip()
        if kind == duckdb.token_type.comment:
            raise RequestError(Code.BAD_SQL, f"A MERGE takes no comments: {text[:40]!r}.", where=where)
        opens = text in _OPENING or text.lower() == "case"
        closes = text in _CLOSING or text.lower() == "end"
        depth -= closes and depth > 0
        tokens.append(_Token(text, " " if len(whole) > len(text) else "", depth + 1 if opens or closes else depth))
        depth += opens
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    return tokens


def _find(tokens: Sequence[_Token], words: tuple[str, ...], where: str, start: int = 0) -> int:
    for place in range(start, len(tokens)):
        if tokens[place].word in words:
            return place
    raise _unparsed(where)


def _text(tokens: Sequence[_Token]) -> str:
    return "".join(token.text + token.gap for token in tokens).strip()


def _too_long(where: str) -> RequestError:
    return RequestError(
        Code.BAD_SQL,
        "This MERGE has too many WHENs, each of which is checked together with its WITH and its target.",
        where=where,
        hint="Use fewer WHENs, or a shorter WITH.",
    )


def _unparsed(where: str) -> RequestError:
    return RequestError(
        Code.BAD_SQL,
        "This MERGE could not be parsed.",
        where=where,
        hint="Write MERGE INTO table USING source ON condition WHEN … THEN …, or use INSERT … ON CONFLICT.",
    )
