"""Pins: versions that a clean-up must keep, each for a stated reason, as small objects beside the chain.

A pin protects from the moment it is written: whoever needs a version for long pins it first and reads its manifest
then; if that is a stub already, the pin came too late and is taken away again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from attrs import frozen

from teatree.contracts.codec import dump_json, parse_json, structure, unstructure
from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.storage.chain import Chain
from teatree.storage.objects import NotFoundError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@frozen
class Pin:
    """One reason to keep one version."""

    name: str
    version: int
    note: str
    """Why, for people."""
    at: datetime


def pin_key(chain: Chain, name: str) -> str:
    """Return a pin's key; raises `bad_name` for a name that is none."""
    if not _NAME.fullmatch(name):
        raise RequestError(
            Code.BAD_NAME,
            f"{name[:80]!r} is not a pin's name.",
            where="pin",
            hint="Use 1 to 64 of A-Z a-z 0-9 _ and -.",
        )
    return f"{chain.folder}/pins/{name}"


def pin(chain: Chain, name: str, version: int, note: str) -> Pin:
    """Keep a version; return the pin, which is the one that has the name already if there is one."""
    made = Pin(name, version, note, datetime.now(UTC))
    if chain.store.put_if_absent(pin_key(chain, name), dump_json(unstructure(made))):
        return made
    return find_pin(chain, name) or pin(chain, name, version, note)  # it went away between the two


def find_pin(chain: Chain, name: str) -> Pin | None:
    """Return a pin by its name, None if there is none."""
    key = pin_key(chain, name)
    try:
        return structure(parse_json(chain.store.get(key), key), Pin, key)
    except NotFoundError:
        return None
    except RequestError as e:
        raise CorruptError(f"The pin is damaged: {e.message}", where=key) from e


def list_pins(chain: Chain) -> list[Pin]:
    """Return all pins of a model, by name."""
    names = [info.key.rpartition("/")[2] for info in chain.store.list(f"{chain.folder}/pins/")]
    return [found for name in names if (found := find_pin(chain, name)) is not None]


def unpin(chain: Chain, name: str) -> None:
    """Take a pin away; raises `unknown_version` if there is none of this name."""
    if find_pin(chain, name) is None:
        raise RequestError(
            Code.UNKNOWN_VERSION,
            f"{chain.model} has no pin {name!r}.",
            where=pin_key(chain, name),
            hint="`teatree pins` lists them.",
        )
    chain.store.delete([pin_key(chain, name)])
