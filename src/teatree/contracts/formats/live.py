"""Live queries on the wire: the reply to a watcher, and the notices about a query's answer (docs/decisions/0038)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson
from attrs import asdict, field, frozen

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.requests import CONTENT_ARROW, CONTENT_JSON, HEADER_CONTENT_TYPE

WATCH_FUNCTION = "watch"
"""On a query subject: register as a watcher, or renew."""
HEADER_LIVE = "Teatree-Live"
"""In the reply to a watcher, and in a change with rows in Arrow: its members as one line of ASCII JSON."""
RENEW = "renew"
"""In place of a query in a subject: what is published there is for all that watch the model."""


class LiveKind(StrEnum):
    """The kind of a notice about a live query."""

    CHANGE = "change"
    """What changed in the answer from one version to a later one."""
    ANEW = "anew"
    """The answer changed, by more than a notice holds: read it anew."""
    ENDED = "ended"
    """The query is not watched any more: it failed."""
    RENEW = "renew"
    """Watchers of the model renew now: a manager began, or may have lost notices."""


@frozen
class Watching:
    """What a watcher learns from the reply to its registration or renewal."""

    query: str
    """The query's name: the last token of its subject."""
    series: str
    """The sequence of answers that changes continue."""
    version: int
    """The version whose answer the watcher now has."""
    lease_ms: int
    """How long the query is run without a further renewal."""
    key: tuple[str, ...] = ()
    """The columns that identify a row; without any rows are counted."""
    current: bool = False
    """Whether the watcher has missed nothing: then the reply has no rows."""

    def to_header(self) -> str:
        """Return the header's text."""
        return _ascii_line(asdict(self))

    @classmethod
    def of_header(cls, text: str, where: str) -> Watching:
        """Return what a header holds; raises `corrupt`."""
        members = _members(text.encode(), where)
        try:
            return cls(
                str(members["query"]),
                str(members["series"]),
                int(members["version"]),
                int(members["lease_ms"]),
                tuple(members["key"]),
                bool(members["current"]),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise _no_notice(where, e) from None


@frozen
class LiveNotice:
    """One notice about a live query."""

    kind: LiveKind
    model: str
    series: str = ""
    """A change continues the answers of this series only."""
    since: int = 0
    """`from` on the wire: the first version that has the answer before the change."""
    through: int = 0
    """The last version that is known to have it."""
    version: int = 0
    """`to` on the wire: the version that has the answer after it; of the kind `anew`, at which to read."""
    key: tuple[str, ...] = ()
    """The columns by which rows were matched; without any rows are counted, and none is changed."""
    counts: Mapping[str, int] = field(factory=dict)
    """`added`, `changed` and `removed`: how many rows of each there are, in this order in an Arrow body."""
    error: Mapping[str, Any] | None = None
    """Of the kind `ended`: `code`, `message`, `where`."""
    body: bytes = field(default=b"", repr=False)
    """The rows, as the worker made them: an Arrow stream, or a JSON object."""
    is_arrow: bool = False

    def members(self) -> dict[str, Any]:
        """Return the members without rows, as the wire names them; those that have no value are left out."""
        named: dict[str, Any] = {"kind": str(self.kind), "model": self.model}
        if self.kind in (LiveKind.CHANGE, LiveKind.ANEW):
            named |= {"series": self.series, "from": self.since, "through": self.through, "to": self.version}
        if self.kind is LiveKind.CHANGE:
            named |= {"key": list(self.key), "counts": dict(self.counts)}
        if self.error is not None:
            named["error"] = dict(self.error)
        return named

    def to_message(self) -> tuple[bytes, dict[str, str]]:
        """Return body and headers."""
        if self.is_arrow:
            return self.body, {HEADER_CONTENT_TYPE: CONTENT_ARROW, HEADER_LIVE: _ascii_line(self.members())}
        members = dump_json(self.members())
        body = members[:-1] + b"," + self.body[1:] if self.body else members
        return body, {HEADER_CONTENT_TYPE: CONTENT_JSON}


def read_live_notice(subject: str, headers: Mapping[str, str], body: bytes) -> LiveNotice:
    """Return the notice in a message; raises `corrupt` if it is not one."""
    is_arrow = headers.get(HEADER_CONTENT_TYPE) == CONTENT_ARROW
    members = _members(headers.get(HEADER_LIVE, "").encode() if is_arrow else body, subject)
    try:
        return LiveNotice(
            LiveKind(members["kind"]),
            str(members["model"]),
            str(members.get("series", "")),
            int(members.get("from", 0)),
            int(members.get("through", 0)),
            int(members.get("to", 0)),
            tuple(members.get("key", ())),
            {str(name): int(count) for name, count in members.get("counts", {}).items()},
            members.get("error"),
            body,
            is_arrow,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise _no_notice(subject, e) from None


def _ascii_line(members: Mapping[str, Any]) -> str:
    """Return members as JSON that a header can hold: names of columns may be any text."""
    text = dump_json(members).decode()
    return text if text.isascii() else "".join(c if c.isascii() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _members(body: bytes, where: str) -> dict[str, Any]:
    try:
        members = orjson.loads(body)
    except ValueError as e:
        raise _no_notice(where, e) from None
    if not isinstance(members, dict):
        raise _no_notice(where, "it is no object")
    return members


def _no_notice(where: str, why: object) -> OperatorError:
    return OperatorError(Code.CORRUPT, f"This is not about a live query: {why}.", where=where)
