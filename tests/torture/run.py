"""One run of torture: the stack, the clients, the faults, the readers; then the checks and one line of summary."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import Factory, asdict, define

from teatree import connect
from teatree.client.model import Model
from teatree.contracts.errors import Code, RetryError, TeatreeError
from torture.app.requests import APPS
from torture.checker import ModelChecker
from torture.evidence import Versions, catalog, read_log, read_notices
from torture.fault import Fault, ViolationError
from torture.faults import DAMAGES_STORE, HINDERS_ALL, HINDERS_MANAGER, LOSES_DISK, inject, make_schedule, took_effect
from torture.fixed_requests import CREATE, LASTING, MAIN, MODELS, RECREATED, SECOND
from torture.loss import model_log
from torture.report import Report
from torture.samples import Sample, SourceVersions
from torture.stage import Stage
from torture.workload import Client, ClientRecord

RECOVERY_S = 90
"""Seconds in which all parts must have caught up after the last fault."""
LATE_S = 15
"""Seconds of these after which the history of a run without violations is kept too, to find what was late."""
DISK_GRACE_S = 15
"""Seconds after the loss of the local disk, or after the last fault that kept the model's manager from repairing it,
in which a local reader may find nothing, or meet an error."""
DISK_GRACE_S_MAX = 60
"""Seconds of this in all, however many faults follow each other: in a long run another one always follows."""
SKEW_S = 4_000
"""Seconds after a clock was moved in which a reader, whose clock is moved too, can report an error."""
STORE_GRACE_S = 30
"""Seconds for which a reader can meet an object that a fault damaged."""


@define
class Options:
    """What to run."""

    seed: int
    run_s: float
    clients: int = 5
    pause_s: float = 0.05
    s3: bool = False
    kinds: tuple[str, ...] = ()
    gap_s: float = 1.5
    keep: Path | None = None
    """Where a failed run leaves its folder; a new folder for temporary files if None."""
    quiet: bool = False


@define
class TortureRun:
    """One run in progress."""

    options: Options
    stage: Stage
    started_s: float = Factory(time.time)
    events: list[dict[str, Any]] = Factory(list)
    records: list[ClientRecord] = Factory(list)
    samples: dict[tuple[str, int], Sample] = Factory(dict)
    versions: dict[str, Versions] = Factory(dict)
    """The manifests of each chain as it grew: a clean-up leaves only stubs."""
    cleaned_up: set[tuple[str, int]] = Factory(set)
    """Those of the samples that were cleaned up."""
    report: Report = Factory(Report)
    over: threading.Event = Factory(threading.Event)
    """Set when no more faults are to be injected, also by a Ctrl-C."""
    readers: list[subprocess.Popen[str]] = Factory(list)
    reads: int = 0

    def event(self, event: str, **facts: Any) -> None:
        """Add an event to the history."""
        entry = {"at_s": round(time.time() - self.started_s, 3), "event": event, **facts}
        self.events.append(entry)
        if event == "violation":
            self.report.violation(facts["what"])
        if not self.options.quiet and event in ("fault", "violation", "phase"):
            print(json.dumps(entry), flush=True)

    # --- during the run ---

    def inject_faults(self, schedule: list[Fault]) -> None:
        """Inject faults one after the other until the time is over."""
        for fault in schedule:
            if time.time() + fault.after_s - self.started_s > self.options.run_s or self.over.wait(fault.after_s):
                return
            begun_s = time.time()
            try:
                done = inject(self.stage, fault)
            except ViolationError as e:
                done = "found a violation"
                self.event("violation", what=f"{fault.kind}: {e}")
            except (TeatreeError, OSError, subprocess.SubprocessError) as e:
                done = f"could not: {e}"
            self.event("fault", **asdict(fault), done=done, begun_s=begun_s, over_s=time.time())
            for name, log in self.stage.restart_dead().items():
                self.event("violation", what=f"{name} died without a fault: {log}")

    def sample(self, stop: threading.Event) -> None:
        """Pull versions during the run, new ones and old ones again: the content of a version never changes."""
        rng = random.Random(f"{self.options.seed}-samples")
        folder = self.stage.folder / "pulled"
        folder.mkdir()
        while not stop.wait(0.4):
            model = rng.choice((MAIN, MAIN, SECOND))
            try:
                for versions in self.versions.values():
                    versions.refresh()
            except (TeatreeError, ValueError) as e:
                self._unreadable("the manifests", e)
                continue
            active = [m["version"] for m in self.versions[model].manifests[-50:] if m.get("state") == "active"]
            pulled = [
                number for name, number in self.samples if name == model and (name, number) not in self.cleaned_up
            ]
            number = rng.choice(pulled) if pulled and rng.random() < 0.3 else rng.choice(active or [0])
            try:
                if number:
                    self._sample(model, number, folder)
            except TeatreeError as e:  # the store became unavailable between the pull and the read of its stub
                self._unreadable(f"the manifest of version {number} of {model}", e)

    def _sample(self, model: str, number: int, folder: Path) -> None:
        versions = self.versions[model]
        try:
            found = Sample.of(model, number, versions.content(number, folder))
        except TeatreeError as e:
            if e.code is Code.UNKNOWN_VERSION and versions.is_cleaned_up(number):
                self.report.counts["cleaned up"] += 1
                self.cleaned_up.add((model, number))
            else:
                self._unreadable(f"version {number} of {len(versions.manifests)} of {model}", e)
            return
        before = self.samples.setdefault((model, number), found)
        if before.digest != found.digest:
            self.event("violation", what=f"version {number} of {model} reads otherwise than before")

    def _unreadable(self, what: str, error: Exception) -> None:
        """Report what could not be read, unless the store is unavailable or damaged by a fault."""
        code = error.code if isinstance(error, TeatreeError) else Code.CORRUPT
        if not (
            (code is Code.CORRUPT and self.stage.is_damaged) or (self.options.s3 and isinstance(error, RetryError))
        ):
            self.event("violation", what=f"{what} cannot be read: {error}")

    def start_readers(self) -> None:
        """Start a reader process of each kind for each model that exists during the whole run."""
        environ = self.stage.environ(TEATREE_CACHE_FOLDER=str(self.stage.folder / "cache"))
        for model in LASTING:
            current = self.stage.data / model / "current.duckdb"
            kinds = (("torture.reader", str(current)), ("torture.lazy_reader", model), ("torture.watcher", model))
            for command in kinds:
                self.readers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *command],
                        cwd=Path(__file__).parents[1],
                        env=environ,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )

    def end_readers(self) -> None:
        """End them and check what they reported."""
        lost = list(self._graces())
        for reader in self.readers:
            output, _ = reader.communicate("", timeout=30)
            for line in map(json.loads, output.splitlines()):
                self.reads += line.get("reads", 0)
                self.report.counts["changes watched"] += line.get("watched", 0)
                self.report.counts["changes compared"] += line.get("compared", 0)
                in_grace = any(start <= line["at_s"] <= end for start, end in lost)
                skewed = [e["begun_s"] for e in self.events if e.get("kind") == "clock_moved"]
                if line.get("code") == "not_authorized" and any(abs(line["at_s"] - s) <= SKEW_S for s in skewed):
                    continue  # the clock moved back between S3's refusal and its report
                if "error" in line and not (in_grace and "went back" not in line["error"]):
                    self.event("violation", what=f"a reader met an error: {line}")
        self.readers.clear()

    def _graces(self) -> Iterator[tuple[float, float]]:
        """Yield from when to when a reader may meet an error, for each fault that damages what it reads."""
        for event in self.events:
            begun_s = event.get("begun_s", 0.0)
            if event.get("kind") in DAMAGES_STORE:
                yield begun_s, max(begun_s + STORE_GRACE_S, event["over_s"])
            elif event.get("kind") in LOSES_DISK:
                end_s = event["over_s"] + DISK_GRACE_S
                for other in self.events:  # in the order in which they came
                    kind = other.get("kind")
                    hinders = kind in HINDERS_ALL or (kind in HINDERS_MANAGER and other["model"] == event["model"])
                    if hinders and begun_s <= other["begun_s"] <= end_s:
                        end_s = other["over_s"] + DISK_GRACE_S
                yield begun_s, min(end_s, event["over_s"] + DISK_GRACE_S_MAX)

    async def drive(self) -> None:
        """Let clients send until the time is over."""
        async with connect(settings=self.stage.settings, wait_ms=10_000) as session:
            for model in LASTING:
                await session.model(model).send("create_model", CREATE, request_id=f"create-{model}")
        self.versions = {model: Versions(self.stage.settings, model) for model in MODELS}
        stop, stop_samples = asyncio.Event(), threading.Event()
        self.start_readers()
        clients = [
            Client(
                f"c{i}", random.Random(f"{self.options.seed}-client-{i}"), self.stage.settings, self.records,
                self.event, self.options.pause_s,
            )
            for i in range(self.options.clients)
        ]  # fmt: skip
        tasks = [asyncio.create_task(client.run(stop)) for client in clients]
        schedule = make_schedule(
            self.options.seed,
            self.options.run_s,
            s3=self.options.s3,
            kinds=self.options.kinds,
            gap_s=self.options.gap_s,
        )
        faults = asyncio.to_thread(self.inject_faults, schedule)
        sampling = asyncio.create_task(asyncio.to_thread(self.sample, stop_samples))
        self.started_s = time.time()
        try:
            self._check_ends(await asyncio.gather(faults, asyncio.sleep(self.options.run_s), return_exceptions=True))
            self.event("phase", phase="faults are over")
            await asyncio.to_thread(self.stage.repair)
        finally:
            self.over.set()
            stop.set()
            stop_samples.set()
            self._check_ends(await asyncio.gather(*tasks, sampling, return_exceptions=True))

    def _check_ends(self, ends: Iterable[BaseException | None]) -> None:
        """Report parts of the harness that ended early: the run continues without them, to its checks."""
        for end in ends:
            if end is not None:
                self.event("violation", what=f"a part of the harness ended early: {end!r}")

    # --- at the end ---

    async def drain(self) -> None:
        """Wait until all accepted requests are applied, published and recorded; then request an archive."""
        self.event("phase", phase="draining")
        async with connect(settings=self.stage.settings, wait_ms=10_000) as session:
            await asyncio.gather(*[self._drain(session.model(name)) for name in LASTING])

    async def _drain(self, model: Model) -> None:
        """Have the app loaded that is installed now; then it must work, and an archive be made."""
        requests: list[tuple[str, dict[str, Any]]] = [
            ("use_app", {"app": APPS[0]}),
            ("both", {"a": 1, "v": 2}),
            ("archive", {}),
        ]
        try:
            for function, args in requests:
                receipt = await model.send(function, args, request_id=f"last-{function}", timeout_ms=RECOVERY_S * 1000)
            archived = receipt.result.get("archive", receipt.version)  # a later one if its own is damaged
            self.event("phase", phase="archived", model=model.name, version=archived)
        except TeatreeError as e:
            self.event("violation", what=f"{model.name} does not recover within {RECOVERY_S} s: {e}")

    async def check(self) -> None:
        """Compare everything with the log; what lags has time to catch up."""
        folder = self.stage.folder / "checked"
        folder.mkdir()
        began_s = time.monotonic()
        deadline = began_s + (5 if self.report.violations else RECOVERY_S)
        while True:
            report = Report()
            log, notices = await read_log(self.stage.settings.nats), await read_notices(self.stage.settings.nats)
            ever = [request for one in (*self.stage.logs_before, log) for request in one]
            damaged = any(event.get("kind") in DAMAGES_STORE for event in self.events)
            sources = SourceVersions.of(ever, notices, self.stage.app_changes, damaged=damaged)
            for model in MODELS:
                await asyncio.to_thread(self._check_model, model, log, notices, sources, report, folder)
            for wrong in sources.check_reads():
                report.violation(wrong)
            if not report.violations or time.monotonic() > deadline:
                break
            self.event(
                "phase", phase="checking again", violations=len(report.violations), first=report.violations[0][:200]
            )
            await asyncio.sleep(3)
        if not report.violations and time.monotonic() - began_s > LATE_S:
            self.dump(Path(tempfile.mkdtemp(prefix=f"torture-late-{self.options.seed}-")))
        self.report.violations += report.violations
        for name, count in report.counts.items():
            self.report.counts[name] += count
        self.report.counts["requests"] = len(log)

    def _check_model(
        self, model: str, log: list[Any], notices: list[Any], sources: SourceVersions, report: Report, folder: Path
    ) -> None:
        versions = self.versions[model]
        own = model_log(model, self.stage.logs_before, log, versions.refresh())
        report.counts["lost"] += len(own.lost)
        checker = ModelChecker(versions, own, notices, sources, report)
        oracle = checker.check(list(self.samples.values()), self.records)
        report.counts["versions"] += len(versions.manifests)
        checker.check_newest(oracle, folder)
        if model != RECREATED:
            done = [e["version"] for e in self.events if e.get("phase") == "archived" and e["model"] == model]
            for number in done:
                checker.check_archive(oracle, number, folder)
        for wrong in checker.check_catalog(catalog(self.stage.settings, model)):
            report.violation(f"[{model}] {wrong}")

    # --- reporting ---

    def summary(self) -> str:
        """Return the one line of summary."""
        faults = Counter(e["kind"] for e in self.events if e["event"] == "fault" and took_effect(e["done"]))
        facts = {
            "seed": self.options.seed,
            "run_s": self.options.run_s,
            "store": "s3" if self.options.s3 else "folder",
            **self.report.counts,
            "reads": self.reads,
            "faults": dict(sorted(faults.items())),
            "violations": self.report.counts["violations"],
        }
        return "torture " + json.dumps(facts)

    def dump(self, folder: Path) -> None:
        """Write faults, history, clients' records and the ends of all logs to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(event, default=str) for event in self.events]
        (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
        records = [json.dumps(asdict(one)) for one in self.records]
        (folder / "records.jsonl").write_text("\n".join(records) + "\n")
        (folder / "violations.txt").write_text("\n\n".join(self.report.violations) + "\n")
        for name, text in self.stage.logs().items():
            (folder / name.replace("/", "-")).write_text(text)


def torture(options: Options) -> tuple[Report, str]:
    """Run once; returns report and summary. A failed run writes its history to a folder and prints its path."""
    folder = Path(tempfile.mkdtemp(prefix="tt-"))
    run = TortureRun(options, Stage(folder, s3=options.s3))
    try:
        run.stage.start()
        asyncio.run(run.drive())
        asyncio.run(run.drain())
        run.end_readers()
        asyncio.run(run.check())
    finally:
        for reader in run.readers:
            reader.kill()
        run.report.counts["violations"] += 0
        if run.report.violations or sys.exc_info()[0] is not None:
            kept = options.keep or Path(tempfile.mkdtemp(prefix=f"torture-{options.seed}-"))
            run.dump(kept)
            print(f"seed {options.seed}: the history is in {kept}")
        run.stage.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return run.report, run.summary()
