"""`teatree status`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs

from teatree.cli.exits import Exit, exit_code
from teatree.cli.main import teatree_version
from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output, counted, size_text
from teatree.contracts.errors import TeatreeError

if TYPE_CHECKING:
    from teatree.client.health import ModelHealth, PartHealth, StackHealth

SHOWN_MODELS_MAX = 30
"""Models that are printed for people, those with a problem or waiting requests first."""
_WELL = frozenset({"active", "dropped"})


def status(*, common: Common = DEFAULT) -> Exit:
    """Show on one screen whether everything runs.

    Whether NATS, the dispatcher, the object store and PostgreSQL answer, how fast, and their versions; for each model
    its state, newest version, requests in the log that this version lacks, and the pid and memory of its manager.
    Nothing is started by it: an idle model has no manager until it is needed.

    The exit code is 0 if every part answers, 4 if one does not, 5 if one refuses (a wrong password, for example). A
    model that is stopped or damaged does not change it: look at `state` in --json.

    Example: teatree status --json
    """
    output = Output(json=common.json)
    health = asyncio.run(_read(common))
    if output.json:
        output.line({"version": teatree_version(), **_plain(health)})
    else:
        _show(output, health)
    errors = [part.error for part in health.parts if part.error] + ([health.error] if health.error else [])
    return max((exit_code(error) for error in errors), default=Exit.OK)


async def _read(common: Common) -> StackHealth:
    from teatree.client.health import read_health  # noqa: PLC0415 - NATS, only here
    from teatree.client.session import connect  # noqa: PLC0415

    session = connect(data=common.data, name="teatree-status")
    try:
        return await read_health(session)
    finally:
        await session.close()


def _plain(health: StackHealth) -> dict[str, Any]:
    return attrs.asdict(
        health, value_serializer=lambda _, __, value: value.to_dict() if isinstance(value, TeatreeError) else value
    )


def _show(output: Output, health: StackHealth) -> None:
    output.table(
        ("part", "state", "ms", "version", "address", ""), [_part_row(part) for part in health.parts], right=("ms",)
    )
    if health.error:
        output.remark(f"The models are not known: {health.error}")
    if not health.models:
        return
    models = sorted(health.models, key=lambda model: (model.state in _WELL, not model.waiting_requests, model.name))
    columns = ("model", "state", "version", "waiting", "manager", "memory")
    rows = [_model_row(model) for model in models[:SHOWN_MODELS_MAX]]
    output.table(columns, rows, right=("version", "waiting", "manager", "memory"))
    if len(models) > len(rows):
        more = counted(len(models) - len(rows), "more model")
        output.remark(f"{more}: `teatree models` and `teatree status --json` list all.")


def _part_row(part: PartHealth) -> tuple[Any, ...]:
    what = str(part.error) if part.error else part.detail
    return part.name, part.state, _text(part.latency_ms), part.version or "", part.address or "", what or ""


def _model_row(model: ModelHealth) -> tuple[Any, ...]:
    manager = model.manager
    pid = "" if manager is None else "no answer" if manager.error else _text(manager.pid)
    memory = size_text(manager.memory_bytes) if manager and manager.memory_bytes else ""
    state = f"{model.state}: {model.why}" if model.why else model.state
    return model.name, state, model.version, _text(model.waiting_requests), pid, memory


def _text(number: float | None) -> str:
    return "" if number is None else str(number)
