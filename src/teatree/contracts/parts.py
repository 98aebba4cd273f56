"""Replaceable parts: stores, engines, launchers and sources, found by entry point, ours and those of other packages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from teatree.contracts.errors import Code, OperatorError, TeatreeError
from teatree.contracts.shown import shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_WHY_CHARS_MAX = 300


class PartGroup(StrEnum):
    """The groups of entry points; each entry's object is called to make the part."""

    STORES = "teatree.stores"
    """By the scheme of a URL: called with `StoreSettings`, returns an `ObjectStore`."""
    ENGINES = "teatree.engines"
    """By the name in a model's options: called without arguments, returns an `Engine`."""
    LAUNCHERS = "teatree.launchers"
    """By `TEATREE_DISPATCHER_LAUNCHER`: called with `Settings` and the environment, returns a `Launcher`."""
    SOURCES = "teatree.sources"
    """By the scheme of a URI that `load` names: called with `Sources`, returns a `Source`."""
    FORMATS = "teatree.formats"
    """By the ending of a file's name: called with a `SourceFile`, yields its rows."""
    APPS = "teatree.apps"
    """By the name in a model's options: an `App`. It is not called (`functions/app/loading.py`)."""

    @property
    def noun(self) -> str:
        """What one of its parts is called."""
        return self.removeprefix("teatree.").removesuffix("s")


def part_names(group: PartGroup) -> tuple[str, ...]:
    """Return the names of the installed parts of a group, sorted."""
    return tuple(sorted({entry.name for entry in _entries(group, tuple(sys.path))}))


def installed_now(group: PartGroup) -> dict[str, list[EntryPoint]]:
    """Return the entry points of a group by name, also of packages that were installed since this process began."""
    from importlib import invalidate_caches  # noqa: PLC0415
    from importlib.metadata import entry_points  # noqa: PLC0415

    invalidate_caches()
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, []).append(entry)
    return found


def make_part(group: PartGroup, name: str, kind: type, where: str, *args: object) -> Any:
    """Return the part of a name, of the class `kind`, made from `args`; its module is imported now.

    Raises `wrong_configuration` at the setting `where` for a part that `load_part` refuses, that cannot be made or that
    is of another class. Its package raises errors of the tree, which pass, for what is wrong in `args`.
    """
    entry = _entry(group, name, where)
    make = _loaded(group, entry, where)
    try:
        made = make(*args)
    except TeatreeError:
        raise
    except Exception as e:
        # Without the text, which can hold an argument's password.
        raise _faulty(group, entry, where, f"could not be made: {type(e).__name__}") from e
    if not isinstance(made, kind):
        raise _faulty(group, entry, where, f"is no {kind.__name__} but a {type(made).__name__}")
    return made


def load_part(group: PartGroup, name: str, where: str) -> Callable[..., Any]:
    """Return what makes the part of a name; its module is imported now.

    Raises `wrong_configuration` at the setting `where` for a name that no part or that two have, and for a part that
    cannot be imported; an error of the tree that its import raises passes.
    """
    return _loaded(group, _entry(group, name, where), where)


def _entry(group: PartGroup, name: str, where: str) -> EntryPoint:
    found = [entry for entry in _entries(group, tuple(sys.path)) if entry.name == name]
    if not found:
        raise _unknown(group, name, where)
    if len(found) > 1:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"There are {len(found)} {group.noun}s {name!r}: of {' and '.join(sorted(map(_package, found)))}.",
            where=where,
            hint="Uninstall all packages but one.",
        )
    return found[0]


def _unknown(group: PartGroup, name: str, where: str) -> OperatorError:
    names = part_names(group)
    return OperatorError(
        Code.WRONG_CONFIGURATION,
        f"There is no {group.noun} {shown(name)}.",
        where=where,
        hint=f"There are: {', '.join(names)}. Another one is an installed package with an entry point in {group}."
        if names
        else f"Install teatree again: this installation has no entry points in {group}.",
    )


def _loaded(group: PartGroup, entry: EntryPoint, where: str) -> Callable[..., Any]:
    try:
        part = entry.load()
    except TeatreeError:
        raise
    except Exception as e:
        why = (str(e).splitlines() or [""])[0][:_WHY_CHARS_MAX].rstrip(".")
        raise _faulty(group, entry, where, f"cannot be loaded: {type(e).__name__}: {why}") from e
    if not callable(part):
        raise _faulty(group, entry, where, f"cannot be called: {entry.value} is a {type(part).__name__}")
    made: Callable[..., Any] = part
    return made


def _faulty(group: PartGroup, entry: EntryPoint, where: str, what: str) -> OperatorError:
    return OperatorError(
        Code.WRONG_CONFIGURATION,
        f"The {group.noun} {entry.name!r} of {_package(entry)} {what}.",
        where=where,
        hint="Install what that package needs, or another release of it.",
    )


def _package(entry: EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


@cache
def _entries(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group. `_path` is `sys.path`: what is installed there is read once in a process."""
    from importlib.metadata import entry_points  # noqa: PLC0415  takes 20 ms, which a mere import need not

    return tuple(entry_points(group=group))
