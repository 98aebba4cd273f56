"""Apps of tests: packages with an entry point in folders, found by Python's path without an installation."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

APPS = Path(__file__).with_name("apps")
"""The folder of `goals_app`."""


def write_app(
    folder: Path, package: str, source: str, *, name: str | None = None, version: str = "1", value: str | None = None
) -> Path:
    """Write a package of one module and its entry point into a folder, or in place of those there; return its module.

    `name` is the app's, by default the package's; `value` is what its entry point names.
    """
    for old in folder.glob(f"{package}-*.dist-info"):
        for path in old.iterdir():
            path.unlink()
        old.rmdir()
    information = folder / f"{package}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (information / "entry_points.txt").write_text(f"[teatree.apps]\n{name or package} = {value or f'{package}:app'}\n")
    module = folder / f"{package}.py"
    before = module.stat().st_mtime_ns if module.exists() else 0
    module.write_text(source)
    if before:  # a compiled module is taken for current by the second and the size of its source
        os.utime(module, ns=(before + 2_000_000_000, before + 2_000_000_000))
    return module


def forget(*packages: str) -> None:
    """Have packages imported anew, as another process does."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def path_with(*folders: Path) -> Mapping[str, str]:
    """Return the environment of a process that finds the apps in these folders."""
    return {"PYTHONPATH": os.pathsep.join(map(str, folders))}
