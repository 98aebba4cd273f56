"""The base works without the packages of any extra, and names the extra that a call needs."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from event_logs import captured_events
from teatree.contracts.errors import OperatorError
from teatree.contracts.extras import extra_for
from teatree.contracts.logs import log_event

ROOT = Path(__file__).parents[2]
BLOCKED = [
    *"polars pandas boto3 botocore psycopg psycopg_pool structlog alembic sqlalchemy uvloop zstandard".split(),
    *"cyclopts rich cryptography psutil pytest fast_depends".split(),
]
"""What the extras install, by the names that are imported."""
OF_EXTRAS = {
    "teatree.datasets.results.pandas_frame": "pandas",
    "teatree.datasets.results.polars_frame": "polars",
    "teatree.storage.objects.s3": "s3",
    "teatree.storage.objects.s3_errors": "s3",
    "teatree.storage.catalog.postgres": "catalog",
}
"""Modules that need a package of an extra, and are imported when they are used."""
_BEGIN = f"""
import sys, json
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run_blocked(script: str) -> str:
    """Run a script in a process that has no package of an extra; return what it printed."""
    found = subprocess.run([sys.executable, "-c", _BEGIN + script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def base_modules() -> list[str]:
    """Return the names of all modules of the base."""
    paths = sorted((ROOT / "src" / "teatree").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__") for path in paths]
    others = ("teatree.cli.", "teatree.embedded", "teatree.storage.catalog.migrations.", "teatree.testing")
    return [name for name in names if not name.startswith(others) and name not in OF_EXTRAS]


def test_each_base_module_is_imported_without_any_extra() -> None:
    """A laptop with the base alone can import every module but those of an extra, and all names of `teatree`."""
    modules = base_modules()
    assert len(modules) > 150
    script = f"""
import importlib, teatree
for name in {modules!r}:
    importlib.import_module(name)
for name in teatree.__all__:
    getattr(teatree, name)
"""
    run_blocked(script)


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [
        (
            "from teatree.storage.objects.stores import open_store; open_store(StoreSettings(url='s3://b/p'))",
            "botocore",
            "s3",
        ),
        ("Dataset.from_arrow(pa.table({'a': [1]})).to_polars()", "polars", "polars"),
        ("Dataset.from_arrow(pa.table({'a': [1]})).to_pandas()", "pandas", "pandas"),
        (
            "list_models(Settings(postgres=PostgresSettings(url='postgresql://h/d')), lambda: None)",
            "psycopg",
            "catalog",
        ),
        ("depending_app().functions", "fast_depends", "apps"),
        ("import teatree_manager", "structlog", "server"),
        ("import teatree_dispatcher", "structlog", "server"),
        ("import teatree.embedded", "cryptography", "embedded"),
        ("import teatree.testing", "pytest", "testing"),
    ],
)
def test_a_call_that_needs_an_extra_names_it(call: str, package: str, extra: str) -> None:
    """A missing package is an error of the tree that names the package and how to install it."""
    script = f"""
from typing import Annotated
import pyarrow as pa
import teatree
from teatree.client.listing import list_models
from teatree.contracts.errors import OperatorError
from teatree.contracts.settings import PostgresSettings, Settings, StoreSettings
from teatree.datasets.dataset import Dataset
def depending_app():
    app = teatree.App("orders")
    @app.query
    def plain(n: int) -> int: return n
    assert app.functions["plain"].run({{"n": 1}}, None, None) == 1
    @app.query
    def depending(n: Annotated[int, teatree.Depends(lambda: 1)]) -> int: return n
    return app
try:
    {call}
except OperatorError as e:
    print(json.dumps([e.code, e.where.partition('.')[0], e.message, e.hint]))
"""
    code, where, message, hint = json.loads(run_blocked(script))
    assert (code, where) == ("wrong_configuration", package)
    assert f"needs the Python package {package}, which is not installed." in message
    assert hint == f"Run `pip install 'teatree[{extra}]'`."


def test_the_command_names_its_extra() -> None:
    """`teatree` without the packages of the command line is one line and an exit code, not a traceback."""
    script = """
from teatree.cli.start import main
try:
    main()
except SystemExit as e:
    print(e.code)
"""
    found = subprocess.run([sys.executable, "-c", _BEGIN + script], capture_output=True, text=True, check=False)
    assert found.stdout == "5\n"
    assert "cyclopts, which is not installed" in found.stderr
    assert "pip install 'teatree[cli]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_missing_module_of_our_own_stays_what_it_is() -> None:
    """Only packages of others are translated: a wrong import of our own is a defect."""
    with pytest.raises(ModuleNotFoundError), extra_for("A part", "s3"):
        import teatree.no_such_module  # type: ignore[import-not-found] # noqa: F401, PLC0415


def test_every_extra_exists() -> None:
    """Each extra that an error can name is one of the distribution."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"apps", "cli", "polars", "s3", "catalog", "server", "embedded", "testing"} <= set(extras)


def test_events_reach_a_server_with_their_members() -> None:
    """A server's log has an event of the library with its members and the traceback of its failure."""
    with captured_events() as logs:
        log_event(40, "it failed", failure=OperatorError.__new__(OperatorError), seq=3)
    (line,) = logs
    assert (line["event"], line["log_level"], line["seq"]) == ("it failed", "error", 3)
    assert isinstance(line["exc_info"][1], OperatorError)
