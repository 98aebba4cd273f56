"""A server as a child process: start, wait until it is ready, stop, and clean up after a crashed run.

Every server runs in its own session: a Ctrl-C in the terminal reaches only its parent, which stops the servers in
order. Its identity (pid and start time) is kept in `server.pid.json`; the next start first ends a leftover process.
"""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import asdict

from teatree.contracts.data_folder import former_log
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.codec import dump_json
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
    """One server in one folder; the owner of this object starts, watches and stops it.

    Start it from one process at a time: the owner of the folder ensures that (`Stack` locks it).
    """

    name: str
    stop_signal = signal.SIGTERM
    """Asks the server to shut down in an orderly way."""

    def __init__(self, folder: Path, *, ready_ms_max: int = 30_000, stop_ms_max: int = 10_000) -> None:
        self._folder = folder.absolute()
        self._ready_ms_max = ready_ms_max
        self._stop_ms_max = stop_ms_max
        self._process: subprocess.Popen[bytes] | None = None
        self._has_served = False
        self._ports_given_up: dict[str, int] = {}
        self._log_start = 0
        """The offset in the log at which the running process's output begins."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """Return the folder of the server's files."""
        return self._folder

    @property
    def pid(self) -> int | None:
        """Return the pid of the running server."""
        return self._process.pid if self._process is not None and self.is_running() else None

    @property
    def log_path(self) -> Path:
        """Return the file that holds the server's output."""
        return self._folder / f"{self.name}.log"

    def is_running(self) -> bool:
        """Return whether the process that this object started is running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and return when it is ready; first ends processes that a crashed run left.

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
            if not self._can_start_again(self._output()):
                break
        slow = f"did not become ready within {self._ready_ms_max} ms"
        fault = slow if ended_with is None else f"ended with code {ended_with} before it was ready"
        output = self._output()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        raise RetryError(
            Code.UNAVAILABLE,
            f"{self.name} {fault}. Its output: {output or 'none'}",
            where=str(self.log_path),
        )

    def stop(self) -> None:
        """Ask the server to end, kill it if it does not in time; return when it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            process.send_signal(signal.SIGCONT)  # a stopped process would not react
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
        """Return whether a process is this server: a crashed run may not have written the pid file."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether the server accepts requests; called repeatedly after the start."""

    def _prepare(self) -> None:  # noqa: B027 - most have something to do, none must
        """Write the files that the server reads at its start."""

    def _can_start_again(self, output: bytes) -> bool:
        """Return whether to try again after a start that failed with this output; fix the cause if possible.

        Remembered ports that other processes have taken are given up, unless clients of this run know them.
        """
        if b"address already in use" not in output:
            return False
        if self._has_served:
            time.sleep(_TAKEN_WAIT_S)
        elif self._ports_path.is_file():
            self._ports_given_up.update(remembered(self._ports_path))
            self._ports_path.unlink()
        return True

    @property
    def moved(self) -> str:
        """Return which ports another process had taken, and which this server uses instead; "" if none."""
        kept = remembered(self._ports_path) if self._ports_given_up else {}
        ports = (f"{name} port {old} is taken, now {kept[name]}" for name, old in self._ports_given_up.items())
        return "; ".join(ports)

    def _cleanup(self) -> None:  # noqa: B027 - as above
        """Remove files that the server leaves outside its folder."""

    def _environment(self) -> Mapping[str, str]:
        """Return the server's environment: it does not inherit this process's."""
        return {"PATH": _PATH, "HOME": str(self._folder), "TZ": "UTC"}

    @property
    def _ports_path(self) -> Path:
        return self._folder / "ports.json"

    @property
    def _pid_path(self) -> Path:
        return self._folder / "server.pid.json"

    def _spawn(self) -> None:
        if self.log_path.is_file() and self.log_path.stat().st_size > _LOG_BYTES_MAX:
            self.log_path.replace(former_log(self.log_path))
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
        """Return further options for `subprocess`."""
        return {}

    def _wait_ready(self) -> bool:
        deadline = time.monotonic() + self._ready_ms_max / 1000
        while self.is_running() and time.monotonic() < deadline:
            if self._is_ready():
                return True
            time.sleep(_POLL_S)
        return False

    def _output(self) -> bytes:
        """Return the process's output since its start, as far as it has been written."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read()


def find_processes(recognise: Callable[[psutil.Process], bool]) -> list[ProcessId]:
    """Return the live processes that `recognise` accepts; those that may not be inspected are skipped."""
    import psutil  # noqa: PLC0415 - of the extra `embedded`

    found: list[ProcessId] = []
    for process in psutil.process_iter():
        try:
            identity = process_id(process.pid) if recognise(process) else None
        except psutil.Error:  # it ended meanwhile, or belongs to another user
            continue
        if identity is not None:
            found.append(identity)
    return found
