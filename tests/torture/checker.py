"""The checker: replays the log on the oracle and compares everything that can be observed with the result."""

from __future__ import annotations

import copy
import json
import random
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import Any

from torture.app.history import AppHistory, versions_that_went_back
from torture.app.reads import OtherRead
from torture.app.requests import DIRECT
from torture.evidence import TERMINAL, StoredNotice, Versions
from torture.expected_table import ExpectedTable
from torture.loss import ModelLog
from torture.oracle import READ_CODES, Accepted, Oracle, Verdict, digest
from torture.report import Report, differences
from torture.samples import Sample, SourceVersions
from torture.workload import ClientRecord

OF_STUBS = ("stub", "checksum")
"""Members in which a stub differs from the manifest that it stands for."""
READ_AGAIN = 100
"""Manifests that are read again at the end: each is unchanged, or replaced by its stub."""


class ModelChecker:
    """Checks one model."""

    def __init__(
        self, versions: Versions, log: ModelLog, notices: list[StoredNotice], sources: SourceVersions, report: Report
    ) -> None:
        self.model = versions.model
        self._versions = versions
        self._sources = sources
        self._manifests = versions.refresh()
        self._offsets = [manifest["offset"] for manifest in self._manifests]
        self._log = log.requests
        self._lost = log.lost
        self._by_seq = {request.seq: request for request in self._log}
        self._notices = [notice for notice in notices if notice.tokens[0] == self.model]
        self._report = report
        self._terminal = self._terminal_notices()
        self._refusals = self._refused()
        self._apps = AppHistory(self.model, sources.app_changes)
        self._pairs: dict[int, int] = {}
        """The number of rows in `pairs` at each version."""
        self.verdicts: dict[int, Verdict] = {}

    def check(self, samples: list[Sample], records: list[ClientRecord]) -> Oracle:
        """Check all; returns the state at the end of the log."""
        self._check_chain()
        end = self._replay({s.version: s for s in samples if s.model == self.model})
        self._check_notices()
        self._check_groups()
        self._check_pages()
        self._keep_reads()
        self._check_records([record for record in records if record.model == self.model])
        return end

    def check_newest(self, oracle: Oracle, folder: Path) -> None:
        """Compare the newest version with the end of the log, and its archive if it has one."""
        if not self._manifests:
            return
        number = len(self._manifests)
        if self._log and self._offsets[-1] < self._log[-1].seq and oracle.alive:
            self._violation(f"the newest version {number} ends at {self._offsets[-1]}, the log at {self._log[-1].seq}")
        elif oracle.alive:
            self._compare(oracle, self._versions.content(number, folder), f"newest version {number}", number)

    def check_archive(self, oracle: Oracle, number: int, folder: Path) -> None:
        """Compare a version's archive with the end of the log, where the archive request is."""
        archive = self._versions.archive(number, folder)
        if archive is None:
            self._violation(f"the archive request is done, but version {number} has no archive")
        else:
            self._compare(oracle, archive, f"archive of version {number}", number)

    def check_catalog(self, found: dict[str, Any]) -> list[str]:
        """Return where the catalog differs from the chain and the oracle."""
        wrong: list[str] = []
        if not self._manifests:
            return wrong
        newest = self._manifests[-1]
        if (found.get("version"), found.get("offset")) != (newest["version"], newest["offset"]):
            return [f"catalog at {found.get('version')}, offset {found.get('offset')}; chain at {newest['version']}"]
        numbers = set(range(1, newest["version"] + 1))
        planned = self._versions.planned()
        lacks = [n for n in sorted(numbers - set(found["versions"])) if not self._is_cleaned_up(n, planned)]
        if lacks or not numbers.issuperset(found["versions"]):
            wrong.append(f"catalog lacks versions {lacks[:10]}, has {found['versions'][-3:]}")
        for verdict in self.verdicts.values():
            if verdict.role != "first":
                continue
            row = found["requests"].get(verdict.request_id)
            expected = (verdict.seq, verdict.kind, self._version_of(verdict.seq))
            if row != expected:
                wrong.append(f"request_log has {row} for {verdict.request_id}, not {expected}")
        return wrong

    # --- the chain ---

    def _check_chain(self) -> None:
        numbers = self._versions.numbers()
        if numbers != list(range(1, len(numbers) + 1)):
            missing = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))
            self._violation(f"versions have gaps: {missing[:10]} missing of {numbers[-1]}")
        before: dict[str, Any] | None = None
        for number, manifest in enumerate(self._manifests, 1):
            if manifest["version"] != number:
                self._violation(f"manifest {number} has the number {manifest['version']}")
            if before is not None:
                for member in ("epoch", "offset", "at", "user_version", "last_effect_seq"):
                    if member in manifest.keys() & before.keys() and manifest[member] < before[member]:
                        self._violation(
                            f"{member} went back in version {number}: {before[member]} to {manifest[member]}"
                        )
                if manifest["parent_write_id"] != before["write_id"]:
                    self._violation(f"version {number} is not the child of {number - 1}")
            before = manifest
        for wrong in versions_that_went_back(self._manifests):
            self._violation(wrong)
        count = min(READ_AGAIN, len(self._manifests))
        for number in random.Random(len(numbers)).sample(range(1, len(self._manifests) + 1), count):
            was, now = self._manifests[number - 1], self._versions.read(number)
            kept = {} if now is None else {n: v for n, v in now.items() if n not in OF_STUBS} if "stub" in now else now
            if not kept or any(was.get(name) != value for name, value in kept.items()):
                self._violation(f"manifest {number} was {was} and is {now}")

    def _version_of(self, seq: int) -> int | None:
        """Return the version that holds a request: the first one whose offset reaches it."""
        place = bisect_left(self._offsets, seq)
        return place + 1 if place < len(self._offsets) else None

    # --- what the oracle needs of what was observed ---

    def offset_of(self, version: int) -> int:
        """Return a version's offset in the log."""
        return int(self._offsets[version - 1])

    def refusal_of(self, seq: int) -> tuple[str, str] | None:
        """Return kind and code with which a request was refused; None if it was not."""
        return self._refusals.get(seq)

    def tables_of(self, model: str, version: int) -> dict[str, ExpectedTable] | None:
        """Return the tables of the replay at a version."""
        return self._sources.tables.get((model, version))

    def may_refuse(self, model: str, version: int, code: str) -> bool:
        """Return whether a version was or is being cleaned up, or could be damaged."""
        is_cleaned_up = code == "unknown_version" and (model, version) in self._sources.cleaned_up
        return is_cleaned_up or (code == "bad_source" and self._sources.damaged)

    def version_met(self, seq: int) -> str:
        """Return the version of the app that a request met: of its outcome, else of the version that holds it."""
        if not hasattr(self, "_met"):
            ends = ((key[1], json.loads(body)) for key, outcomes in self._terminal.items() for _, body in outcomes)
            self._met = {place: end["app"]["version"] for place, end in ends if "app" in end}
        holder = self._version_of(seq) or 0
        before = (manifest["app"]["version"] for manifest in self._manifests[:holder][::-1] if manifest.get("app"))
        return str(self._met.get(seq) or next(before, "1"))

    def may_lack_app(self, seq: int) -> bool:
        """Return whether the app's import may have failed for a request."""
        return self._apps.may_lack(self._version_of(seq))

    # --- the replay ---

    def _replay(self, samples: dict[int, Sample]) -> Oracle:
        oracle, place = Oracle(self), 0
        planned = self._versions.planned()
        self._sources.cleaned_up |= {
            (m, n)
            for m, n in self._sources.wanted | self._sources.peeked
            if m == self.model and self._is_cleaned_up(n, planned)
        }
        for manifest in self._manifests:
            while place < len(self._log) and self._log[place].seq <= manifest["offset"]:
                self._apply(oracle, self._log[place])
                place += 1
            self._check_manifest(oracle, manifest)
            self._pairs[manifest["version"]] = len(oracle.tables["pairs"].rows) if "pairs" in oracle.tables else 0
            if oracle.alive:
                self._sources.others.keep(self.model, manifest["version"], oracle.tables)
            if oracle.alive and (self.model, manifest["version"]) in self._sources.wanted:
                self._sources.tables[self.model, manifest["version"]] = copy.deepcopy(oracle.tables)
            sample = samples.get(manifest["version"])
            if sample is not None and oracle.alive:
                self._report.counts["versions compared"] += 1
                if digest(oracle.content()) != sample.digest:
                    self._compare(
                        oracle, sample.content(), f"version {sample.version} as pulled during the run", sample.version
                    )
        for request in self._log[place:]:
            self._apply(oracle, request)
        return oracle

    def _is_cleaned_up(self, number: int, planned: set[int]) -> bool:
        """Return whether a version was cleaned up, or a killed clean-up was about to."""
        return number in planned or self._versions.is_cleaned_up(number)

    def _apply(self, oracle: Oracle, request: Accepted) -> None:
        verdict = oracle.apply(request)
        self.verdicts[request.seq] = verdict
        if verdict.role == "first" and verdict.kind == "done" and request.function == "use_app":
            self._apps.uses.append(request.seq)
        if verdict.role == "first" and verdict.app and int(verdict.app.split()[1]) < self._apps.version_min:
            self._violation(f"it met {verdict.app}, not version {self._apps.version_min} or later", request.seq)
        self._report.counts[f"{verdict.role} {verdict.kind}" if verdict.role == "first" else verdict.role] += 1

    def _check_manifest(self, oracle: Oracle, manifest: dict[str, Any]) -> None:
        if "stub" in manifest:  # cleaned up before it was read: a clock that ran ahead
            self._report.counts["stubs"] += 1
            return
        if oracle.alive != (manifest["state"] == "active"):
            self._violation(f"version {manifest['version']} is {manifest['state']}, alive should be {oracle.alive}")
            return
        found = {table["name"]: table["rows"] for table in manifest["tables"]} if oracle.alive else {}
        right = {name: len(table.rows) for name, table in oracle.tables.items()}
        if found != right:
            self._violation(f"version {manifest['version']} names rows {found}, not {right}")

    def _compare(self, oracle: Oracle, content: dict[str, list[str]], what: str, version: int) -> None:
        if lines := differences(content, oracle.content()):
            head = f"{what} (offset {self.offset_of(version)}) differs from the log:"
            self._violation("\n".join([head, *lines]))

    # --- notices ---

    def _terminal_notices(self) -> dict[tuple[str, int], list[tuple[str, bytes]]]:
        """Return outcomes by request id and the sequence that they name."""
        found: dict[tuple[str, int], list[tuple[str, bytes]]] = defaultdict(list)
        for notice in self._notices:
            if len(notice.tokens) == 3 and notice.tokens[2] in TERMINAL and notice.tokens[1] != "group":
                body = json.loads(notice.body)
                found[notice.tokens[1], body.get("seq")].append((notice.tokens[2], notice.body))
        return found

    def _refused(self) -> dict[int, tuple[str, str]]:
        found = {}
        for (_, seq), outcomes in self._terminal.items():
            for kind, body in outcomes:
                if kind != "done":
                    found[seq] = (kind, json.loads(body)["error"]["code"])
        for group in self._group_notices():
            for refusal in group["refusals"]:
                found[refusal["seq"]] = (refusal["status"], refusal["error"]["code"])
        return found

    def _check_notices(self) -> None:
        expected: dict[tuple[str, int], Verdict] = {}
        for verdict in self.verdicts.values():
            if verdict.group is None:
                expected[verdict.request_id, verdict.answers] = verdict
        for key, outcomes in self._terminal.items():
            if key in self._lost:
                continue
            if key not in expected:
                self._violation(
                    f"an outcome was published for a request that is not in the log: {key}: {outcomes[0]}", key[1]
                )
            elif len(set(outcomes)) > 1:
                self._violation(
                    f"the outcome of {key} was published with different bodies: {sorted(set(outcomes))}", key[1]
                )
        for key, verdict in expected.items():
            outcomes = self._terminal.get(key, [])
            if not outcomes:
                self._violation(f"no outcome of {key} was published; it should be {verdict}", verdict.seq)
            for kind, body in set(outcomes):
                self._check_outcome(verdict, kind, json.loads(body))

    def _check_outcome(self, verdict: Verdict, kind: str, notice: dict[str, Any]) -> None:
        code = (notice.get("error") or {}).get("code")
        if (kind, code) != (verdict.kind, verdict.code):
            self._violation(f"outcome {kind} {notice}, but it should be {verdict}", verdict.answers)
            return
        if verdict.role == "outside" or verdict.is_outside:
            return
        holder = self._version_of(verdict.answers)
        if notice.get("version") != holder:
            self._violation(f"the outcome names version {notice.get('version')}, {holder} holds it", verdict.answers)
        if verdict.count is not None and notice["result"].get("rows") != verdict.count:
            self._violation(f"the result is {notice['result']}, not {verdict.count} rows", verdict.answers)
        app = notice.get("app")
        if verdict.kind == "done" and (app and f"{app['name']} {app['version']}") != verdict.app:
            self._violation(f"it was answered by {app}, not by {verdict.app}", verdict.answers)
        if verdict.result is not None and notice["result"] != verdict.result:
            self._violation(f"the result is {notice['result']}, not {verdict.result}", verdict.answers)

    def _keep_reads(self) -> None:
        """Keep the calls that read another model until that one is replayed, too."""
        for verdict in self.verdicts.values():
            request = self._by_seq[verdict.seq]
            if request.function == "peek" and verdict.role == "first":
                for _, body in set(self._terminal.get((verdict.request_id, verdict.seq), ())):
                    if verdict.kind == "done" or verdict.code in READ_CODES:
                        read = OtherRead(self.model, verdict.seq, json.loads(request.body), json.loads(body))
                        self._sources.others.reads.append(read)
                        self._report.counts["other versions read"] += 1

    def _check_pages(self) -> None:
        answers = {
            (v.request_id, v.answers): v.answer for v in self.verdicts.values() if v.answer is not None and not v.group
        }
        for notice in self._notices:
            if len(notice.tokens) == 3 and notice.tokens[2] == "page":
                page = json.loads(notice.body)
                right = answers.get((notice.tokens[1], page["seq"]))
                if "ref" in page and self._versions.is_cleaned_up(page["version"]):  # published again, late
                    page["rows"] = right if page["row_count"] == len(right or ()) else None
                if page.get("rows") != right:
                    self._violation(f"a query was answered {page.get('rows')}, not {right}", page["seq"])
                self._report.counts["answers compared"] += 1

    def _group_notices(self) -> list[dict[str, Any]]:
        return [json.loads(n.body) for n in self._notices if n.tokens[1] == "group" and n.tokens[-1] == "done"]

    def _check_groups(self) -> None:
        expected: dict[tuple[str, int | None], list[Verdict]] = defaultdict(list)
        for verdict in self.verdicts.values():
            if verdict.group is not None:
                expected[verdict.group, self._version_of(verdict.seq)].append(verdict)
        published: dict[tuple[str, int | None], set[str]] = defaultdict(set)
        for notice in self._group_notices():
            published[notice["group"], notice["version"]].add(json.dumps(notice, sort_keys=True))
        for key in expected.keys() | published.keys():
            if len(published[key]) != 1 or key not in expected:
                self._violation(f"group and version {key} has notices {published[key]}, requests {expected.get(key)}")
                continue
            notice = json.loads(next(iter(published[key])))
            refused = {(v.seq, v.kind, v.code) for v in expected[key] if v.kind != "done"}
            found = {(r["seq"], r["status"], r["error"]["code"]) for r in notice["refusals"]}
            already = sum(v.role == "again" and v.kind == "done" for v in expected[key])
            counts = (len(expected[key]) - already - len(refused), already, len(refused))
            if refused != found or counts != (notice["applied"], notice["already"], notice["refused"]):
                self._violation(f"group and version {key} was answered {notice}, not {counts}, refused {refused}")

    def _check_records(self, records: list[ClientRecord]) -> None:
        for one in records:
            if one.seq is not None and not self._is_lost(one):
                request = self._by_seq.get(one.seq)
                if request is None or (one.request_id and request.request_id != one.request_id):
                    self._violation(f"accepted, but not in the log: {one}", one.seq)
                elif one.sender not in (None, request.sender):
                    self._violation(f"accepted from {one.sender}, but the log has {request.sender}: {one}", one.seq)
            if one.kind == "done" and one.function != "send_many":
                kinds = {(v.kind, self._version_of(v.answers)) for v in self._verdicts_of(one.request_id)}
                if ("done", one.version) not in kinds:
                    self._violation(f"a client received {one}; the log has {kinds}")
            if one.kind == "answered":
                self._report.counts["direct calls compared"] += 1
                if one.count != self._pairs.get(one.version or 0):
                    self._violation(f"a direct call was answered {one}, not {self._pairs.get(one.version or 0)}")
            if one.kind == "unknown" and one.function == DIRECT:
                self._report.counts[f"direct calls {one.code}"] += 1
            if one.kind == "refused":
                codes = {v.code for v in self._verdicts_of(one.request_id)}
                if one.code not in codes and one.request_id not in {request_id for request_id, _ in self._lost}:
                    self._violation(f"a client received {one}; the log has {codes}")

    def _is_lost(self, one: ClientRecord) -> bool:
        return any(seq == one.seq and one.request_id in ("", request_id) for request_id, seq in self._lost)

    def _verdicts_of(self, request_id: str) -> list[Verdict]:
        if not hasattr(self, "_by_id"):
            self._by_id: dict[str, list[Verdict]] = defaultdict(list)
            for verdict in self.verdicts.values():
                self._by_id[verdict.request_id].append(verdict)
        return self._by_id[request_id]

    def _violation(self, what: str, seq: int | None = None) -> None:
        lines = [f"[{self.model}] {what}"]
        if seq is not None:
            lines += self._history(seq)
        self._report.violation("\n".join(lines))

    def _history(self, seq: int) -> list[str]:
        """Return a request, its neighbours in the log, and its notices."""
        place = bisect_left([request.seq for request in self._log], seq)
        lines = []
        for request in self._log[max(0, place - 3) : place + 3]:
            mark = ">" if request.seq == seq else " "
            verdict = self.verdicts.get(request.seq)
            ends = f"{verdict.kind} {verdict.code or ''} ({verdict.role})" if verdict else "?"
            body = request.body[:160].decode(errors="replace")
            lines.append(
                f"  {mark} {request.seq} v{self._version_of(request.seq)} {request.request_id}"
                f" {request.group or ''} {request.function} {body} : {ends}"
            )
        found = self._by_seq.get(seq)
        if found is not None:
            lines += [
                f"    notice at {n.place}: {n.body[:300]!r}" for n in self._notices if n.tokens[1] == found.request_id
            ][:10]
        return lines
