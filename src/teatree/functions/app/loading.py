"""Loading of apps: found by entry point, imported within a time limit.

Whatever is wrong with an app ends no manager: it becomes the error with which calls of its functions end.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from attrs import frozen

from teatree.contracts.errors import AppError, Code, RequestError, TeatreeError
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.names import check_app
from teatree.contracts.parts import PartGroup, installed_now
from teatree.contracts.settings import ManagerSettings
from teatree.contracts.shown import shown
from teatree.functions.app.app import NO_VERSION, App
from teatree.functions.app.code_hash import code_hash
from teatree.functions.app.import_mark import ImportMark
from teatree.functions.app.timed_work import StillRunningError, TimedWork, WorkError
from teatree.functions.app.user_traceback import app_error, described, user_traceback

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

VERSION_CHARS_MAX = 100
_AGAIN = "When that is repaired, the request `use_app` makes the model's manager load it again."


@frozen
class LoadedApp:
    """An app that this process has loaded, or why it cannot be used."""

    name: str
    app: App | None = None
    code: AppCode | None = None
    """Its code; None if that cannot be read."""
    error: AppError | None = None
    """Why its functions cannot be called; None if they can."""


@frozen
class Apps:
    """The apps that are installed and that the operator allows."""

    allowed: tuple[str, ...] = ()
    """Their names; all that are installed if it is empty."""
    import_ms_max: int = 30_000
    tries_max: int = 3
    """Times that an import may end its process before it is not tried any more."""
    may_change: bool = False
    """Whether code may change under one version, as it does while it is developed."""

    @classmethod
    def of(cls, settings: ManagerSettings, tries_max: int) -> Apps:
        """Return those that a manager's settings allow."""
        allowed = tuple(name.strip() for name in settings.apps.split(",") if name.strip())
        return cls(allowed, settings.app_import_ms_max, tries_max, bool(settings.app_reload))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the apps that a model may have, sorted."""
        return tuple(sorted(name for name in installed_now(PartGroup.APPS) if self._is_allowed(name)))

    def _is_allowed(self, name: str) -> bool:
        return not self.allowed or name in self.allowed

    def check(self, name: str, where: str = "app") -> str:
        """Return the name of an app that a model may have; raises `bad_name`, or `bad_argument` with all there are."""
        check_app(name)
        names = self.names
        if name not in names:
            raise RequestError(
                Code.BAD_ARGUMENT,
                f"There is no app {shown(name)} that a model may have.",
                where=where,
                hint=f"There are: {', '.join(names)}."
                if names
                else f"No package with an entry point in {PartGroup.APPS}"
                " is installed, or allowed by TEATREE_MANAGER_APPS.",
            )
        return name

    def installed_hash(self, name: str) -> str | None:
        """Return the hash of the code of an app as it is installed now, None if that cannot be read."""
        try:
            return _read_hash(name, self._entry(name))
        except AppError:
            return None

    def load(self, name: str, mark: ImportMark | None = None) -> LoadedApp:
        """Import an app; what is wrong with it is the result's error.

        `mark` notes what is imported, for the case that this ends the process.
        """
        code: AppCode | None = None
        try:
            entry = self._entry(name)
            code = AppCode(name, _distribution_version(entry), _read_hash(name, entry))
            marked = nullcontext() if mark is None else mark.importing(name, code.code_hash, self.tries_max)
            with marked:
                app = self._import(name, entry)
            # An app finds its distribution by its name, and an entry point can have another one.
            version = code.version if app.version == NO_VERSION else app.version
            code = AppCode(name, _checked_version(name, version), code.code_hash)
            if _read_hash(name, entry) != code.code_hash:
                raise _bad_app(f"The files of the app {name!r} changed while it was imported.")
        except AppError as e:
            return LoadedApp(name, None, code, e)
        return LoadedApp(name, app, code)

    def _entry(self, name: str) -> EntryPoint:
        found = installed_now(PartGroup.APPS).get(name, [])
        if not found or not self._is_allowed(name):
            what = "installed" if not found else "allowed by TEATREE_MANAGER_APPS"
            raise _bad_app(f"The app {name!r} is not {what} where the model's manager runs.")
        if len(found) > 1:
            packages = sorted("an unknown package" if e.dist is None else str(e.dist.name) for e in found)
            raise _bad_app(f"There are {len(found)} apps {name!r}: of {' and '.join(packages)}.")
        return found[0]

    def _import(self, name: str, entry: EntryPoint) -> App:
        what = f"The import of the app {name!r} ({entry.value})"
        try:
            return TimedWork(lambda: _loaded(entry)).run(self.import_ms_max)
        except StillRunningError as e:
            raise AppError(
                Code.BAD_APP,
                f"{what} has not ended within {self.import_ms_max} ms.",
                where="function",
                hint="An operator can allow more time by TEATREE_MANAGER_APP_IMPORT_MS_MAX.",
                traceback=e.stack,
            ) from None
        except WorkError as e:
            raise _import_error(what, e.error) from e.error


INSTALLED_APPS = Apps()
"""All that are installed."""


def _import_error(what: str, error: BaseException) -> AppError:
    if not isinstance(error, TeatreeError):
        return app_error(error, what, Code.BAD_APP, _AGAIN)
    # Of the registration of a function, for example.
    message, where = f"{what} failed: {error.message}", error.where or "function"
    return AppError(Code.BAD_APP, message, where=where, hint=error.hint, traceback=user_traceback(error))


def _loaded(entry: EntryPoint) -> App:
    found = entry.load()
    if not isinstance(found, App):
        raise _bad_app(f"{entry.value} is a {type(found).__name__}, not a teatree.App.")
    _ = found.functions  # resolves the types of their parameters
    return found


def _read_hash(name: str, entry: EntryPoint) -> str:
    try:
        return code_hash(entry.module)
    except (ImportError, OSError, ValueError) as e:
        raise _bad_app(f"The files of the app {name!r} ({entry.value}) cannot be read: {described(e)}") from e


def _distribution_version(entry: EntryPoint) -> str:
    return NO_VERSION if entry.dist is None else entry.dist.version


def _checked_version(name: str, version: object) -> str:
    if isinstance(version, str) and version.isprintable() and 0 < len(version) <= VERSION_CHARS_MAX:
        return version
    raise _bad_app(f"The version of the app {name!r} is not a text of 1 to {VERSION_CHARS_MAX} characters.")


def _bad_app(message: str) -> AppError:
    return AppError(Code.BAD_APP, message, where="function", hint=_AGAIN)
