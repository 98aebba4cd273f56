"""`teatree repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output
from teatree.cli.running import store_session

if TYPE_CHECKING:
    from teatree.storage.versions.repair import Repaired


def repair(
    model: ModelName,
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    common: StoreCommon = STORE_DEFAULT,
) -> None:
    """Restore manifests that vanished, or give their versions up.

    The newest manifest is restored from its copy `head`. Each other one is replaced by a stub, as after a clean-up, so
    that the rest of the history can be used. Restore a backup of the store first if there is one.

    Example: teatree repair sales

    Parameters
    ----------
    model
        The model's name.
    dry_run
        Only list what is missing.
    """
    from teatree.storage.versions.repair import missing_versions  # noqa: PLC0415
    from teatree.storage.versions.repair import repair as restore_manifests  # noqa: PLC0415

    output = Output(json=common.json)
    chain = store_session(common).model(model).chain()
    if dry_run:
        missing = missing_versions(chain)
        if output.json:
            output.line({"model": model, "missing": missing})
        else:
            output.message(f"Missing versions of {model}: {', '.join(map(str, missing)) or 'none'}.")
        return
    _show(output, model, restore_manifests(chain))


def _show(output: Output, model: str, done: list[Repaired]) -> None:
    if output.json:
        for repaired in done:
            output.line(repaired)
    elif not done:
        output.message(f"No version of {model} is missing.", "green")
    else:
        output.table(("version", "repaired"), [(one.version, one.way.value) for one in done], right=("version",))
        output.remark(f"`teatree verify {model} --all` checks the rest.")
