"""Calls that read another model: each answer is that of the version which its outcome names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from attrs import Factory, define, frozen

from torture.app.expected import pairs_of
from torture.evidence import StoredNotice
from torture.expected_table import ExpectedTable, Row

MAY_BE_DAMAGED = "bad_source"
CLEANED_UP = "unknown_version"


@frozen
class OtherRead:
    """One call of `peek`."""

    by: str
    """The model that was called."""
    seq: int
    args: Row
    end: Row
    """Its outcome."""


@define
class OtherReads:
    """All such calls, to be compared when all models have been replayed."""

    wanted: frozenset[tuple[str, int]]
    """The models and versions that outcomes name."""
    states: dict[tuple[str, int], dict[str, Any]] = Factory(dict)
    """What the replay had at each of them."""
    reads: list[OtherRead] = Factory(list)

    @classmethod
    def of(cls, notices: Iterable[StoredNotice]) -> OtherReads:
        """Return the calls whose outcomes were published, without what they are compared with."""
        bodies = (json.loads(notice.body) for notice in notices if b'"reads"' in notice.body)
        return cls(frozenset((read["model"], read["version"]) for body in bodies for read in body.get("reads", ())))

    def keep(self, model: str, version: int, tables: dict[str, ExpectedTable]) -> None:
        """Keep what a version holds if an outcome names it."""
        if (model, version) in self.wanted:
            self.states[model, version] = pairs_of(tables)

    def check(self, *, damaged: bool, is_cleaned_up: Callable[[str, int], bool]) -> list[str]:
        """Return what is wrong; `damaged`: objects in the store were for some seconds."""
        wrong: list[str] = []
        newest: dict[tuple[str, str], int] = {}
        for read in sorted(self.reads, key=lambda read: read.seq):
            model, version = read.args["model"], read.args.get("version")
            if read.end["kind"] != "done":
                code = read.end["error"]["code"]
                may = code == MAY_BE_DAMAGED and damaged
                may = may or (code == CLEANED_UP and version is not None and is_cleaned_up(model, version))
                wrong += [] if may else [f"[{read.by}] {read.args} ended as {read.end}"]
                continue
            found = [(one["model"], one["version"]) for one in read.end.get("reads", ())]
            if len(found) != 1 or found[0][0] != model or version not in (None, found[0][1]):
                wrong.append(f"[{read.by}] {read.args} read {found}, by its outcome: {read.end}")
                continue
            app, right = read.end["app"], self.states.get(found[0])
            if right is None or read.end["result"] != {**right, "by": f"{app['name']} {app['version']}"}:
                wrong.append(f"[{read.by}] {found[0]} was read as {read.end}; it holds {right}")
            if version is None and not damaged and found[0][1] < newest.get((read.by, model), 0):
                wrong.append(f"[{read.by}] {read.seq} read {found[0]}, after {newest[read.by, model]}")
            if version is None:
                newest[read.by, model] = found[0][1]
        return wrong
