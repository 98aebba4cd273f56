"""The user as which PostgreSQL runs: it refuses root, and needs a user whose name is known.

An ordinary user runs it directly. For root, and for a user id without a name, there are two ways:

- In a separate user namespace without mapped ids, the server sees itself and its files as `nobody`, while the kernel
  still takes it for their owner, without any of root's powers. No files have to be copied or change their owner.
- Where such a namespace is forbidden (most containers), root starts it as `nobody`, which then owns the cluster.

Either may be unable to enter a folder above the cluster or the programs (a 0700 home). So the cluster is named as
`/proc/self/cwd`, which needs no access to the folders above, and the programs are copied to where they can be run.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from attrs import frozen
from typing_extensions import override

from teatree.contracts.errors import Code, OperatorError

_WORKING_FOLDER = "/proc/self/cwd"
_PROBE_S_MAX = 20


class ServerUser(ABC):
    """A way to run PostgreSQL's programs as a user that they accept."""

    @abstractmethod
    def command(self, program: Path, *arguments: str) -> list[str]:
        """Return the command that runs the program as this user."""

    def options(self) -> dict[str, Any]:
        """Return further options for `subprocess`."""
        return {}

    def cluster_argument(self, cluster: Path) -> str:  # noqa: ARG002 - the others need it
        """Return the path of the cluster's folder for a program that is started in it."""
        return _WORKING_FOLDER

    def uid(self) -> int:
        """Return the id that must own the server's files."""
        return os.getuid()

    def own(self, path: Path) -> None:
        """Make this user the owner of the file, or of the folder with all in it."""
        if path.lstat().st_uid == self.uid():
            return
        for found in (path, *path.rglob("*")):
            os.chown(found, self.uid(), -1, follow_symlinks=False)

    def reaches(self, folder: Path) -> bool:
        """Return whether this user can make files in this folder."""
        command = self.command(Path("/bin/sh"), "-c", 'cd -- "$1" && test -w .', "sh", str(folder))
        return _succeeds(command, **self.options())

    def can_run(self, program: Path) -> bool:
        """Return whether this user can start the program at this path."""
        command = self.command(program, "--version")
        return _succeeds(command, **self.options())


@frozen
class SameUser(ServerUser):
    """The user of this process: the ordinary case."""

    @override
    def command(self, program: Path, *arguments: str) -> list[str]:
        return [str(program), *arguments]

    @override
    def reaches(self, folder: Path) -> bool:
        return True

    @override
    def cluster_argument(self, cluster: Path) -> str:
        return str(cluster)


@frozen
class UnmappedUser(ServerUser):
    """A user namespace without any mapped id."""

    unshare: str
    """Path of `unshare`; it becomes the server, so that the pid is the server's."""

    @override
    def command(self, program: Path, *arguments: str) -> list[str]:
        return [self.unshare, "--user", "--", str(program), *arguments]


@frozen
class OtherUser(ServerUser):
    """Another user, for root only."""

    other_uid: int
    other_gid: int

    @override
    def command(self, program: Path, *arguments: str) -> list[str]:
        return [str(program), *arguments]

    @override
    def options(self) -> dict[str, Any]:
        return {"user": self.other_uid, "group": self.other_gid, "extra_groups": []}

    @override
    def uid(self) -> int:
        return self.other_uid


def choose_server_user() -> ServerUser:
    """Return the user as which PostgreSQL can run here; raises `wrong_configuration` if there is none."""
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return SameUser()
    unshare = shutil.which("unshare")
    if unshare is not None and _succeeds([unshare, "--user", "--", "id", "-un"]):
        return UnmappedUser(unshare)
    if os.geteuid() == 0:
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise _no_way("there is no user `nobody`") from None
        return OtherUser(nobody.pw_uid, nobody.pw_gid)
    raise _no_way(f"the user id {os.geteuid()} has no name")


def _no_way(cause: str) -> OperatorError:
    return OperatorError(
        Code.WRONG_CONFIGURATION,
        f"PostgreSQL cannot run here: {cause}, and user namespaces are not allowed.",
        where="postgres",
        hint="Run as an ordinary user, or use an outside PostgreSQL.",
    )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _succeeds(command: list[str], **options: Any) -> bool:
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_S_MAX,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
