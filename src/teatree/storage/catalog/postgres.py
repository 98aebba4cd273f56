"""Connections to PostgreSQL; the only module that uses psycopg.

Threads share a `Postgres`: each transaction uses a separate connection, an idle or a new one. Nothing waits for ever:
connecting, statements, locks and whole transactions have limits, the last one enforced by this process, because a
server that is stopped or disconnected does not reply at all.

Not psycopg_pool: its own threads connect, out of reach of the breaker, and a caller gets only a time-out in place of
the error that distinguishes a refused password from an unavailable server.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, LiteralString

from attrs import frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, OperatorError, RetryError, TeatreeError
from teatree.contracts.extras import extra_for

with extra_for("The catalog in PostgreSQL", "catalog"):
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from teatree.contracts.settings import PostgresSettings
    from teatree.storage.breaker import Breaker

CONNECT_TIMEOUT_S = 3
"""Seconds to connect; libpq takes no less than 2."""
STATEMENT_MS_MAX = 30_000
"""Milliseconds of one statement: a chunk of the catalog takes under a second."""
ANSWER_MARGIN_MS = 5_000
"""Milliseconds beyond a statement's limit after which this process closes a transaction's connection."""
IDLE_CONNECTIONS_MAX = 4
"""Connections kept for the next transaction: one for each thread of a manager that uses PostgreSQL."""
IDLE_UNCHECKED_S_MAX = 1.0
"""Seconds after which an idle connection is checked before it is used."""
_SOCKET_OPTIONS = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_RETRY = frozenset({Code.UNAVAILABLE, Code.TIMED_OUT, Code.BUSY, Code.DISK_FULL})
_LIMIT: LiteralString = """
    SELECT set_config('statement_timeout', %(limit)s, false), set_config('lock_timeout', %(limit)s, false),
        set_config('idle_in_transaction_session_timeout', %(limit)s, false), set_config('TimeZone', 'UTC', false)
    """
_WHERE = "TEATREE_POSTGRES_URL"

_REFUSALS = (
    (r"authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist", "28000"),
    (r"database .* does not exist", "3D000"),
)
"""How servers refuse a connection: libpq does not pass on the SQLSTATE. In other languages it counts as unavailable."""

Row = dict[str, Any]


class PostgresSession:
    """One transaction."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    def rows(self, statement: LiteralString, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run a statement and return its rows as dicts by column."""
        return self._connection.execute(statement, parameters).fetchall()

    def execute(self, statement: LiteralString, parameters: Mapping[str, Any] | None = None) -> int:
        """Run a statement and return the number of rows that it touched."""
        return self._connection.execute(statement, parameters).rowcount


@frozen
class _Idle:
    connection: psycopg.Connection[Row]
    since_s: float


class Postgres:
    """A database, reached when first used and again after every failure."""

    def __init__(
        self,
        settings: PostgresSettings,
        *,
        application: str = "teatree",
        statement_ms_max: int = STATEMENT_MS_MAX,
        answer_margin_ms: int = ANSWER_MARGIN_MS,
        breaker: Breaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """With a breaker, transactions fail at once while PostgreSQL is known to be unavailable."""
        self.settings = settings
        self._application = application
        self._statement_ms_max = statement_ms_max
        self._time_s_max = (statement_ms_max + answer_margin_ms) / 1000
        self._breaker = breaker
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []
        self._closed = False

    @contextmanager
    def transaction(self, *, always: bool = False) -> Iterator[PostgresSession]:
        """Run one transaction: committed at the end of the block, rolled back by any error.

        `always` tries even while the breaker is open, and reports the result to it.
        Raises `unavailable`, `timed_out` or `busy` if it can succeed later, else `not_authorized`,
        `wrong_configuration` or `internal`. A lost connection at the end leaves open whether it was committed.
        """
        with self._breaker.guard(always=always) if self._breaker else nullcontext():
            connection = self._take()
            try:
                with self._translated(), _cut_after(connection, self._time_s_max), connection.transaction():
                    yield PostgresSession(connection)
            finally:
                self._give_back(connection)

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection, which the caller closes."""
        with self._translated():
            connection = psycopg.connect(**self._parameters())
            try:
                _check_encoding(connection)
                with _cut_after(connection, CONNECT_TIMEOUT_S):
                    connection.execute(_LIMIT, {"limit": str(self._statement_ms_max)})
                    connection.commit()
            except BaseException:
                connection.close()
                raise
            return connection

    def close(self) -> None:
        """Close all idle connections; those in use close when their transactions end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for entry in idle:
            entry.connection.close()

    def _take(self) -> psycopg.Connection[Row]:
        while True:
            with self._lock:
                entry = self._idle.pop() if self._idle else None
            if entry is None:
                connection = self.connect()
                connection.autocommit = True  # transactions are opened by `transaction` alone
                connection.row_factory = dict_row
                return connection
            if self._clock.monotonic() - entry.since_s < IDLE_UNCHECKED_S_MAX or self._is_alive(entry.connection):
                return entry.connection
            entry.connection.close()

    def _is_alive(self, connection: psycopg.Connection[Row]) -> bool:
        try:
            with _cut_after(connection, CONNECT_TIMEOUT_S):
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def _give_back(self, connection: psycopg.Connection[Row]) -> None:
        idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            if idle and not self._closed and len(self._idle) < IDLE_CONNECTIONS_MAX:
                self._idle.append(_Idle(connection, self._clock.monotonic()))
                return
        connection.close()

    def _parameters(self) -> dict[str, Any]:
        if not self.settings.url:
            raise OperatorError(
                Code.WRONG_CONFIGURATION,
                f"{_WHERE} is not set.",
                where=_WHERE,
                hint="Use postgresql://user@host/database.",
            )
        try:
            parameters = conninfo_to_dict(self.settings.url)
        except psycopg.ProgrammingError:
            # Its text repeats the URL with its password.
            raise OperatorError(
                Code.WRONG_CONFIGURATION,
                f"{_WHERE} cannot be read.",
                where=_WHERE,
                hint="Use postgresql://user@host:port/database, special characters percent-encoded.",
            ) from None
        if self.settings.password:
            parameters["password"] = self.settings.password
        parameters["client_encoding"] = "UTF8"
        defaults = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": self._application, **_SOCKET_OPTIONS}
        # Prepared statements would tie us to one server connection, which poolers in between do not give.
        return {**defaults, **parameters, "prepare_threshold": None}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as e:
            raise self.translate(e) from _without_secrets(e)

    def translate(self, error: BaseException) -> TeatreeError:
        """Return what an error of psycopg means for the caller, without any password."""
        if not isinstance(error, psycopg.Error):
            return OperatorError(Code.INTERNAL, f"PostgreSQL: {type(error).__name__}", where=_WHERE)
        state = error.sqlstate or ""
        text = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
        code, hint = _meaning(state, error)
        group = RetryError if code in _RETRY else OperatorError
        named = "" if code in _RETRY else f" ({state or type(error).__name__})"
        return group(code, f"PostgreSQL: {self._without_password(text)}{named}", where=_WHERE, hint=hint)

    def _without_password(self, text: str) -> str:
        with suppress(psycopg.ProgrammingError):
            for secret in (self.settings.password, conninfo_to_dict(self.settings.url or "").get("password")):
                if secret:
                    text = text.replace(str(secret), "…")
        return text


def _meaning(state: str, error: psycopg.Error) -> tuple[Code, str]:
    """Return code and hint for a SQLSTATE."""
    for pattern, sqlstate in _REFUSALS if not state else ():
        if re.search(pattern, str(error)):
            state = sqlstate
    match state[:2], state:
        case ("28", _) | (_, "42501"):
            return Code.NOT_AUTHORIZED, f"Check user and password in {_WHERE} or TEATREE_POSTGRES_PASSWORD."
        case ("3D", _):
            return Code.WRONG_CONFIGURATION, "Create the database."
        case (_, "42P01" | "42703" | "42P10" | "3F000"):
            return Code.WRONG_CONFIGURATION, "The catalog's schema is missing or of another release: migrate it."
        case (_, "57014" | "55P03"):
            return Code.TIMED_OUT, "Try again; see what locks or loads it."
        case ("40", _):
            return Code.BUSY, "Try again."
        case (_, "53100"):
            return Code.DISK_FULL, "Free space on the server's disk."
        case ("" | "08" | "25" | "53" | "57" | "58", _) if not isinstance(error, psycopg.ProgrammingError):
            return Code.UNAVAILABLE, "Try again when PostgreSQL is back."
        case _:
            return Code.INTERNAL, "This is a fault of teatree: report it."


def _check_encoding(connection: psycopg.Connection[Any]) -> None:
    """Raise for a database that cannot hold every name and message, or that would not check them."""
    encoding = connection.info.parameter_status("server_encoding") or "UTF8"  # a pooler may not pass it on
    if encoding != "UTF8":
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"PostgreSQL: the database {connection.info.dbname} has the encoding {encoding}; it must be UTF8.",
            where=_WHERE,
            hint="Make another one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, "
            "and fill it with `teatree catalog rebuild`.",
        )


@contextmanager
def _cut_after(connection: psycopg.Connection[Any], time_s_max: float) -> Iterator[None]:
    """Shut a connection down after a time: a call that still waits for its reply then ends with an error."""
    watchdog = threading.Timer(time_s_max, _cut, [connection])
    watchdog.daemon = True
    try:
        watchdog.start()
    except RuntimeError as e:  # a request takes all memory just now
        raise RetryError(Code.BUSY, "This process has no memory for another thread.", where=_WHERE) from e
    try:
        yield
    finally:
        watchdog.cancel()


def _cut(connection: psycopg.Connection[Any]) -> None:
    with (
        suppress(OSError, psycopg.Error),  # it may have ended a moment ago
        socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)


def _without_secrets(error: psycopg.Error) -> psycopg.Error | None:
    """Return an error that a traceback may show: those of connecting can repeat connection strings."""
    return error if error.sqlstate else None
