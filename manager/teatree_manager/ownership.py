"""The ownership of a model: a lock on its folder for this host, and a lease in PostgreSQL between hosts.

Neither decides what readers see: the fence in the version chain does. They keep two managers from working against each
other, and let a successor begin at once when its predecessor is proven dead. While PostgreSQL is unavailable the holder
continues, and a new one begins under the lock alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import signal

import attrs
import orjson

from teatree.contracts.errors import Code, FencedError, OperatorError, RetryError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.process import end_processes, own_process
from teatree.storage.catalog.lease import HeldLease, Holder, Lease, is_alive, process_of, this_process
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.disk import translating_disk_full
from teatree_manager.context import ManagerContext

LEAVE_MS_MAX = 600_000
"""Milliseconds that leaving may take: a long request, or a large local file, is finished first."""
LOOK_MS = 100
"""Milliseconds between tries while another manager has the model."""


class Ownership:
    """This process's claim to one model."""

    def __init__(self, context: ManagerContext, postgres: Postgres | None) -> None:
        self._folder = context.folder
        self._model = context.model
        self._settings = context.settings.manager
        self._clock = context.clock
        self._lease = Lease(postgres, context.goal_model_id, context.model) if postgres else None
        self._me: Holder = this_process(context.settings.host)
        self._lock = -1
        self._leased = False
        self._keep_until = math.inf
        self._seen: HeldLease | None = None
        """The holder of the lease at the last late try to get it."""
        self._log = context.log

    @property
    def holder(self) -> Holder:
        """This process, as it holds leases."""
        return self._me

    def acquire(self) -> None:
        """Get lock and lease; raises `busy`, naming the holder, when that takes longer than `take_over_wait_ms`.

        Raises `unavailable` or `disk_full` where the folder's disk takes neither lock nor process file; call it again.
        """
        with translating_disk_full("The lock of the model", self._folder.root):
            self._acquire()

    def _acquire(self) -> None:
        deadline = self._clock.monotonic() + self._settings.take_over_wait_ms / 1000
        while True:
            held = self._try_lease() if self._try_lock() else self._remove_lapsed()
            if held is None and self._lock >= 0:
                self._write_process()
                return
            if self._clock.monotonic() > deadline:
                self._unlock()
                raise RetryError(
                    Code.BUSY,
                    f"Another manager has the model {self._model!r}: {self._who(held)}.",
                    where=str(self._folder.lock),
                    hint="The other manager keeps running; this process exits.",
                )
            self._clock.sleep(LOOK_MS / 1000)

    def _try_lock(self) -> bool:
        if self._lock >= 0:
            return True
        self._folder.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _try_lease(self) -> HeldLease | None:
        """Return None if this manager may begin, else the lease of the holder."""
        if self._lease is None:
            return None
        try:
            self._remove_lapsed()
            return self._claim(self._lease)
        except (RetryError, OperatorError) as e:
            self._log.warning("the lease cannot be acquired: the chain alone decides", error=str(e))
            return None

    def _claim(self, lease: Lease) -> HeldLease | None:
        """Take the lease if it is free, has ended, or its holder is proven dead; return None if that succeeded."""
        held = lease.acquire(self._me, self._settings.lease_ms)
        if held is not None and is_alive(held.holder, self._me.host) is False:
            seized = lease.seize(held.holder, self._me, self._settings.lease_ms)
            held = None if seized else held
        self._leased = held is None
        return held

    def _remove_lapsed(self) -> HeldLease | None:
        """Kill a holder on this host that runs although its lease has ended: it hangs. Return the current lease."""
        if self._lease is None:
            return None
        try:
            held = self._lease.held()
        except (RetryError, OperatorError):  # the next access to the lease reports it
            return None
        if held is not None and held.left_ms <= 0 and is_alive(held.holder, self._me.host):
            self._log.warning("killing a manager that let its lease end", pid=held.holder.pid)
            end_processes([process_of(held.holder)], ask=signal.SIGKILL)
        return held

    def _who(self, held: HeldLease | None) -> str:
        if held is not None:
            left_s = max(held.left_ms, 0) / 1000
            return f"process {held.holder.pid} on {held.holder.host}, its lease ends in {left_s:.1f} s"
        try:
            found = orjson.loads(self._folder.process.read_bytes())
            return f"process {found['pid']} on this host"
        except (OSError, orjson.JSONDecodeError, KeyError):
            return "a process on this host"

    def _write_process(self) -> None:
        part = self._folder.process.with_suffix(".part")
        part.write_bytes(dump_json({**attrs.asdict(own_process()), "model": self._model, "holder": self._me.id}))
        part.replace(self._folder.process)

    def begin_leaving(self) -> None:
        """Renew the lease for a bounded time only: if leaving hangs, the ended lease shows it."""
        self._keep_until = min(self._keep_until, self._clock.monotonic() + LEAVE_MS_MAX / 1000)

    async def keep(self) -> None:
        """Renew the lease until well after the leaving began; raises `fenced` when another manager took it."""
        while self._clock.monotonic() < self._keep_until:
            await self._clock.sleep_async(self._settings.lease_ms / 3000)
            if self._lease is None:
                continue
            try:
                if self._leased:
                    kept = await asyncio.to_thread(self._lease.renew, self._me, self._settings.lease_ms)
                else:
                    kept = await asyncio.to_thread(self._late_lease, self._lease)
            except (RetryError, OperatorError) as e:
                self._log.warning("the lease was not renewed: the chain alone decides", error=str(e))
                continue
            if not kept:
                raise FencedError(f"The lease on {self._model!r} belongs to another manager.")

    def _late_lease(self, lease: Lease) -> bool:
        """Try to get the lease that was unavailable at the start; return False if another manager renews it.

        A holder from before PostgreSQL was unavailable is dead or fenced by now; its lease ends unless it is renewed.
        """
        held = self._claim(lease)
        if held is None:
            return True
        before, self._seen = self._seen, held
        return before is None or before.holder.id != held.holder.id or before.until == held.until

    def release(self, *, has_finished: bool) -> None:
        """Release lease and lock.

        The process file stays where outcomes may be unpublished, as it does after a crash: the dispatcher then starts
        another manager although no request waits.
        """
        try:
            if self._lease is not None and self._leased:
                self._lease.release(self._me)
        except (RetryError, OperatorError) as e:
            self._log.warning("the lease was not released: it ends after its time", error=str(e))
        finally:
            if self._lock >= 0 and has_finished:
                self._folder.process.unlink(missing_ok=True)
            self._unlock()
