"""Which blocks a version copies from older packs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from teatree.contracts.formats.manifest import Extent
from teatree.engine.duckdb.compaction import (
    LARGE_BLOCKS,
    LEAF_PACKS_MAX,
    PACKS_MAX,
    choose_relocations,
    scattered_leaves,
)
from teatree.storage.versions.packs import ENTRY, LEAF_ENTRIES, Entries


def small_packs(entries: Entries, used: np.ndarray) -> int:
    """Return how many packs hold fewer than LARGE_BLOCKS blocks that are read."""
    _, pack_of = np.unique(entries["pack"], return_inverse=True)
    return int(np.count_nonzero(np.bincount(pack_of, weights=used) < LARGE_BLOCKS))


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 3_000),
    st.integers(1, 12),
    st.floats(0, 0.3),
    st.integers(0, 2**32 - 1),
)
def test_packs_stay_few_and_cost_stays_bounded(blocks: int, changes: int, unused: float, seed: int) -> None:
    """Over hundreds of versions small packs stay few, a version moves few blocks, and unused blocks are not moved."""
    rng = np.random.default_rng(seed)
    entries = np.zeros(blocks, ENTRY)
    moved_in_all = 0
    versions = 250
    for version in range(1, versions + 1):
        used = rng.random(blocks) >= unused
        changed = rng.integers(blocks, size=changes).tolist()
        relocations = choose_relocations(entries, changed, used)
        assert len(relocations.blocks) < 2 * LARGE_BLOCKS
        assert used[list(relocations.blocks)].all()
        assert not used[list(relocations.unused)].any()
        assert set(changed).isdisjoint(relocations.blocks + relocations.unused)
        moved_in_all += len(relocations.blocks)
        entries["pack"][[*changed, *relocations.blocks, *relocations.unused]] = version
        assert small_packs(entries, used) <= PACKS_MAX * 1.5  # which blocks are used changes between two captures
    assert moved_in_all <= 3 * changes * versions + 2 * LARGE_BLOCKS


def test_a_growing_model_moves_each_block_about_once() -> None:
    """If every version adds one block, few small packs are left and a block moves twice at most."""
    entries = np.zeros(0, ENTRY)
    moved_in_all = 0
    for version in range(1, 2_501):
        grown = np.zeros(version, ENTRY)
        grown[:-1] = entries
        used = np.ones(version, np.bool_)
        relocations = choose_relocations(entries, [version - 1], used[:-1])
        grown["pack"][[version - 1, *relocations.blocks]] = version
        moved_in_all += len(relocations.blocks)
        entries = grown
        assert small_packs(entries, used) <= PACKS_MAX
    assert moved_in_all <= 2 * 2_500
    assert len(np.unique(entries["pack"])) <= PACKS_MAX + 2_500 / LARGE_BLOCKS


def test_leaves_are_gathered() -> None:
    """Leaves that are written one by one end in few packs."""
    leaves = [Extent("0", 0, 1, "")] * 100
    written = 0
    for version in range(1, 1_000):
        changed = [version * 7 % 100 * LEAF_ENTRIES]
        again = scattered_leaves(tuple(leaves), changed)
        written += len(again)
        for block in [*changed, *again]:
            leaves[block // LEAF_ENTRIES] = Extent(str(version), 0, 1, "")
        assert len({leaf.pack for leaf in leaves}) <= LEAF_PACKS_MAX
    assert written <= 8 * 1_000
