"""Recovery of commits that a crash left unshipped, as one batch for the version after the fence."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from teatree.contracts.formats.manifest import Manifest, ModelState
from teatree.engine.apply.batch import Applied, app_change_of, archive_of
from teatree.engine.apply.ledger import Ledger
from teatree.engine.commits import Commit
from teatree.engine.publish.prepared import new_write_id
from teatree.functions.registry import Registry
from teatree.storage.ledger.segments import Entry, decode_segment, encode_segment


def recovered(commits: Sequence[Commit], fence: Manifest, ledger: Ledger, functions: Registry) -> Applied:
    """Return commits beyond the content of `fence` as one batch; adds their outcomes to the ledger."""
    entries = [
        _answered_within(entry, fence.content_version)
        for c in commits
        for entry in decode_segment(c.outcomes, f"commit {c.offset}")
    ]
    last = commits[-1]
    version = fence.version + 1
    ledger.add(version, entries)
    return Applied(
        version=version,
        write_id=new_write_id(),
        offset=last.offset,
        log_at=last.log_at,
        last_effect_seq=last.last_effect_seq,
        entries=tuple(entries),
        segment=encode_segment(entries),
        changed_tables=frozenset(name for c in commits for name in c.changed_tables),
        archive=archive_of(entries, functions),
        dropped=last.dropped,
        app_change=app_change_of(entries, functions),
        app=next((e.outcome.app for e in reversed(entries) if e.outcome.app is not None), None),
    )


def applied_through(manifest: Manifest) -> Applied:
    """Return a batch without requests: what was applied through a manifest."""
    return Applied(
        version=manifest.version,
        write_id=manifest.write_id,
        offset=manifest.offset,
        log_at=manifest.log_at,
        last_effect_seq=manifest.last_effect_seq,
        entries=(),
        segment=b"",
        changed_tables=frozenset(),
        dropped=manifest.state is ModelState.DROPPED,
    )


def _answered_within(entry: Entry, shipped_version: int) -> Entry:
    """Return an entry; a resend's loses its `answer_version` if the first outcome was not shipped either."""
    is_within = entry.answer_version is not None and entry.answer_version > shipped_version
    return attrs.evolve(entry, answer_version=None) if is_within else entry
