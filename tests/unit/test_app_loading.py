"""Loading of apps: found by entry point and imported within a time; what is wrong with one is an error of its calls."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from installed_apps import forget, write_app
from one_writer import OneWriter, Sent
from teatree.contracts.errors import AppError, Code, RequestError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.settings import ManagerSettings
from teatree.functions.app.import_mark import ImportMark
from teatree.functions.app.loading import Apps, LoadedApp
from teatree_manager.apps.app_listing import list_functions

TABLE = {"table": "t", "columns": [{"name": "n", "type": "BIGINT"}]}
GOOD = """
from teatree import App, Write
app = App("acme")
@app.mutation
def add(db: Write, n: int) -> int:
    return db.append("t", [{"n": n + STEP}])
STEP = %d
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder in which Python finds packages."""
    found = tmp_path / "site-packages"
    found.mkdir()
    monkeypatch.syspath_prepend(found)
    forget("acme")
    yield found
    forget("acme")


@pytest.fixture
def model(tmp_path: Path, folder: Path) -> Iterator[OneWriter]:
    """Return a model with the app `acme`, which adds 1."""
    write_app(folder, "acme", GOOD % 1)
    model = OneWriter(tmp_path / "model", [TABLE], app="acme")
    yield model
    model.check_good_rows()
    model.close()


def add(model: OneWriter, n: int) -> Outcome:
    """Call the function of the app between two neighbours."""
    return model.between(Sent("add", {"n": n}))


def newest(model: OneWriter) -> Manifest:
    """Return the newest manifest."""
    found = model.chain.newest()
    assert found is not None
    return found


def rows(model: OneWriter) -> list[int]:
    """Return the rows of `t`."""
    return [row["n"] for row in model.rows("SELECT n FROM t ORDER BY n")]


def next_process(model: OneWriter, apps: Apps | None = None) -> None:
    """Continue as another process would: it imports anew."""
    forget("acme")
    model.restart(apps)


def fault(loaded: LoadedApp) -> AppError:
    """Return what is wrong with an app."""
    assert loaded.app is None
    assert loaded.error is not None
    assert loaded.error.code is Code.BAD_APP
    return loaded.error


@pytest.mark.parametrize(
    ("source", "what", "line"),
    [
        ("x = 1\nraise ValueError('no luck')\n", "raised ValueError: no luck", "raise ValueError('no luck')"),
        ("import sys\nsys.exit(3)\n", "raised SystemExit: 3", "sys.exit(3)"),
        ("raise KeyboardInterrupt\n", "raised KeyboardInterrupt", "raise KeyboardInterrupt"),
        ("import no_such_package\n", "No module named 'no_such_package'", "import no_such_package"),
        ("from teatree import nothing_like_it\n", "ImportError", "from teatree import"),
        ("def f(:\n", "SyntaxError", "def f(:"),
        ("\0", "SyntaxError", ""),
        ("app = 5\n", "acme:app is a int, not a teatree.App", ""),
        ("from teatree import App as app\n", "not a teatree.App", ""),
        ("", "AttributeError", ""),
        (
            "from teatree import App\napp = App('acme')\n@app.query\ndef f(x: \"Nowhere\"): ...\n",
            "The hints of f cannot be resolved",
            "",
        ),
        (
            "from teatree import App\napp = App('acme')\n@app.query\ndef append(): ...\n",
            "name of a built-in",
            "@app.query",
        ),
        ("from teatree import App\napp = App('acme', version='')\n", "is not a text of 1 to 100", ""),
    ],
)
def test_an_app_that_cannot_be_imported(folder: Path, source: str, what: str, line: str) -> None:
    """The error has the reason, and the user's own lines; this process continues."""
    write_app(folder, "acme", source)
    error = fault(Apps().load("acme"))
    assert what in str(error)
    assert "acme" in str(error)
    assert line in (error.traceback or "")
    assert "functions/app/loading" not in (error.traceback or "")


def test_an_import_that_does_not_end(folder: Path) -> None:
    """It is left behind, and the error names where it is; its module's name is of no more use in this process."""
    write_app(folder, "acme_endless", "import time\ntime.sleep(10**6)\n")
    error = fault(Apps(import_ms_max=300).load("acme_endless"))
    assert "has not ended within 300 ms" in str(error)
    assert "time.sleep(10**6)" in (error.traceback or "")


def test_an_app_of_a_package_that_is_not_there(folder: Path) -> None:
    """An entry point that outlived its package names it."""
    write_app(folder, "acme", "", value="acme_gone.app:app")
    assert "acme_gone" in str(fault(Apps().load("acme")))


def test_an_error_that_another_caused_shows_both(folder: Path) -> None:
    """The first one is often the reason."""
    write_app(folder, "acme", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise LookupError('x') from e\n")
    traceback = fault(Apps().load("acme")).traceback or ""
    assert traceback.index("ZeroDivisionError") < traceback.index("LookupError: x")


def test_only_installed_and_allowed_names(folder: Path) -> None:
    """A name is one of an entry point; a module's path is none, whatever can be imported."""
    write_app(folder, "acme", GOOD % 1)
    assert "acme" in Apps().names
    for name in ("os", "acme:app", "acme.app", "", "../acme", "ACME", "x" * 1000):
        with pytest.raises(RequestError):
            Apps().check(name)
    with pytest.raises(RequestError) as refused:
        Apps(("other", "another")).check("acme")
    assert refused.value.hint is not None
    assert "is not allowed by TEATREE_MANAGER_APPS" in str(fault(Apps(("other",)).load("acme")))
    assert Apps.of(ManagerSettings(apps=" acme , other"), 3).check("acme") == "acme"
    assert "is not installed" in str(fault(Apps().load("other")))


def test_what_was_installed_meanwhile_is_found(folder: Path) -> None:
    """A process that began before an app was installed finds it."""
    assert "acme" not in Apps().names
    write_app(folder, "acme", GOOD % 1)
    assert Apps().load("acme").error is None


def test_two_packages_with_one_name(folder: Path) -> None:
    """Neither is used, and both are named."""
    write_app(folder, "acme", GOOD % 1)
    write_app(folder, "acme_other", GOOD % 1, name="acme")
    assert "of acme and acme_other" in str(fault(Apps().load("acme")))


def test_the_code_of_an_app(folder: Path) -> None:
    """Its version is the app's, else its distribution's; its hash changes with any of its sources and their names."""
    package = folder / "acme"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "functions.py").write_text(GOOD % 1)
    write_app(folder, "acme_dist", "", name="acme", version="2.5", value="acme.functions:app")
    first = Apps().load("acme").code
    assert first is not None
    assert (first.name, first.version, len(first.code_hash)) == ("acme", "2.5", 64)
    found = {first.code_hash}
    changes: list[Callable[[], Any]] = [
        lambda: (package / "goals.sql").write_text("SELECT 1"),
        lambda: (package / "goals.sql").write_text("SELECT 2"),
        lambda: (package / "goals.sql").rename(package / "others.sql"),
        lambda: (package / "__init__.py").write_text("# a comment"),
    ]
    for change in changes:
        change()
        found.add(Apps().installed_hash("acme") or "")
    assert len(found) == 5
    (package / "data.csv").write_text("1")
    assert Apps().installed_hash("acme") in found


def test_an_import_that_ends_its_process(folder: Path, tmp_path: Path) -> None:
    """It is tried a few times, and then when the code has changed: a process can be killed by chance."""
    write_app(folder, "acme", "import os\nos._exit(3)\n")
    mark = tmp_path / "mark.json"
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from teatree.functions.app.loading import Apps; from teatree.functions.app.import_mark import ImportMark;"
        "Apps(tries_max=2).load('acme', ImportMark(Path(sys.argv[2])))"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script, folder, mark], check=False).returncode == 3
    assert "has ended its process 2 times" in str(fault(Apps(tries_max=2).load("acme", ImportMark(mark))))
    write_app(folder, "acme", GOOD % 1)
    assert Apps(tries_max=2).load("acme", ImportMark(mark)).error is None
    assert not mark.exists()


# --- a model's app ---


def test_a_new_version_is_taken_by_the_next_process(model: OneWriter, folder: Path) -> None:
    """Requests meet the code that their process has loaded; each version names the code that it was made with."""
    first = add(model, 10)
    write_app(folder, "acme", GOOD % 2, version="2")
    second = add(model, 20)
    before = newest(model).app
    next_process(model)
    assert newest(model).app == before  # the fence repeats its predecessor
    third = add(model, 30)
    assert rows(model) == [11, 21, 32]
    assert first.app == second.app == before
    assert third.app == newest(model).app
    assert [o.app.version for o in (first, second, third) if o.app] == ["1", "1", "2"]


def test_changed_code_under_one_version_is_refused(model: OneWriter, folder: Path) -> None:
    """Calls fail and name what to do; the built-in functions work; the recorded code stays, and works again."""
    code = add(model, 10).app
    write_app(folder, "acme", GOOD % 2)
    next_process(model)
    refused = add(model, 20)
    assert (refused.status, refused.app) == (Status.FAILED, None)
    assert refused.error is not None
    assert refused.error["code"] == "bad_app"
    assert "Raise its version" in refused.error["message"]
    assert newest(model).app == code
    write_app(folder, "acme", GOOD % 1)
    next_process(model)
    assert add(model, 30).app == code
    assert rows(model) == [11, 31]


def test_changed_code_while_it_is_developed(model: OneWriter, folder: Path) -> None:
    """With the setting for that, it is taken, and recorded."""
    first = add(model, 10).app
    write_app(folder, "acme", GOOD % 2)
    next_process(model, Apps(may_change=True))
    second = add(model, 10).app
    assert rows(model) == [11, 12]
    assert first is not None
    assert second is not None
    assert (first.version, first.code_hash) != (second.version, second.code_hash)
    assert newest(model).app == second


def test_a_broken_app_leaves_the_built_in_functions(model: OneWriter, folder: Path) -> None:
    """Each call of whatever the app may have had fails with the user's traceback; a repaired one works again."""
    add(model, 1)
    write_app(folder, "acme", "raise RuntimeError('broken')\n", version="2")
    next_process(model)
    for function in ("add", "anything"):
        outcome = model.between(Sent(function, {"n": 1}))
        assert outcome.status is Status.FAILED
        assert outcome.error is not None
        assert outcome.error["code"] == "bad_app"
        assert "RuntimeError: broken" in outcome.error["traceback"]
    write_app(folder, "acme", GOOD % 5, version="3")
    next_process(model)
    assert add(model, 1).status is Status.DONE
    assert rows(model) == [2, 6]


def test_use_app(model: OneWriter, folder: Path) -> None:
    """It sets the model's app from the next process on; the writer that applied it is outdated."""
    write_app(folder, "other", GOOD.replace("acme", "other") % 7)
    add(model, 1)
    for wrong in ({"app": "unknown"}, {"app": "os.path"}, {"app": 5}, {}, {"app": "other", "more": 1}):
        assert model.between(Sent("use_app", wrong)).status is Status.REJECTED
    assert not model.writer.is_outdated
    (outcome,) = model.apply(Sent("use_app", {"app": "other"}))
    assert (outcome.status, outcome.result, outcome.effect) == (Status.DONE, {"app": "other"}, False)
    assert (newest(model).options.app, newest(model).app) == ("other", None)
    assert model.writer.is_outdated
    next_process(model)
    assert not model.writer.is_outdated
    later = add(model, 1)
    assert later.app is not None
    assert later.app.name == "other"
    model.apply(Sent("use_app", {"app": None}))
    next_process(model)
    assert newest(model).options.app is None
    gone = add(model, 1)
    assert gone.error is not None
    assert gone.error["code"] == "unknown_function"
    assert rows(model) == [2, 8]
    forget("other")


def test_use_app_of_the_same_name_keeps_what_was_recorded(model: OneWriter) -> None:
    """So changed code under the same version is still refused."""
    code = add(model, 1).app
    model.apply(Sent("use_app", {"app": "acme"}))
    assert (newest(model).options.app, newest(model).app) == ("acme", code)


def test_a_crash_after_use_app(model: OneWriter, folder: Path) -> None:
    """A change that was committed and not shipped is the next writer's, which loads that app."""
    write_app(folder, "other", GOOD.replace("acme", "other") % 7)
    add(model, 1)
    model.writer.apply([model._request(Sent("add", {"n": 2}))])
    model.restart()
    assert newest(model).app is not None
    model.writer.apply([model._request(Sent("use_app", {"app": "other"}))])
    model.restart()
    assert (newest(model).options.app, newest(model).app) == ("other", None)
    later = add(model, 3).app
    assert later is not None
    assert later.name == "other"
    assert newest(model).app == later
    assert rows(model) == [2, 3, 10]
    forget("other")


def test_a_restored_version_keeps_the_app(model: OneWriter) -> None:
    """`restore` brings back tables: the functions are those that the model has now."""
    before = newest(model)
    add(model, 1)
    model.apply(Sent("use_app", {"app": None}))
    model.apply(Sent("restore", {"version": before.version}))
    model._good.clear()
    assert newest(model).options.app is None


def test_a_new_incarnation_has_no_code_of_the_one_before(model: OneWriter, folder: Path) -> None:
    """What was recorded belongs to the model that was dropped."""
    add(model, 1)
    model.apply(Sent("drop_model"))
    assert newest(model).app is None
    write_app(folder, "acme", GOOD % 4)
    forget("acme")
    good = {"table": "good", "columns": [{"name": "n", "type": "BIGINT"}]}
    model.apply(Sent("create_model", {"app": "acme", "tables": [TABLE, good]}))
    (outcome,) = model.apply(Sent("add", {"n": 1}))
    assert outcome.status is Status.DONE
    assert rows(model) == [5]
    model._good.clear()


def test_create_model_names_an_installed_app(tmp_path: Path, folder: Path) -> None:
    """An unknown or forbidden app is refused before anything is made."""
    write_app(folder, "acme", GOOD % 1)
    model = OneWriter(tmp_path / "m", apps=Apps(("another",)))
    for app in ("acme", "acme:app", "os"):
        (outcome,) = model.apply(Sent("create_model", {"app": app}))
        assert outcome.status is Status.REJECTED
        assert outcome.error is not None
        assert outcome.error["where"] == "app"
    model.close()


def test_the_names_of_functions_for_shells(model: OneWriter) -> None:
    """They lie in the model's folder."""
    assert model.writer.context.folder.function_names.read_text() == "add\n"
    assert isinstance(model.writer.app and model.writer.app.code, AppCode)


def test_what_a_model_lists(model: OneWriter, folder: Path) -> None:
    """The functions of its app with their schemas, and the built-in ones; an app that cannot be used has its error."""
    found = list_functions("m", model.writer.functions)
    assert [function["name"] for function in found["functions"]] == ["add"]
    assert found["functions"][0]["schema"]["required"] == ["n"]
    assert (found["app"]["name"], found["app"]["version"]) == ("acme", "1")
    built_ins = {function["name"]: function for function in found["built_ins"]}
    assert built_ins.keys() >= {"append", "query", "use_app", "load"}
    assert built_ins["append"]["schema"]["required"] == ["table", "rows"]
    assert built_ins["load"]["schema"]["properties"]["mode"]["enum"] == ["append", "replace", "create"]
    write_app(folder, "acme", "raise RuntimeError('broken')\n", version="2")
    next_process(model)
    broken = list_functions("m", model.writer.functions)
    assert broken["functions"] == []
    assert "RuntimeError" in broken["error"]["message"]
