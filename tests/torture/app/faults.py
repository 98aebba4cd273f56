"""Faults of the apps' code: another version is installed, or its import fails for a while; an operator then acts."""

from __future__ import annotations

import asyncio
import time

import nats
from attrs import Factory, define

from teatree import connect
from torture.app.history import CodeChange
from torture.app.requests import APPS
from torture.evidence import Versions, last_seq
from torture.fault import Fault, Inject
from torture.fixed_requests import LASTING
from torture.stage import Stage

NEVER = 2**62
OPERATOR_MS = 10_000


@define
class _Change:
    """A change that is recorded when its block ends, however that is."""

    stage: Stage
    newest: dict[str, int] = Factory(dict)

    def __enter__(self) -> None:
        self.newest = {model: Versions(self.stage.settings, model).chain.newest_version() for model in LASTING}

    def __exit__(self, *_: object) -> None:
        self.stage.apps.write()
        try:
            last = asyncio.run(last_seq(self.stage.settings.nats))
        except (nats.errors.Error, OSError):  # then it counts to the end
            last = NEVER
        self.stage.app_changes.append(CodeChange(self.stage.apps.version, self.newest, last))


def _upgraded(stage: Stage, fault: Fault) -> str:
    """Install another version of the apps."""
    with _Change(stage):
        stage.apps.version += 1
    return f"installed version {stage.apps.version} of the apps; {_use(stage, fault)}"


def _broken(stage: Stage, fault: Fault) -> str:
    """Let the import of the apps fail, and have a manager load them meanwhile."""
    with _Change(stage):
        stage.apps.write(is_broken=True)
        used = _use(stage, fault) if fault.chance < 0.5 else ""
        time.sleep(fault.last_s)
    return f"{used}; the import failed; then {_use(stage, fault)}"


def _use(stage: Stage, fault: Fault) -> str:
    return asyncio.run(_send_use(stage, f"{fault.chance}{time.monotonic_ns()}".replace(".", "-")))


async def _send_use(stage: Stage, name: str) -> str:
    async with connect(settings=stage.settings, wait_ms=OPERATOR_MS) as session:
        for place, model in enumerate(LASTING):
            app = APPS[(time.monotonic_ns() + place) % len(APPS)]
            await session.model(model).send(
                "use_app", {"app": app}, request_id=f"use-{name}-{place}", wait="accepted", timeout_ms=OPERATOR_MS
            )
    return "sent use_app"


APP: dict[str, tuple[int, Inject, bool]] = {
    "app_upgraded": (3, _upgraded, False),
    "app_broken": (3, _broken, False),
}
"""Weight, what it does, and whether it needs an S3 server."""
