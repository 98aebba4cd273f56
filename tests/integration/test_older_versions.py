"""A store that an earlier release wrote stays readable, and its model can be continued (`tests/data/store-1`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from published import PublishedModel
from servers import file_store
from teatree.client.versions.attach import attach_chain
from teatree.client.versions.verify import verify
from teatree.contracts.settings import Settings, StoreSettings
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.history import version_at
from teatree.storage.versions.reader import materialise

DATA = Path(__file__).parents[1] / "data"
STORES = sorted(DATA.glob("store-*"))
FOUND = {2: (0, 0), 3: (5_000, 12_498_750), 5: (4_500, 11_251_125), 6: (4_500, 11_251_215), 8: (4_501, 11_251_215)}
"""Rows of `sales` and the sum of their amounts, cut to whole numbers, by version; 1 and 7 are fences."""
QUERY = "SELECT count(*), coalesce(sum(amount), 0)::BIGINT FROM sales"


@pytest.fixture(params=STORES, ids=lambda path: path.name)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    """Return a copy of a store in `tests/data`."""
    shutil.copytree(request.param, tmp_path / "store")
    return file_store(tmp_path / "store")


def test_every_version_is_read_in_every_way(store: StoreSettings, tmp_path: Path) -> None:
    """Pulled, attached, verified and found by its time, each version holds what was written."""
    chain = Chain(open_store(store), Settings().nats.prefix, "sales")
    assert chain.newest_version() == 8
    assert verify(chain, all_versions=True).is_right
    for version, expected in FOUND.items():
        manifest = chain.get(version)
        path = tmp_path / f"{version}.duckdb"
        materialise(chain.store, manifest, path)
        with duckdb.connect(str(path), read_only=True) as con:
            assert con.execute(QUERY).fetchall() == [expected]
        with duckdb.connect() as con:
            attached = attach_chain(con, chain, Settings(store=store), version=version, alias="v")
            assert con.execute(QUERY.replace("sales", "v.sales")).fetchall() == [expected]
            attached.detach()
        found = version_at(chain, manifest.at)
        assert found is not None
        assert found.version >= version


def test_its_model_continues(store: StoreSettings, tmp_path: Path) -> None:
    """A manager of this release takes the model over, applies requests and restores an earlier version."""
    with PublishedModel(store, tmp_path) as model:
        assert model.chain.newest_version() == 9  # its fence
        manifest = model.request("append", {"table": "sales", "rows": [{"id": 1, "site": "new", "amount": "1.00"}]})
        assert {t.name: t.rows for t in manifest.tables} == {"notes": 1, "sales": 4_502}
        restored = model.request("restore", {"version": 3})
        assert {t.name: t.rows for t in restored.tables} == {"notes": 0, "sales": 5_000}
