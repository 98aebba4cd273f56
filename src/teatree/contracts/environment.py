"""The settings, read from the environment and a stack's `teatree.env`; nothing else reads `os.environ`."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.read_settings import ZERO_ALLOWED
from teatree.contracts.settings import CHECK, OF_ONE_PROCESS, VARIABLE, Settings
from teatree.contracts.unknown_settings import warn_of_unknown

ENV_FILE = "teatree.env"
"""Written by `teatree up` into its data folder when all is ready; mode 0600."""

GROUPS: dict[str, type[attrs.AttrsInstance]] = {
    member.name: cast("type[attrs.AttrsInstance]", type(member.default))
    for member in attrs.fields(Settings)
    if attrs.has(type(member.default))
}
"""The class of each group: its members are the variables `TEATREE_<GROUP>_<NAME>`."""
CONNECTIONS = ("nats", "postgres", "store")
"""The groups with addresses and credentials."""
PLACES = tuple(member.name for member in attrs.fields(Settings) if member.name not in GROUPS)
"""The settings outside of groups: the variables `TEATREE_<NAME>`."""
NUMBER_MAX = 10**15
"""The largest number that a setting takes: in milliseconds 30,000 years."""


def read_settings(environ: Mapping[str, str], data: Path | None = None) -> Settings:
    """Return the settings that `environ` and, beneath it, `<data>/teatree.env` give.

    `docs/settings.md` lists the variables. `TEATREE_LOAD_ROOTS` is separated by commas; an empty
    `TEATREE_CACHE_FOLDER` is none, and one that is left out the user's cache folder.
    Raises `wrong_configuration` for a value that is not of its type or out of its range, warns of variables that are no
    settings.
    """
    folder = data or data_folder(environ)
    written = read_env_file(folder / ENV_FILE)
    known = known_variables()
    warn_of_unknown(environ, known, "the environment")
    warn_of_unknown(written, known, str(folder / ENV_FILE))
    values = {**written, **environ}
    found: dict[str, Any] = {name: kind(**_group_values(values, name, kind)) for name, kind in GROUPS.items()}
    found |= {name: values[place_variable(name)] for name in PLACES if place_variable(name) in values}
    roots = values.get("TEATREE_LOAD_ROOTS", "")
    found["data"] = folder.absolute()
    found["cache_folder"] = _cache_folder(values)
    found["host"] = values.get("TEATREE_HOST") or socket.gethostname()
    found["load_roots"] = tuple(root.strip() for root in roots.split(",") if root.strip())
    return Settings(**found)


def user_name() -> str:
    """Return the name of this process's user, as the operating system has it; "" if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _cache_folder(values: Mapping[str, str]) -> Path | None:
    """Return where this user's caches lie, by the XDG convention if no folder is named; None if nowhere."""
    if "TEATREE_CACHE_FOLDER" in values:
        return Path(values["TEATREE_CACHE_FOLDER"]).absolute() if values["TEATREE_CACHE_FOLDER"] else None
    home = values.get("XDG_CACHE_HOME") or (f"{values['HOME']}/.cache" if values.get("HOME") else "")
    return Path(home) / "teatree" if home.startswith("/") else None


def read_env_file(path: Path) -> dict[str, str]:
    """Return the `NAME=value` lines of a file, whose values can be quoted for a shell; an absent file has none.

    Raises `not_authorized` for another user's file.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except PermissionError:
        raise OperatorError(
            Code.NOT_AUTHORIZED,
            f"This user may not read {path}.",
            where=str(path),
            hint="It belongs to the user who started the stack: work as that user, or set TEATREE_NATS_URL.",
        ) from None
    lines = (line.strip() for line in text.split("\n"))
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name: _unquoted(value) for name, value in pairs}


def _unquoted(value: str) -> str:
    """Return what a shell would make of a quoted value; any other is taken as it stands."""
    if not value.startswith(("'", '"')):
        return value
    try:
        words = shlex.split(value)
    except ValueError:
        return value
    return words[0] if len(words) == 1 else value


def data_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of a stack that the environment names, else `teatree up`'s own default."""
    return Path(environ.get("TEATREE_DATA") or "teatree-data")


def known_variables() -> frozenset[str]:
    """Return the name of every variable that is a setting."""
    members = {_variable(group, member) for group, kind in GROUPS.items() for member in attrs.fields(kind)}
    return frozenset({*members, *map(place_variable, PLACES), "TEATREE_DEBUG"})


def connection_variables() -> tuple[str, ...]:
    """Return the variables that `connection_environ` can return."""
    return (*_connection_members(), place_variable("data"))


def _connection_members() -> dict[str, tuple[str, str]]:
    """Return group and name of each setting of a connection, by its variable."""
    return {
        _variable(group, member): (group, member.name)
        for group in CONNECTIONS
        for member in attrs.fields(GROUPS[group])
        if not member.metadata.get(OF_ONE_PROCESS)
    }


def connection_environ(settings: Settings) -> dict[str, str]:
    """Return the variables from which `read_settings` reads these connections and this data folder again."""
    values = {
        variable: getattr(getattr(settings, group), name) for variable, (group, name) in _connection_members().items()
    }
    values[place_variable("data")] = str(settings.data)
    return {variable: value for variable, value in values.items() if value is not None}


def not_set(variable: str, what: str) -> OperatorError:
    """Return the error for an address that is not set."""
    return OperatorError(
        Code.WRONG_CONFIGURATION,
        f"The address of {what} is not set, neither in {variable} nor in the teatree.env of a data folder.",
        where=variable,
        hint=f"Name the folder of a running stack with --data or TEATREE_DATA, or set {variable}.",
    )


def process_environ() -> Mapping[str, str]:
    """Return the environment of this process: the one place that reads it."""
    return os.environ


def variable_of(group: str, name: str) -> str:
    """Return the variable of a group's member."""
    return _variable(group, attrs.fields_dict(GROUPS[group])[name])


def _variable(group: str, member: attrs.Attribute[Any]) -> str:
    return str(member.metadata.get(VARIABLE, f"TEATREE_{group.upper()}_{member.name.upper()}"))


def place_variable(name: str) -> str:
    """Return the variable of a setting outside of groups."""
    return f"TEATREE_{name.upper()}"


def _group_values(values: Mapping[str, str], group: str, kind: type[attrs.AttrsInstance]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for member in attrs.fields(kind):
        variable = _variable(group, member)
        if variable not in values:
            continue
        read = _text if member.default is None or isinstance(member.default, str) else _number
        found[member.name] = read(variable, values[variable], member)
    return found


def _text(variable: str, text: str, member: attrs.Attribute[Any]) -> str | None:
    """Return a variable's text; raises `wrong_configuration` for one that its member does not take."""
    check = member.metadata.get(CHECK)
    if check is None:
        return text
    try:
        return check(text) if text else cast("str | None", member.default)
    except RequestError as e:
        raise OperatorError(Code.WRONG_CONFIGURATION, e.message, where=variable, hint=e.hint) from None


def _number(variable: str, text: str, member: attrs.Attribute[Any]) -> int | float:
    """Return a variable's value in its default's type; raises `wrong_configuration` for what no setting can be."""
    default = cast("int | float", member.default)
    lowest = 0 if isinstance(default, float) or ZERO_ALLOWED.items() <= member.metadata.items() else 1
    try:
        number = type(default)(text)
        problem = f"is not from {lowest} to {NUMBER_MAX:,}"
    except ValueError:
        number, problem = -1, "is not a number" if isinstance(default, float) else "is not a whole number"
    if not lowest <= number <= NUMBER_MAX:  # true for NaN, too
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"{variable}={text!r} {problem}.",
            where=variable,
            hint=f"The default is {default}.",
        )
    return number
