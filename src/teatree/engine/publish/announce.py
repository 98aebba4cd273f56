"""The notices of a version: its manifest and outcomes determine them, so that they can be published again.

This module builds messages; it does not publish them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import attrs
from attrs import frozen

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.manifest import Manifest, Stub
from teatree.contracts.formats.notices import (
    GroupNotice,
    Kind,
    NoticeMessage,
    Outcome,
    Status,
    WireNotice,
    group_refusal,
    notice_about,
    notice_headers,
)
from teatree.contracts.formats.outside import outside_notice
from teatree.contracts.formats.requests import (
    CONTENT_ARROW,
    HEADER_CONTENT_TYPE,
    HEADER_PAGE,
    HEADER_PAGES,
    HEADER_VERSION,
    Request,
)
from teatree.contracts.settings import LimitSettings
from teatree.functions.registry import Registry
from teatree.functions.traits import Nature
from teatree.messaging.subjects import Subjects
from teatree.storage.archives import read_answer
from teatree.storage.ledger.segments import Entry, Role, read_segment
from teatree.storage.objects.base import NotFoundError
from teatree.storage.versions.chain import Chain

HEADERS_BYTES = 1_024
"""Bytes of NATS' `max_payload` that are reserved for a notice's headers."""


@frozen
class Announcer:
    """Builds the messages of one model's versions."""

    chain: Chain
    subjects: Subjects
    limits: LimitSettings
    functions: Registry
    payload_bytes_max: Callable[[], int]
    """Returns the bytes of headers and body that the server accepts in one message now."""

    @property
    def _inline_bytes_max(self) -> int:
        """Largest body that is sent within its notice; a longer one is put into the store."""
        return min(self.limits.page_bytes_max, self.payload_bytes_max() - HEADERS_BYTES)

    def messages(self, manifest: Manifest, entries: Iterable[Entry], *, late: bool = False) -> list[NoticeMessage]:
        """Return all messages of a version, in the order in which they are published.

        `late` outcomes waited for something after the version: they do not announce it again.
        """
        singles: list[NoticeMessage] = []
        groups: dict[str, list[tuple[Entry, Outcome]]] = defaultdict(list)
        firsts: dict[str, Entry] = {}
        for entry in entries:
            if entry.is_first:
                firsts[entry.outcome.request_id] = entry
            if entry.role is Role.OUTSIDE:  # the dispatcher has published it
                continue
            holder, outcome = self._answer(manifest, entry, firsts)
            if entry.outcome.group:
                groups[entry.outcome.group].append((entry, outcome))
            else:
                singles.extend(self._outcome(holder, outcome))
        grouped = [self._group(manifest, group, members) for group, members in groups.items()]
        version = [self._version(manifest)] if manifest.user_version == manifest.version and not late else []
        return [*singles, *grouped, *version]

    def _answer(
        self, manifest: Manifest, entry: Entry, firsts: dict[str, Entry]
    ) -> tuple[Manifest | Stub | None, Outcome]:
        """Return the outcome that answers an entry and the manifest that holds it: for a resend, those of the first.

        The manifest is None for an outcome outside the model's incarnations.
        """
        if entry.role is not Role.AGAIN:
            return manifest, entry.outcome
        request_id = entry.outcome.request_id
        if entry.answer_version is None:
            return _held(firsts[request_id], manifest)
        with suppress(NotFoundError, CorruptError):  # cleaned up since the ledger found it, or damaged in the store
            first = self.chain.entry(entry.answer_version)
            for other in read_segment(self.chain.store, self.chain.folder, first):
                if other.is_first and other.outcome.request_id == request_id:
                    return _held(other, first)
        return manifest, entry.outcome

    def again(self, first: Entry, version: int) -> list[NoticeMessage]:
        """Return the messages that answer a resend with a first outcome, which the segment of `version` holds."""
        holder, outcome = _held(first, self.chain.entry(version))
        return list(self._outcome(holder, outcome))

    def _outcome(self, manifest: Manifest | Stub | None, outcome: Outcome) -> Iterator[NoticeMessage]:
        if manifest is None:
            subject = self.subjects.notify(self.chain.model, outcome.request_id, Kind.REJECTED)
            yield subject, outside_notice(self.chain.model, outcome).to_json(), notice_headers(outcome)
            return
        yield from self._pages(manifest, outcome)
        kind = Kind(outcome.status.value)
        result = self._result(manifest, outcome)
        members = {
            "version": manifest.version,
            "result": result,
            "error": outcome.error,
            "tables": outcome.tables or None,
            "app": outcome.app,
            "reads": outcome.reads or None,
        }
        notice = notice_about(outcome, kind, manifest.model, manifest.at, **members)
        subject = self.subjects.notify(manifest.model, outcome.request_id, kind)
        body = self._bounded(manifest, notice, f"outcome-{outcome.request_id}")
        yield subject, body, notice_headers(outcome)

    def _result(self, manifest: Manifest | Stub, outcome: Outcome) -> Any:
        """Return a request's result; for a barrier also the archive's version, if it is not the request's own."""
        if outcome.status is not Status.DONE or not self.is_barrier(outcome):
            return outcome.result
        with suppress(CorruptError):
            answer = read_answer(self.chain, manifest)
            if answer is not None and answer != manifest.version:
                return {**outcome.result, "archive": answer}
        return outcome.result

    def is_barrier(self, outcome: Outcome) -> bool:
        """Return whether an outcome is published when an archive is complete."""
        return self.functions.traits(outcome.function).nature is Nature.BARRIER

    def _bounded(self, manifest: Manifest | Stub, notice: WireNotice, name: str) -> bytes:
        """Return a notice's JSON; one that the server would refuse is put into the store, and `ref` names it."""
        body = notice.to_json()
        if len(body) <= self.payload_bytes_max() - HEADERS_BYTES:
            return body
        ref = self._put(manifest, f"{name}.json", body)
        return attrs.evolve(notice, result=None, page={"ref": ref}, tables=None, reads=None).to_json()

    def _put(self, manifest: Manifest | Stub, name: str, body: bytes) -> str:
        """Store a body that is too long for a notice beside the version's pages; return its key."""
        key = self.chain.key(f"pages/{manifest.version:020d}-{manifest.write_id}/{name}")
        self.chain.store.put(key, body)
        return key

    def _pages(self, manifest: Manifest | Stub, outcome: Outcome) -> Iterator[NoticeMessage]:
        subject = self.subjects.notify(manifest.model, outcome.request_id, Kind.PAGE)
        for number, page in enumerate(outcome.pages, 1):
            body = self._inline_body(page, number)
            details: dict[str, Any] = {"page": number, "pages": len(outcome.pages)}
            if body is not None and page["format"] == "arrow":
                headers = {
                    **notice_headers(outcome),
                    HEADER_CONTENT_TYPE: CONTENT_ARROW,
                    HEADER_PAGE: str(number),
                    HEADER_PAGES: str(len(outcome.pages)),
                    HEADER_VERSION: str(manifest.version),
                }
                yield subject, body, headers
                continue
            if body is not None:
                details = parse_page(body)
            else:
                details |= {"ref": self.chain.key(page["ref"]), "row_count": page["rows"], "format": page["format"]}
            members = {"version": manifest.version, "page": details}
            notice = notice_about(outcome, Kind.PAGE, manifest.model, manifest.at, **members)
            yield subject, notice.to_json(), notice_headers(outcome)

    def _inline_body(self, page: dict[str, Any], number: int) -> bytes | None:
        """Return a page that is sent within its notice; None if the notice refers to it, or if it was cleaned up."""
        if page["bytes"] > self._inline_bytes_max - HEADERS_BYTES or number > self.limits.pages_inline_max:
            return None
        try:
            return self.chain.store.get(self.chain.key(page["ref"]))
        except (NotFoundError, CorruptError):  # cleaned up before a late resend: the notice refers to it
            return None

    def _group(self, manifest: Manifest, group: str, members: list[tuple[Entry, Outcome]]) -> NoticeMessage:
        refusals = [group_refusal(e.outcome, o) for e, o in members if o.status is not Status.DONE]
        already = sum(e.role is Role.AGAIN and o.status is Status.DONE for e, o in members)
        applied = len(members) - already - len(refusals)
        notice = GroupNotice(manifest.model, group, manifest.at, applied, already, refusals, version=manifest.version)
        encoded = notice.to_json()
        if len(encoded) > self._inline_bytes_max:
            encoded = notice.to_json(self._put(manifest, f"group-{group}.json", dump_json(refusals)))
        return self.subjects.notify_group(manifest.model, group), encoded, {}

    def _version(self, manifest: Manifest) -> NoticeMessage:
        details = {
            "state": manifest.state.value,
            "offset": manifest.offset,
            "changed_tables": list(manifest.changed_tables),
            "rows": {table.name: table.rows for table in manifest.tables},
            "bytes": manifest.size_bytes,
        }
        notice = WireNotice(
            kind=Kind.VERSION, model=manifest.model, at=manifest.at, version=manifest.version, result=details
        )
        return self.subjects.notify_version(manifest.model), self._bounded(manifest, notice, "version"), {}


def _held(entry: Entry, manifest: Manifest | Stub) -> tuple[Manifest | Stub | None, Outcome]:
    return (None if entry.role is Role.OUTSIDE else manifest), entry.outcome


def parse_page(body: bytes) -> dict[str, Any]:
    """Return a stored JSON page as the members of its notice."""
    import orjson  # noqa: PLC0415

    page: dict[str, Any] = orjson.loads(body)
    return page


def started_message(subjects: Subjects, request: Request) -> NoticeMessage:
    """Return the `started` notice of a request: best effort, not kept in the chain."""
    notice = notice_about(request, Kind.STARTED, request.model, request.at)
    subject = subjects.notify(request.model, request.request_id, Kind.STARTED)
    return subject, notice.to_json(), notice_headers(request)


def progress_message(subjects: Subjects, request: Request, fraction: float, text: str, now: datetime) -> NoticeMessage:
    """Return the `progress` notice of a request: best effort, not kept in the chain."""
    page = {"fraction": round(fraction, 4), "text": text}
    notice = notice_about(request, Kind.PROGRESS, request.model, now, page=page)
    subject = subjects.notify(request.model, request.request_id, Kind.PROGRESS)
    return subject, notice.to_json(), notice_headers(request)
