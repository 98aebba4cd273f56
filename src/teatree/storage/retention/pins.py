"""Pins: versions that a clean-up must keep, each for a stated reason, as small objects beside the chain.

A pin protects from the moment that `pin` returns: it is written first, then the deletions are read; if one of them
names the version, the pin came too late and is removed again.
"""

from __future__ import annotations

import re
from datetime import datetime

from attrs import frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import tolerate_unknown_keys
from teatree.storage.objects.small_objects import create_object, read_object
from teatree.storage.retention.deletions import read_deletions
from teatree.storage.versions.chain import Chain

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
FORK_PREFIX = "fork-"
"""Begins the names of the pins that forks set on versions whose blocks they share: `unpin` refuses them."""


@frozen
class Pin:
    """One reason to keep one version."""

    name: str
    version: int
    note: str
    """Why, for people."""
    at: datetime
    until: datetime | None = None
    """When it ends; None: never."""

    def holds(self, now: datetime) -> bool:
        """Return whether it keeps its version at a moment."""
        return self.until is None or self.until > now


tolerate_unknown_keys(Pin)


def pin_key(chain: Chain, name: str) -> str:
    """Return a pin's key; raises `bad_name` for an invalid name."""
    if not _NAME.fullmatch(name):
        raise RequestError(
            Code.BAD_NAME,
            f"{name[:80]!r} is not a pin's name.",
            where="pin",
            hint="Use 1 to 64 of A-Z a-z 0-9 _ and -.",
        )
    return f"{chain.folder}/pins/{name}"


def pin(
    chain: Chain,
    name: str,
    version: int,
    note: str,
    until: datetime | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Pin:
    """Keep a version; return the pin, which is the one that has the name already if there is one.

    Raises `unknown_version` if there is no such version, or if it was or is being cleaned up, and `bad_argument` if the
    pin that has the name has ended.
    """
    found = find_pin(chain, name)
    if found is not None and not found.holds(clock.now()):
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"The pin {name!r} of {chain.model} has ended: it keeps nothing.",
            where=pin_key(chain, name),
            hint="Remove it first, or choose another name.",
        )
    if found is not None:
        _check_in_time(chain, found.version)  # its writer may have crashed before this check
        return found
    chain.get(version)  # so that a wrong number leaves no pin, not even for a moment
    made = Pin(name, version, note, clock.now(), until)
    if not create_object(chain.store, pin_key(chain, name), made):
        return find_pin(chain, name) or pin(chain, name, version, note, until, clock)  # it was removed between the two
    try:
        _check_in_time(chain, version)
    except RequestError:
        chain.store.delete([pin_key(chain, name)])
        raise
    return made


def _check_in_time(chain: Chain, version: int) -> None:
    """Raise `unknown_version` if a clean-up that may not have read the new pin removes the version."""
    if any(version in deletion.versions for deletion in read_deletions(chain.store, chain.folder)):
        raise RequestError(
            Code.UNKNOWN_VERSION,
            f"Version {version} of {chain.model} is being cleaned up.",
            where=chain.manifest_key(version),
            hint="`teatree versions` lists what there is.",
        )
    chain.get(version)


def find_pin(chain: Chain, name: str) -> Pin | None:
    """Return a pin by its name, None if there is none."""
    return read_object(chain.store, pin_key(chain, name), "The pin", Pin)


def list_pins(chain: Chain) -> list[Pin]:
    """Return all pins of a model, by name."""
    names = [info.key.rpartition("/")[2] for info in chain.store.list(f"{chain.folder}/pins/")]
    return [found for name in names if (found := find_pin(chain, name)) is not None]


def unpin(chain: Chain, name: str) -> None:
    """Remove a pin; raises `unknown_version` if there is none of this name, `bad_argument` for that of a fork."""
    if find_pin(chain, name) is None:
        raise RequestError(
            Code.UNKNOWN_VERSION,
            f"{chain.model} has no pin {name!r}.",
            where=pin_key(chain, name),
            hint="`teatree pins` lists them.",
        )
    if name.startswith(FORK_PREFIX):
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"The pin {name!r} keeps blocks of {chain.model} that a fork of it shares.",
            where="pin",
            hint="It stays for as long as the fork's versions do.",
        )
    chain.store.delete([pin_key(chain, name)])
