"""Replaceable parts: found by entry point, imported when they are used; what is wrong with one names its package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.parts import PartGroup, load_part, make_part, part_names
from teatree.contracts.settings import StoreSettings
from teatree.datasets.source_rows import read_chunks
from teatree.functions.sources import Sources
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.stores import open_store

Install = Callable[..., None]
_LAUNCHER = "TEATREE_DISPATCHER_LAUNCHER"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs a package with one module and its entry points, by group, for this test."""

    def installed(package: str, module: str, **groups: str) -> None:
        folder = tmp_path / package
        information = folder / f"{package}-1.2.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        lines = [f"[teatree.{group}]\n{entry.replace(';', chr(10))}\n" for group, entry in groups.items()]
        (information / "entry_points.txt").write_text("\n".join(lines))
        (folder / f"{package}.py").write_text(module)
        monkeypatch.delitem(sys.modules, package, raising=False)
        monkeypatch.syspath_prepend(folder)

    return installed


def refusal(work: Callable[[], object]) -> OperatorError:
    """Return the error with which a part is refused."""
    with pytest.raises(OperatorError) as refused:
        work()
    assert refused.value.code is Code.WRONG_CONFIGURATION
    return refused.value


def test_ours_are_parts_like_any_other() -> None:
    """Every form of ours stands in the distribution's entry points, and can be imported."""
    expected = {
        PartGroup.STORES: ("file", "s3"),
        PartGroup.ENGINES: ("duckdb",),
        PartGroup.LAUNCHERS: ("process",),
        PartGroup.SOURCES: ("file", "s3"),
        PartGroup.FORMATS: ("arrow", "csv", "feather", "ipc", "parquet", "tsv"),
    }
    for group, names in expected.items():
        assert set(names) <= set(part_names(group))  # others may be installed
        for name in names:
            assert callable(load_part(group, name, "here"))


def test_a_store_of_another_package(install: Install, tmp_path: Path) -> None:
    """A package's store is opened by its scheme, with all settings."""
    install(
        "acme_shelf",
        "from teatree.storage.objects.local import LocalObjectStore\n"
        "from pathlib import Path\n"
        "def opened(settings):\n"
        "    return LocalObjectStore(Path(settings.url.removeprefix('shelf://')))\n",
        stores="shelf = acme_shelf:opened",
    )
    store = open_store(StoreSettings(url=f"shelf://{tmp_path}/store"))
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_an_unknown_name_lists_what_there_is() -> None:
    """The error has the setting, the name and the names that there are."""
    error = refusal(lambda: load_part(PartGroup.LAUNCHERS, "pods", _LAUNCHER))
    assert error.where == _LAUNCHER
    assert error.message == "There is no launcher 'pods'."
    assert error.hint is not None
    assert error.hint.startswith("There are: process.")


def test_without_any_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that has none, such as an outdated editable one, is to be installed again."""
    monkeypatch.setattr(sys, "path", [])
    error = refusal(lambda: load_part(PartGroup.STORES, "file", "TEATREE_STORE_URL"))
    assert error.hint is not None
    assert error.hint.startswith("Install teatree again")


def test_a_part_that_cannot_be_imported(install: Install) -> None:
    """The error names the package and why; other parts of the group are not affected."""
    install("acme_broken", "import no_such_module_of_acme\n", stores="shelf = acme_broken:opened")
    error = refusal(lambda: open_store(StoreSettings(url="shelf://x")))
    assert "'shelf' of acme_broken 1.2 cannot be loaded: ModuleNotFoundError" in error.message
    assert "no_such_module_of_acme" in error.message
    assert callable(load_part(PartGroup.STORES, "file", "here"))


@pytest.mark.parametrize(("target", "what"), [("missing", "AttributeError"), ("number", "cannot be called")])
def test_an_entry_point_that_names_no_part(install: Install, target: str, what: str) -> None:
    """An entry point to nothing, or to what cannot be called, is an error of its package."""
    install(f"acme_{target}", "number = 1\n", stores=f"shelf = acme_{target}:{target}")
    error = refusal(lambda: open_store(StoreSettings(url="shelf://x")))
    assert f"acme_{target} 1.2" in error.message
    assert what in error.message


def test_two_packages_with_one_name(install: Install) -> None:
    """Which of the two would be used depends on nothing that an operator sees: neither is, and both are named."""
    for package in ("acme_one", "acme_two"):
        install(package, "", stores="file = acme:opened")
    error = refusal(lambda: open_store(StoreSettings(url="file:///x")))
    assert error.message.startswith("There are 3 stores 'file': of acme_one 1.2 and acme_two 1.2 and teatree ")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("raise ValueError(settings.url, settings.secret_key)", "could not be made: ValueError"),
        ("return object()", "is no ObjectStore but a object"),
    ],
)
def test_what_a_part_makes_of_its_settings(install: Install, body: str, what: str) -> None:
    """An unforeseen error of a part is an operator's, without the secrets that its text may hold."""
    install("acme_faulty", f"def opened(settings):\n    {body}\n", stores="shelf = acme_faulty:opened")
    settings = StoreSettings(url="shelf://user:hunter2@x", secret_key="hunter3")
    error = refusal(lambda: open_store(settings))
    assert what in str(error)
    assert "hunter" not in str(error)


def test_errors_of_the_tree_pass(install: Install) -> None:
    """A part raises its own error for what is wrong with its settings."""
    module = (
        "from teatree.contracts.errors import *\n"
        "def opened(settings):\n    raise RetryError(Code.UNAVAILABLE, 'The shelf does not answer.')\n"
    )
    install("acme_strict", module, stores="shelf = acme_strict:opened")
    with pytest.raises(Exception, match="The shelf does not answer") as refused:
        make_part(PartGroup.STORES, "shelf", ObjectStore, "here", StoreSettings(url="shelf://x"))
    assert getattr(refused.value, "code", None) is Code.UNAVAILABLE


@pytest.mark.parametrize("url", ["hunter2:key@bucket", "hunter2", ":hunter2@x"])
def test_a_password_in_place_of_a_scheme(url: str) -> None:
    """What stands before a colon in a URL that is none is not repeated."""
    assert "hunter2" not in str(refusal(lambda: open_store(StoreSettings(url=url))))


def test_a_source_and_a_format_of_another_package(install: Install, tmp_path: Path) -> None:
    """`load` reads what an installed source fetches, in an installed format, inside the roots."""
    install(
        "acme_lines",
        "from contextlib import contextmanager\n"
        "from pathlib import Path\n"
        "from teatree.functions.sources import Source\n"
        "import pyarrow as pa\n"
        "class Shelf(Source):\n"
        "    def __init__(self, places): pass\n"
        "    @contextmanager\n"
        "    def local_file(self, uri):\n"
        f"        path = Path({str(tmp_path)!r}) / 'fetched.lines'\n"
        "        path.write_text(uri)\n"
        "        yield path\n"
        "def rows(file):\n"
        "    yield pa.table({'line': [file.path.read_text()]})\n",
        sources="shelf = acme_lines:Shelf",
        formats="lines = acme_lines:rows",
    )
    sources = Sources(("shelf://a/b",), StoreSettings())
    with sources.local_file("shelf://a/b/c.lines?to=elsewhere#x") as path:
        (chunk,) = read_chunks(path, None, None, 1_000)
    assert chunk.to_pylist() == [{"line": "shelf://a/b/c.lines"}]
    for uri in ("shelf://a/c", "shelf://a/bc", "shelf://a/b/../c", "shelf://a/b/%2E%2e/c", "shelf://c@a/b"):
        with pytest.raises(RequestError) as refused, sources.local_file(uri):
            pass
        assert refused.value.code is Code.SOURCE_NOT_ALLOWED


def test_a_broken_source_or_format_refuses_the_request(install: Install, tmp_path: Path) -> None:
    """A manager goes not down with a package that cannot be imported: the request is refused, with the reason."""
    install("acme_gone", "import nothing_here\n", sources="shelf = acme_gone:x", formats="lines = acme_gone:x")
    (tmp_path / "a.lines").touch()
    sources = Sources(("shelf://a",), StoreSettings())
    with pytest.raises(RequestError) as no_source, sources.local_file("shelf://a/b"):
        pass
    with pytest.raises(RequestError) as no_format:
        list(read_chunks(tmp_path / "a.lines", None, None, 1_000))
    for refused in (no_source.value, no_format.value):
        assert refused.code is Code.BAD_SOURCE
        assert "acme_gone 1.2" in refused.message


def test_nothing_is_read_before_a_part_is_used() -> None:
    """Importing what finds parts reads no metadata and imports no part."""
    script = (
        "import sys, json; import teatree.contracts.parts, teatree.storage.objects.stores;"
        "names = ('importlib.metadata', 'teatree.storage.objects.local', 'teatree.storage.objects.s3', 'boto3');"
        "print(json.dumps([name for name in names if name in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert json.loads(found.stdout) == []
