"""The lease on a model in PostgreSQL: which process should try to write. The version chain alone decides which may.

All times are the database's. Every change is one statement that names the holder it expects, so two processes never
both get it. No circuit breaker refuses a change, or it could end a lease that can be renewed.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from attrs import frozen

from teatree.contracts.formats.codec import dump_json, structure, tolerate_unknown_keys, unstructure
from teatree.contracts.process import ProcessId, own_process, process_id
from teatree.storage.catalog.goal_model import ensure_row

if TYPE_CHECKING:
    import uuid
    from datetime import datetime

    from teatree.storage.catalog.postgres import Postgres

_HELD: LiteralString = """
    SELECT writer, lease_until, extract(epoch FROM lease_until - clock_timestamp()) * 1000 AS left_ms
    FROM goal_model WHERE goal_model_id = %(model)s AND writer IS NOT NULL
    """


@frozen
class Holder:
    """A process that holds leases."""

    id: str
    """Random: two holds of one process differ."""
    host: str
    boot_id: str
    """The kernel's boot and the pid namespace: within it a pid and its start time name one process."""
    pid: int
    started: int
    """The process's start time, see `contracts.process`."""


tolerate_unknown_keys(Holder)


@frozen
class HeldLease:
    """A lease and its holder."""

    holder: Holder
    until: datetime
    left_ms: int
    """Milliseconds until then by the database's clock; 0 or less once it has ended."""


class Lease:
    """The lease on one model; the model need not exist."""

    def __init__(self, postgres: Postgres, goal_model_id: uuid.UUID, name: str) -> None:
        self._postgres = postgres
        self._model = {"model": goal_model_id}
        self._name = name

    def acquire(self, holder: Holder, lease_ms: int) -> HeldLease | None:
        """Take the lease if it is free, has ended or is ours; return None if we have it, else the other's."""
        with self._postgres.transaction(always=True) as session:
            while True:
                taken = session.execute(
                    """
                    UPDATE goal_model
                    SET writer = %(writer)s::jsonb, lease_until = clock_timestamp() + %(lease_ms)s * interval '1 ms'
                    WHERE goal_model_id = %(model)s
                        AND (writer IS NULL OR lease_until < now() OR writer->>'id' = %(holder)s)
                    """,
                    {**self._model, "writer": _writer(holder), "holder": holder.id, "lease_ms": lease_ms},
                )
                if taken:
                    return None
                held = session.rows(_HELD, self._model)
                if held:
                    return _held(held[0])
                # There is no row yet, or the lease was released between the two statements.
                ensure_row(session, self._model["model"], self._name)

    def renew(self, holder: Holder, lease_ms: int) -> bool:
        """Extend our lease, even an ended one that no other process took; False: another process has it now."""
        return self._change(
            holder,
            "UPDATE goal_model SET lease_until = clock_timestamp() + %(lease_ms)s * interval '1 ms'"
            " WHERE goal_model_id = %(model)s AND writer->>'id' = %(expected)s",
            {"lease_ms": lease_ms},
        )

    def release(self, holder: Holder) -> bool:
        """Release our lease; False: it was not ours any more."""
        return self._change(
            holder,
            "UPDATE goal_model SET writer = NULL, lease_until = NULL"
            " WHERE goal_model_id = %(model)s AND writer->>'id' = %(expected)s",
            {},
        )

    def seize(self, expected: Holder, new: Holder, lease_ms: int) -> bool:
        """Take the lease of a holder that is proven dead, before it ends; False: that holder no longer has it."""
        return self._change(
            expected,
            "UPDATE goal_model SET writer = %(writer)s::jsonb,"
            " lease_until = clock_timestamp() + %(lease_ms)s * interval '1 ms'"
            " WHERE goal_model_id = %(model)s AND writer->>'id' = %(expected)s",
            {"writer": _writer(new), "lease_ms": lease_ms},
        )

    def held(self) -> HeldLease | None:
        """Return the lease, ended or not, with its holder; None if it is free."""
        with self._postgres.transaction() as session:
            found = session.rows(_HELD, self._model)
        return _held(found[0]) if found else None

    def _change(self, expected: Holder, statement: LiteralString, parameters: dict[str, Any]) -> bool:
        with self._postgres.transaction(always=True) as session:
            return session.execute(statement, {**parameters, **self._model, "expected": expected.id}) == 1


def this_process(host: str) -> Holder:
    """Return this process as a new holder."""
    me = own_process()
    return Holder(id=secrets.token_hex(16), host=host, boot_id=_place(me.boot), pid=me.pid, started=me.started)


def is_alive(holder: Holder, host: str) -> bool | None:
    """Return whether a holder's process still runs; None if it is of another host, boot or container: not known here.

    A zombie is dead, and so is a process whose pid another one has now.
    """
    if holder.host != host or holder.boot_id != _place(own_process().boot):
        return None
    found = process_id(holder.pid)
    return found is not None and found.started == holder.started


def process_of(holder: Holder) -> ProcessId:
    """Return a holder's process, so that it can be ended; it must be of this host (`is_alive` is not None)."""
    return ProcessId(pid=holder.pid, started=holder.started, boot=own_process().boot)


def _place(boot: str) -> str:
    namespace = ""
    with suppress(OSError):  # only Linux has them
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{boot}/{namespace}"


def _writer(holder: Holder) -> str:
    return dump_json(unstructure(holder)).decode()


def _held(row: dict[str, Any]) -> HeldLease:
    return HeldLease(structure(row["writer"], Holder, "goal_model.writer"), row["lease_until"], int(row["left_ms"]))
