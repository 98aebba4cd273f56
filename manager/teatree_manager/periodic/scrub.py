"""The periodic task that scrubs the store: it reads the objects slowly, to find damage before a reader does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain as chained

from typing_extensions import override

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.formats.manifest import Manifest, ObjectRef
from teatree.contracts.probe import NO_PROBE, Probe
from teatree.contracts.settings import ScrubSettings
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.verification import Finding, Findings, check_object, check_outcomes
from teatree_manager.periodic.base import PeriodicTask


class ScrubTask(PeriodicTask):
    """Checks one version's manifest, pack and outcomes at a time: the newest first, then back through those kept.

    A manager first checks what the last one found damaged (the catalog keeps it, see ConditionTask), then the
    newest version, where most readers are, and then continues at a random one, so that even managers that run shortly
    check every version in time, without writing down how far they came.
    """

    name = "scrub"

    def __init__(
        self, chain: Chain, settings: ScrubSettings, probe: Probe = NO_PROBE, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(chain.model, settings.interval_ms, probe, clock)
        self._chain = chain
        self._settings = settings
        self._turns: Iterator[int] = iter(())
        self._begun = False
        self.damaged: dict[int, str] = {}
        """Damage by version; versions that are repaired or cleaned up are removed."""

    def remember(self, damage: Mapping[int, str]) -> None:
        """Take over what an earlier manager found, to be checked first; ignored where scrubbing is disabled."""
        if not self._settings.interval_ms:
            return
        self.damaged = {**damage, **self.damaged}
        self._turns = chained(sorted(damage, reverse=True), self._turns)

    @property
    @override
    def finding(self) -> str | None:
        return next(iter(self.damaged.values()), None)

    @override
    async def work(self) -> None:
        version = next(self._turns, None)
        if version is None:
            self._begin_round(await asyncio.to_thread(lambda: list(self._chain.kept_numbers())))
            version = next(self._turns, None)
        if version is None:
            return
        findings, read_bytes = await asyncio.to_thread(self._check, version)
        if findings.found:
            self._report(version, findings.found[0])
        elif self.damaged.pop(version, None):
            self._log.warning("the damage in the store was repaired", version=version)
        await self._clock.sleep_async(read_bytes / self._settings.bytes_per_s)

    def _begin_round(self, kept: Sequence[int]) -> None:
        """Give each version its turn, the newest first."""
        self.damaged = {v: what for v, what in self.damaged.items() if v in set(kept)}
        start = random.randrange(len(kept)) if kept and not self._begun else 0  # noqa: S311  no secret
        self._turns = iter([*kept[:1], *kept[max(start, 1) :]])
        self._begun = True

    def _check(self, version: int) -> tuple[Findings, int]:
        """Return the damage of a version, and the bytes that were read for it."""
        findings = Findings([])
        refs: list[ObjectRef] = []
        with findings.collect(version):
            entry = self._chain.entry(version)
            if isinstance(entry, Manifest):
                refs = [ref for ref in (entry.pack, entry.outcomes) if ref is not None]
                if entry.pack is not None:
                    with findings.collect(version):
                        check_object(self._chain, entry.pack)
                check_outcomes(self._chain, entry)
        if findings.found and self._was_cleaned_up(version):
            return Findings([]), 0
        return findings, sum(ref.size_bytes for ref in refs)

    def _was_cleaned_up(self, version: int) -> bool:
        """Return whether a clean-up removed the version while it was checked: missing objects are no damage then."""
        return version not in set(self._chain.kept_numbers())

    def _report(self, version: int, finding: Finding) -> None:
        what = f"{finding.code}: {finding.message} (at {finding.where})"
        if self.damaged.get(version) != what:
            self._log.error("the store is damaged", version=version, code=finding.code, error=what)
        self.damaged[version] = what
