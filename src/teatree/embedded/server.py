"""A server that runs as a child process of ours: start, ready-wait, stop, and what a crashed run left behind.

Every server runs in its own session: a Ctrl-C in the terminal reaches only us, and we stop servers in our own order.
Its identity (pid and start time) stands in `server.pid.json`; whoever starts it again first ends what is left of it.
"""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import asdict

from teatree.contracts.codec import dump_json
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.process import ProcessId, end_processes, process_id, read_process
from teatree.embedded.ports import remembered
from teatree.embedded.secret_file import private_folder, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import psutil

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POLL_S = 0.01
_START_TRIES_MAX = 5
_TAKEN_WAIT_S = 0.5
_LOG_BYTES_MAX = 16_000_000
_LOG_TAIL_BYTES = 2_000


class Server(ABC):
    """One server in one folder; it is started, watched and stopped by whoever holds this object.

    Start it from one process at a time: the holder of the folder sees to that (`Stack` locks it).
    """

    name: str
    stop_signal = signal.SIGTERM
    """Asks the server to end in order."""

    def __init__(self, folder: Path, *, ready_ms_max: int = 30_000, stop_ms_max: int = 10_000) -> None:
        self._folder = folder.absolute()
        self._ready_ms_max = ready_ms_max
        self._stop_ms_max = stop_ms_max
        self._process: subprocess.Popen[bytes] | None = None
        self._has_served = False
        self._ports_given_up: dict[str, int] = {}
        self._log_start = 0
        """Where in the log the words of the running process begin."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """Return where all that the server keeps lies."""
        return self._folder

    @property
    def pid(self) -> int | None:
        """Return the pid of the running server."""
        return self._process.pid if self._process is not None and self.is_running() else None

    @property
    def log_path(self) -> Path:
        """Return the file that holds what the server says."""
        return self._folder / f"{self.name}.log"

    def is_running(self) -> bool:
        """Return whether the process that we started lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and return when it is ready; ends what a crashed run left of it first.

        Raises `unavailable` with the last lines of its log if it does not become ready in time.
        """
        if self.is_running():
            return
        private_folder(self._folder)
        self.stop_leftovers()
        for _ in range(_START_TRIES_MAX):
            self._prepare()
            self._spawn()
            if self._wait_ready():
                self._has_served = True
                return
            ended_with = self._process.poll() if self._process else None
            self.stop()
            if not self._can_start_again(self._said()):
                break
        slow = f"did not become ready within {self._ready_ms_max} ms"
        fault = slow if ended_with is None else f"ended with code {ended_with} before it was ready"
        said = self._said()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        raise RetryError(
            Code.UNAVAILABLE,
            f"{self.name} {fault}. It said: {said or 'nothing'}",
            where=str(self.log_path),
        )

    def stop(self) -> None:
        """Ask the server to end, kill it if it does not in time; return when it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            process.send_signal(signal.SIGCONT)  # a stopped one would not hear
            try:
                process.wait(self._stop_ms_max / 1000)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._pid_path.unlink(missing_ok=True)
        self._cleanup()

    def stop_leftovers(self) -> int:
        """End every process that an earlier run left in this folder; return how many there were."""
        recorded = read_process(self._pid_path)
        leftovers = {*find_processes(self._recognise), *([recorded] if recorded else [])}
        end_processes(leftovers, ask=self.stop_signal, wait_ms_max=self._stop_ms_max)
        self._pid_path.unlink(missing_ok=True)
        return len(leftovers)

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the program and its arguments; no secrets, all users can read them."""

    @abstractmethod
    def _recognise(self, process: psutil.Process) -> bool:
        """Return whether a process is this server: the pid file of an earlier run may never have been written."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether the server serves; called again and again after the start."""

    def _prepare(self) -> None:  # noqa: B027 - most have something to do, none must
        """Write what the server reads at its start."""

    def _can_start_again(self, said: bytes) -> bool:
        """Return whether another start makes sense after one that failed with these words; mend what can be.

        Remembered ports that others have taken are given up, but not once clients of this run know them.
        """
        if b"address already in use" not in said:
            return False
        if self._has_served:
            time.sleep(_TAKEN_WAIT_S)
        elif self._ports_path.is_file():
            self._ports_given_up.update(remembered(self._ports_path))
            self._ports_path.unlink()
        return True

    @property
    def moved(self) -> str:
        """Return which ports another process had taken, and where this server listens instead; "" if none."""
        kept = remembered(self._ports_path) if self._ports_given_up else {}
        ports = (f"{name} port {old} is taken, now {kept[name]}" for name, old in self._ports_given_up.items())
        return "; ".join(ports)

    def _cleanup(self) -> None:  # noqa: B027 - as above
        """Remove what the server leaves outside its folder."""

    def _environment(self) -> Mapping[str, str]:
        """Return the server's environment: nothing of ours is passed on."""
        return {"PATH": _PATH, "HOME": str(self._folder), "TZ": "UTC"}

    @property
    def _ports_path(self) -> Path:
        return self._folder / "ports.json"

    @property
    def _pid_path(self) -> Path:
        return self._folder / "server.pid.json"

    def _spawn(self) -> None:
        if self.log_path.is_file() and self.log_path.stat().st_size > _LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_suffix(".log.old"))
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._environment()),
                start_new_session=True,
                **{"cwd": self._folder, **self._spawn_options()},
            )
        identity = process_id(self._process.pid)
        if identity is not None:
            write_private(self._pid_path, dump_json(asdict(identity)).decode())

    def _spawn_options(self) -> dict[str, Any]:
        """Return what `subprocess` must be told besides."""
        return {}

    def _wait_ready(self) -> bool:
        deadline = time.monotonic() + self._ready_ms_max / 1000
        while self.is_running() and time.monotonic() < deadline:
            if self._is_ready():
                return True
            time.sleep(_POLL_S)
        return False

    def _said(self) -> bytes:
        """Return what the process has said since it was started, as far as it has been written."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read()


def find_processes(recognise: Callable[[psutil.Process], bool]) -> list[ProcessId]:
    """Return the live processes that `recognise` knows; those that we may not see are passed over."""
    import psutil  # noqa: PLC0415 - of the extra `embedded`

    found: list[ProcessId] = []
    for process in psutil.process_iter():
        try:
            identity = process_id(process.pid) if recognise(process) else None
        except psutil.Error:  # it ended meanwhile, or is not ours to see: then it is not ours to end either
            continue
        if identity is not None:
            found.append(identity)
    return found
