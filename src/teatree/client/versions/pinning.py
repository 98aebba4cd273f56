"""Pins of versions: the retention policy does not apply to a pinned version."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from teatree.client.versions.pull import find_version
from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, RequestError
from teatree.storage.retention.pins import Pin, pin

if TYPE_CHECKING:
    from teatree.storage.versions.chain import Chain


def pin_version(
    chain: Chain,
    version: int | None,
    name: str | None = None,
    until: datetime | None = None,
    note: str = "",
    clock: Clock = SYSTEM_CLOCK,
) -> Pin:
    """Keep a version (the newest if none is named), under a name (`version-N` if none is given), for ever or until.

    Raises `unknown_model`, `unknown_version`, `bad_name`, and `bad_argument` if the name is that of another pin or
    `until` has passed.
    """
    if until is not None and until <= clock.now():
        raise RequestError(Code.BAD_ARGUMENT, f"{until:%Y-%m-%dT%H:%M:%SZ} has passed.", where="until")
    number = find_version(chain, version).version
    made = pin(chain, name or f"version-{number}", number, note, until, clock)
    if made.version != number or made.until != until:
        ends = "never ends" if made.until is None else f"ends at {made.until:%Y-%m-%dT%H:%M:%SZ}"
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"The pin {made.name!r} of {chain.model} keeps version {made.version} and {ends}.",
            where="name",
            hint="Choose another name, or remove that pin first.",
        )
    return made
