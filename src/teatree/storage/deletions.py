"""Plans: what a clean-up is about to take away, written before it does, so that nobody pins it in between.

Who pins a version writes the pin and then looks for plans; who cleans up writes a plan and then looks for pins. Of two
that do so at once at least one sees the other, whatever dies or sleeps in between: the pin then comes too late, or the
clean-up spares the version. A plan goes when all that it names are stubs: they say the same as the plan did.
"""

from __future__ import annotations

import secrets

from attrs import frozen

from teatree.contracts.codec import dump_json, parse_json, structure, unstructure
from teatree.contracts.errors import CorruptError, RequestError
from teatree.storage.objects import NotFoundError, ObjectStore


@frozen
class Deletion:
    """The versions that one clean-up takes away."""

    key: str
    versions: tuple[int, ...]


def new_deletion(folder: str, versions: tuple[int, ...]) -> Deletion:
    """Return a plan that nobody else writes."""
    return Deletion(f"{folder}/cleanup/{secrets.token_hex(8)}", versions)


def write_deletion(store: ObjectStore, deletion: Deletion) -> None:
    """Announce what will be taken away, in place of what this plan said before."""
    store.put(deletion.key, dump_json(unstructure(deletion)))


def read_deletions(store: ObjectStore, folder: str) -> list[Deletion]:
    """Return the plans of the clean-ups that go on, and of those that died."""
    found: list[Deletion] = []
    for info in store.list(f"{folder}/cleanup/"):
        try:
            found.append(structure(parse_json(store.get(info.key), info.key), Deletion, info.key))
        except NotFoundError:
            continue  # it came to its end meanwhile
        except RequestError as e:
            raise CorruptError(f"The plan of a clean-up is damaged: {e.message}", where=info.key) from e
    return found
