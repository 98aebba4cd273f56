"""The settings, read from the environment and a stack's `teatree.env`; nothing else reads `os.environ`."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.names import check_sender
from teatree.contracts.read_settings import ReadSettings
from teatree.contracts.settings import (
    BreakerSettings,
    CacheSettings,
    DispatcherSettings,
    LimitSettings,
    ManagerSettings,
    NatsSettings,
    PostgresSettings,
    RetentionSettings,
    ScrubSettings,
    Settings,
    StoreSettings,
)
from teatree.contracts.unknown_settings import warn_of_unknown

ENV_FILE = "teatree.env"
"""Written by `teatree up` into its data folder when all is ready; mode 0600."""

GROUPS = {
    "limits": LimitSettings,
    "manager": ManagerSettings,
    "reads": ReadSettings,
    "dispatcher": DispatcherSettings,
    "retention": RetentionSettings,
    "scrub": ScrubSettings,
    "breaker": BreakerSettings,
    "cache": CacheSettings,
}
"""The class of each group: its members are the variables `TEATREE_<GROUP>_<NAME>`."""

_MAY_BE_ZERO = frozenset(
    "stuck_ms_max resident_bytes_max disk_free_bytes_min load_retry_ms_max pages_inline_max idle_exit_ms "
    "local_grace_ms local_copy_bytes_max local_spares process_memory_bytes_max archive_interval_ms head_interval_ms "
    "take_over_wait_ms evict_idle_ms_min wait_ms_max kill_margin_ms silent_repeats_max grace_ms interval_ms".split()
)
"""Settings for which 0 has a meaning; with 0 for the others nothing would work, or ids would be forgotten."""
NUMBER_MAX = 10**15
"""The largest number that a setting takes: in milliseconds 30,000 years."""

_VARIABLES = (
    *"TEATREE_NATS_URL TEATREE_NATS_USER TEATREE_NATS_PASSWORD TEATREE_NATS_CA TEATREE_PREFIX TEATREE_SENDER".split(),
    *"TEATREE_POSTGRES_URL TEATREE_POSTGRES_PASSWORD TEATREE_POSTGRES_READER_URL".split(),
    *"TEATREE_STORE_URL TEATREE_STORE_ACCESS_KEY TEATREE_STORE_SECRET_KEY".split(),
    *"TEATREE_DATA TEATREE_HOST TEATREE_LOAD_ROOTS TEATREE_CACHE_FOLDER TEATREE_FAILPOINTS TEATREE_DEBUG".split(),
)


def read_settings(environ: Mapping[str, str], data: Path | None = None) -> Settings:
    """Return the settings that `environ` and, beneath it, `<data>/teatree.env` give.

    Connection settings are `TEATREE_NATS_URL`, `TEATREE_NATS_USER`, `TEATREE_NATS_PASSWORD`, `TEATREE_NATS_CA`,
    `TEATREE_PREFIX`, `TEATREE_SENDER`, `TEATREE_POSTGRES_URL`, `TEATREE_POSTGRES_PASSWORD`,
    `TEATREE_POSTGRES_READER_URL`, `TEATREE_STORE_URL`, `TEATREE_STORE_ACCESS_KEY`, `TEATREE_STORE_SECRET_KEY`,
    `TEATREE_DATA`, `TEATREE_HOST`, `TEATREE_LOAD_ROOTS` (separated by commas),
    `TEATREE_CACHE_FOLDER` (empty: none; the user's cache folder if left out);
    the groups' members are `TEATREE_LIMITS_<NAME>`, `TEATREE_MANAGER_<NAME>`, `TEATREE_READS_<NAME>`,
    `TEATREE_DISPATCHER_<NAME>`, `TEATREE_RETENTION_<NAME>`, `TEATREE_SCRUB_<NAME>`, `TEATREE_BREAKER_<NAME>` and
    `TEATREE_CACHE_<NAME>`.
    Raises `wrong_configuration` for a value that is not of its type or out of its range, warns of variables that are no
    settings.
    """
    folder = data or data_folder(environ)
    written = read_env_file(folder / ENV_FILE)
    warn_of_unknown(environ, known_variables(), "the environment")
    warn_of_unknown(written, known_variables(), str(folder / ENV_FILE))
    values = {**written, **environ}
    groups = {name: kind(**_group_values(values, name, kind)) for name, kind in GROUPS.items()}
    roots = values.get("TEATREE_LOAD_ROOTS", "")
    return Settings(
        nats=NatsSettings(
            url=values.get("TEATREE_NATS_URL", NatsSettings().url),
            user=values.get("TEATREE_NATS_USER"),
            password=values.get("TEATREE_NATS_PASSWORD"),
            ca=values.get("TEATREE_NATS_CA"),
            prefix=values.get("TEATREE_PREFIX", NatsSettings().prefix),
            sender=_sender(values.get("TEATREE_SENDER")),
        ),
        postgres=PostgresSettings(
            url=values.get("TEATREE_POSTGRES_URL"),
            password=values.get("TEATREE_POSTGRES_PASSWORD"),
            reader_url=values.get("TEATREE_POSTGRES_READER_URL"),
        ),
        store=StoreSettings(
            url=values.get("TEATREE_STORE_URL", StoreSettings().url),
            access_key=values.get("TEATREE_STORE_ACCESS_KEY"),
            secret_key=values.get("TEATREE_STORE_SECRET_KEY"),
        ),
        data=folder.absolute(),
        cache_folder=_cache_folder(values),
        host=values.get("TEATREE_HOST") or socket.gethostname(),
        load_roots=tuple(root.strip() for root in roots.split(",") if root.strip()),
        failpoints=values.get("TEATREE_FAILPOINTS"),
        **groups,
    )


def _sender(name: str | None) -> str | None:
    try:
        return check_sender(name) if name else None
    except RequestError as e:
        raise OperatorError(Code.WRONG_CONFIGURATION, e.message, where="TEATREE_SENDER", hint=e.hint) from None


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
    return frozenset(_VARIABLES) | {
        variable_of(group, a.name)
        for group, kind in GROUPS.items()
        for a in kind.__attrs_attrs__  # type: ignore[attr-defined]
    }


def connection_environ(settings: Settings) -> dict[str, str]:
    """Return the variables from which `read_settings` reads these connections and this data folder again."""
    values = {
        "TEATREE_NATS_URL": settings.nats.url,
        "TEATREE_NATS_USER": settings.nats.user,
        "TEATREE_NATS_PASSWORD": settings.nats.password,
        "TEATREE_NATS_CA": settings.nats.ca,
        "TEATREE_PREFIX": settings.nats.prefix,
        "TEATREE_POSTGRES_URL": settings.postgres.url,
        "TEATREE_POSTGRES_PASSWORD": settings.postgres.password,
        "TEATREE_POSTGRES_READER_URL": settings.postgres.reader_url,
        "TEATREE_STORE_URL": settings.store.url,
        "TEATREE_STORE_ACCESS_KEY": settings.store.access_key,
        "TEATREE_STORE_SECRET_KEY": settings.store.secret_key,
        "TEATREE_DATA": str(settings.data),
    }
    return {name: value for name, value in values.items() if value is not None}


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
    return f"TEATREE_{group.upper()}_{name.upper()}"


def _group_values(values: Mapping[str, str], group: str, kind: type) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for name, default in ((a.name, a.default) for a in kind.__attrs_attrs__):  # type: ignore[attr-defined]
        variable = variable_of(group, name)
        if variable not in values:
            continue
        found[name] = _number(variable, values[variable], default)
    return found


def _number(variable: str, text: str, default: float) -> int | float:
    """Return a variable's value in its default's type; raises `wrong_configuration` for what no setting can be."""
    lowest = 0 if isinstance(default, float) or variable.lower().split("_", 2)[2] in _MAY_BE_ZERO else 1
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
