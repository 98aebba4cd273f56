"""Incremental compaction: keeps a version's blocks in few packs, however long its history (docs/decisions/0015).

A version's blocks lie in the packs in which they were last changed. When too many packs hold only a few of them, the
version that is being captured copies the blocks of small packs into its own, enough to make it a large one: so every
block is moved about once, and a version moves at most `2 * LARGE_BLOCKS`. Unused blocks are not moved: their entries in
the table refer to a block of zeros. Leaves of the block table are gathered in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from teatree.contracts.formats.manifest import Extent
from teatree.engine.duckdb.changes import Mask
from teatree.storage.versions.packs import LEAF_ENTRIES, Entries

PACKS_MAX = 64
"""Most packs with fewer than `LARGE_BLOCKS` blocks of one version, including the version's pack."""
LARGE_BLOCKS = 32
"""Blocks of a pack (8 MB) from which on a separate request for it is worthwhile."""
LEAF_PACKS_MAX = 16
"""Most packs that hold leaves of one version."""
LEAF_PACKS_LEFT = 8
"""Packs whose leaves are not gathered: those that hold the most."""
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


@frozen
class Relocations:
    """Unchanged blocks whose entries a version replaces."""

    blocks: tuple[int, ...] = ()
    """Blocks to copy."""
    unused: tuple[int, ...] = ()
    """Unused blocks, to be replaced by zeros."""


def choose_relocations(entries: Entries, changed: Iterable[int], used: Mask) -> Relocations:
    """Return the blocks to move so that few small packs are left.

    `entries` are those of the version before, cut to the file's present size; `changed` lie in the new pack already;
    `used` marks the blocks that the present checkpoint uses.
    """
    stays = np.ones(len(entries), np.bool_)
    stays[[block for block in changed if block < len(entries)]] = False
    blocks = np.flatnonzero(stays)
    places, pack_of = np.unique(_pack_ids(entries)[blocks], return_inverse=True)
    if len(places) < PACKS_MAX:
        return Relocations()
    live = np.bincount(pack_of, weights=used[blocks], minlength=len(places)).astype(np.int64)
    if np.count_nonzero(live < LARGE_BLOCKS) < PACKS_MAX:
        return Relocations()
    chosen = np.zeros(len(places), np.bool_)
    chosen[_smallest(live, LARGE_BLOCKS)] = True
    moved = blocks[chosen[pack_of]]
    return Relocations(tuple(moved[used[moved]].tolist()), tuple(moved[~used[moved]].tolist()))


def scattered_leaves(leaves: tuple[Extent, ...], changed: Iterable[int]) -> list[int]:
    """Return one block of each leaf that is to be written again because leaves lie in too many packs."""
    dirty = {block // LEAF_ENTRIES for block in changed}
    clean = [number for number in range(len(leaves)) if number not in dirty]
    names = sorted({leaves[number].pack for number in clean})
    if len(names) < LEAF_PACKS_MAX:
        return []
    place = {name: i for i, name in enumerate(names)}
    counts = np.bincount([place[leaves[number].pack] for number in clean], minlength=len(names))
    left = {names[i] for i in np.argsort(counts, kind="stable")[-LEAF_PACKS_LEFT:]}
    return [number * LEAF_ENTRIES for number in clean if leaves[number].pack not in left]


def _pack_ids(entries: Entries) -> NDArray[np.uint64]:
    """Return one number for each block's pack: sorting numbers is ten times as fast as sorting the packs' names.

    Two packs with the same number would be taken for one here, and moved together.
    """
    ids: NDArray[np.uint64] = entries["pack"] * _ODD[0] ^ entries["write"] * _ODD[1] ^ entries["base"] * _ODD[2]
    return ids


def _smallest(live: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Return the places of the smallest packs that hold `wanted` blocks together, or all small ones."""
    order = np.argsort(live, kind="stable")
    order = order[live[order] < LARGE_BLOCKS]
    before = np.cumsum(live[order]) - live[order]
    return order[before < wanted]
