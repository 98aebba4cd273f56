"""Faults of versions: clean-ups and pulls that are killed, and damage to objects in the store and to local files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from damage import flip
from places import places
from store_proxy import StoreProxy
from teatree import open as open_file
from teatree.contracts.errors import Code, OperatorError, RequestError, TeatreeError
from teatree.contracts.settings import Settings
from teatree.storage.objects.base import NotFoundError
from teatree.storage.objects.stores import open_store
from teatree.storage.retention.pins import pin, unpin
from torture.evidence import Versions, file_content
from torture.fault import Fault, Inject, ViolationError
from torture.stage import Stage

PIN = "torture"
COMMAND_S_MAX = 120
BUSY_TRIES_MAX = 20
BACK_MAX = 20
"""How far behind the newest version one is chosen."""
NOTICED_S = 0.5
"""Seconds for which damage still counts after its repair: a reader that found it may not have reported it yet."""
PULL = """
import sys
from pathlib import Path
from teatree.contracts.failpoints import failing_probe
from teatree.client.versions.pull import pull_version
from teatree.contracts.environment import process_environ, read_settings
from teatree.storage.versions.chain import Chain
from teatree.storage.objects.stores import open_store
settings = read_settings(process_environ())
chain = Chain(open_store(settings.store), settings.nats.prefix, sys.argv[1])
pull_version(chain, Path(sys.argv[2]), version=int(sys.argv[3]), probe=failing_probe(settings.failpoints))
"""


def _choose(stage: Stage, fault: Fault) -> tuple[Versions, int]:
    """Return a recent version, 0 if there is none."""
    versions = Versions(stage.settings, fault.model)
    newest = versions.chain.newest_version()
    back = int(fault.chance * BACK_MAX)
    for number in range(max(newest - back, 1), newest + 1):
        if (versions.read(number) or {}).get("state") == "active":
            return versions, number
    return versions, 0


@contextmanager
def _armed(stage: Stage, fault: Fault, prefix: str) -> Iterator[dict[str, str]]:
    """Yield an environment with a failpoint for the command's process only."""
    rng, plan = random.Random(fault.chance), stage.folder / "own-failpoints.json"
    action = rng.choice(["crash", "crash", "error", "delay"])
    rule = {"action": action, "hit": rng.randint(1, 3), "times": 1, "delay_ms": 1_000}
    plan.write_text(json.dumps({rng.choice(places(prefix)): rule}))
    try:
        yield stage.environ(TEATREE_FAILPOINTS=str(plan))
    finally:
        for file in stage.folder.glob(f"{plan.name}*"):
            file.unlink()


def _run(stage: Stage, *command: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=environ or stage.environ(),
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )


def _clean_up(stage: Stage, fault: Fault) -> str:
    """Pin a version, kill a `teatree gc` at a failpoint, run it again: the pinned version is unchanged."""
    versions, number = _choose(stage, fault)
    command = ("-m", "teatree.cli.main", "gc", fault.model, "--json")
    try:
        pin(versions.chain, PIN, number, "torture")
    except RequestError:
        return f"version {number} has vanished"
    try:
        before = versions.content(number, stage.folder)
        with _armed(stage, fault, "gc") as environ:
            first = _run(stage, *command, environ=environ)
        for _ in range(BUSY_TRIES_MAX):
            second = _run(stage, *command)
            if "error[busy]" not in second.stderr:  # its manager cleans up too
                break
            time.sleep(1)
        if second.returncode:
            raise ViolationError(f"`teatree gc` cannot resume after {first.stderr[-500:]}: {second.stderr[-500:]}")
        try:
            after = versions.content(number, stage.folder)
        except TeatreeError as e:
            raise ViolationError(f"version {number} of {fault.model} was pinned, and cannot be read: {e}") from e
        if after != before:
            raise ViolationError(f"version {number} of {fault.model} was pinned, and reads otherwise after a clean-up")
    finally:
        unpin(versions.chain, PIN)
    return f"gc ended with {first.returncode}, then: {second.stdout.strip()}"


def _pull_killed(stage: Stage, fault: Fault) -> str:
    """Kill a pull at a failpoint and pull again: the file holds the version or the one before, never anything else."""
    versions, number = _choose(stage, fault)
    path = stage.folder / f"{fault.model}-pulled.duckdb"
    command = ("-c", PULL, fault.model, str(path), str(number))
    if not number:
        return "no manager has made a version"
    try:
        pin(versions.chain, PIN, number, "torture")
    except RequestError:
        return f"version {number} has vanished"
    try:
        right, old = versions.content(number, stage.folder), file_content(path) if path.exists() else None
        with _armed(stage, fault, "pull") as environ:
            first = _run(stage, *command, environ=environ)
        if path.exists() and file_content(path) not in (right, old):
            raise ViolationError(f"a killed pull left {path.name} neither as it was nor as version {number}")
        second = _run(stage, *command)
        if second.returncode or file_content(path) != right:
            raise ViolationError(f"a pull of {number} after one that was killed: {second.stderr[-500:] or 'differs'}")
    finally:
        unpin(versions.chain, PIN)
    return f"pull ended with {first.returncode}, the next one with {second.returncode}"


def _flip_object(key_of: Callable[[Versions, int], str | None]) -> Inject:
    """Flip a bit of an object: `teatree verify` must report it, and find nothing once it is restored."""

    def run(stage: Stage, fault: Fault) -> str:
        versions, number = _choose(stage, fault)
        key = key_of(versions, number) if number else None
        if key is None:
            return "no file"
        command = ("-m", "teatree.cli.main", "verify", fault.model, "--version", str(number), "--json")
        store = versions.chain.store
        try:
            pin(versions.chain, PIN, number, "torture")
            whole = store.get(key)
            damaged = bytearray(whole)
            damaged[int(fault.chance * 997 * len(whole)) % len(whole)] ^= 1 << int(fault.last_s * 3)
            stage.is_damaged = True
            store.put(key, bytes(damaged))
        except (RequestError, NotFoundError):
            stage.is_damaged = False
            return f"version {number} has vanished"
        try:
            verified = _run(stage, *command)
            time.sleep(fault.last_s)
        finally:
            store.put(key, whole)
            repaired = _run(stage, *command)
            unpin(versions.chain, PIN)
            time.sleep(NOTICED_S)
            stage.is_damaged = False
        if not verified.returncode:
            raise ViolationError(
                f"a bit of {key} is flipped, and `teatree verify` finds nothing: {verified.stdout[-500:]}"
            )
        if repaired.returncode:
            raise ViolationError(
                f"{key} is restored, and `teatree verify` reports {repaired.stdout}{repaired.stderr}"[-900:]
            )
        return f"flipped a bit of {key}, found: {(verified.stdout + verified.stderr)[-200:]!r}"

    return run


def _vanish(stage: Stage, fault: Fault) -> str:
    """Delete a manifest and restore it: `verify` must report it while it is missing, and a pull gives nothing older."""
    versions, number = _choose(stage, fault)
    if not number:
        return "no manager has made a version"
    store, key = versions.chain.store, versions.chain.manifest_key(number)
    verify = ("-m", "teatree.cli.main", "verify", fault.model, "--version", str(number), "--json")
    path = stage.folder / f"{fault.model}-vanished.duckdb"
    try:
        pin(versions.chain, PIN, number, "torture")
        whole = store.get(key)
    except (RequestError, NotFoundError):
        return f"version {number} has vanished"
    newest = versions.chain.newest_version()
    stage.is_damaged = True
    try:
        store.delete([key])
        verified = _run(stage, *verify)
        pulled = _run(stage, "-m", "teatree.cli.main", "pull", fault.model, str(path), "--json")
        time.sleep(fault.last_s)
    finally:
        store.put_if_absent(key, whole)
        repaired = _run(stage, *verify)
        unpin(versions.chain, PIN)
        time.sleep(NOTICED_S)
        stage.is_damaged = False
    if not verified.returncode:
        raise ViolationError(f"{key} has vanished, and `teatree verify` finds nothing: {verified.stdout[-500:]}")
    if not pulled.returncode and json.loads(pulled.stdout)["version"] < newest:
        raise ViolationError(f"{key} has vanished, and a pull gives an older version: {pulled.stdout}")
    if store.get(key) != whole:
        raise ViolationError(f"another manifest was written under {key}, which had vanished")
    if repaired.returncode:
        raise ViolationError(
            f"{key} is restored, and `teatree verify` reports {repaired.stdout}{repaired.stderr}"[-900:]
        )
    return (
        f"version {number} of {newest} vanished; verify ended with {verified.returncode}, pull with {pulled.returncode}"
    )


def _pack(versions: Versions, number: int) -> str | None:
    manifest = versions.read(number) or {}
    return versions.chain.key(manifest["pack"]["key"]) if manifest.get("pack") else None


def _manifest(versions: Versions, number: int) -> str | None:
    return versions.chain.manifest_key(number)


def _local_flipped(stage: Stage, fault: Fault) -> str:
    """Flip a bit of the newest local version's file, which readers have open: an error at most, then it is repaired."""
    rng = random.Random(fault.chance)
    current = stage.data / fault.model / "current.duckdb"
    try:
        path = current.resolve(strict=True)
        place = rng.randrange(path.stat().st_size)
        flip(path, place, 1 << rng.randrange(8))
    except (FileNotFoundError, IndexError):
        return "no file"
    time.sleep(fault.last_s)
    return f"flipped a bit of byte {place} of {path.name}"


def _store_without_conditions(stage: Stage, fault: Fault) -> str:
    """Publish a file into a store that overwrites where it must create: it is refused, and no manifest is written."""
    assert stage.seaweed is not None
    settings = stage.seaweed.settings(f"unconditional-{fault.chance}")
    with StoreProxy(settings) as proxy, TemporaryDirectory(prefix="tt-unconditional-") as folder:
        proxy.ignores_conditions = True
        with open_file(Path(folder) / "mine.duckdb", settings=Settings(store=proxy.settings)) as file:
            file.sql("CREATE TABLE t(x INTEGER)")
            try:
                file.publish()
            except OperatorError as e:
                if e.code is not Code.WRONG_CONFIGURATION:
                    raise ViolationError(f"a store without conditions was refused as {e.code}: {e.message}") from e
            else:
                raise ViolationError("a version was published into a store without conditions")
    left = [info.key for info in open_store(settings).list("models/")]
    if left:
        raise ViolationError(f"a store without conditions was refused, and holds {left[0]}")
    return "refused it"


VERSIONS: dict[str, tuple[int, Inject, bool]] = {
    "clean_up": (5, _clean_up, False),
    "pull_killed": (4, _pull_killed, False),
    "pack_flipped": (3, _flip_object(_pack), False),
    "manifest_flipped": (2, _flip_object(_manifest), False),
    "manifest_vanished": (2, _vanish, False),
    "local_flipped": (3, _local_flipped, False),
    "store_without_conditions": (2, _store_without_conditions, True),
}
"""Weight, what it does, and whether it needs an S3 server."""
