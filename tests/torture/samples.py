"""Versions of which the checker keeps the content: those pulled during the run, and those that requests name."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable

from attrs import Factory, define

from torture.app.history import CodeChange
from torture.app.reads import OtherReads
from torture.evidence import StoredNotice
from torture.expected_table import ExpectedTable
from torture.oracle import Accepted, digest

NAMES_VERSION = ("restore", "create_model", "peek")
"""Functions that can name a version in their arguments."""


@define
class Sample:
    """A version that was pulled during the run."""

    model: str
    version: int
    digest: str
    packed: bytes

    @classmethod
    def of(cls, model: str, version: int, content: dict[str, list[str]]) -> Sample:
        """Keep the content of a version: it can be cleaned up before it is compared."""
        return cls(model, version, digest(content), zlib.compress(json.dumps(content).encode(), 1))

    def content(self) -> dict[str, list[str]]:
        """Return what was read."""
        found: dict[str, list[str]] = json.loads(zlib.decompress(self.packed))
        return found


@define
class SourceVersions:
    """Versions that restore and fork requests name."""

    wanted: frozenset[tuple[str, int]]
    """Models and versions, read from the log."""
    damaged: bool
    """Whether objects in the store were damaged for some seconds."""
    peeked: frozenset[tuple[str, int]]
    """Those that calls name which read another model."""
    others: OtherReads
    app_changes: tuple[CodeChange, ...] = ()
    tables: dict[tuple[str, int], dict[str, ExpectedTable]] = Factory(dict)
    """What the replay had at each of them."""
    cleaned_up: set[tuple[str, int]] = Factory(set)
    """Those that were or are being cleaned up."""

    @classmethod
    def of(
        cls, log: list[Accepted], notices: Iterable[StoredNotice], changes: Iterable[CodeChange], *, damaged: bool
    ) -> SourceVersions:
        """Return the versions that the requests of a log name."""
        named, peeked = set(), set()
        for request in log:
            args = json.loads(request.body or b"{}") if request.function in NAMES_VERSION else {}
            if request.function == "peek" and isinstance(args.get("version"), int):
                peeked.add((args["model"], args["version"]))
            elif "from" in args:
                named.add((args["from"]["model"], args["from"]["version"]))
            elif "version" in args:
                named.add((request.model, args["version"]))
        return cls(frozenset(named), damaged, frozenset(peeked), OtherReads.of(notices), tuple(changes))

    def check_reads(self) -> list[str]:
        """Return what is wrong with the answers of calls that read another model; all models have been replayed."""
        return self.others.check(damaged=self.damaged, is_cleaned_up=lambda *version: version in self.cleaned_up)
