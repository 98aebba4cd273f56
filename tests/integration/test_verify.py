"""`verify` finds and names any damage in a model's history, and finds nothing in an intact one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from published import PublishedModel
from servers import S3_IS_SLOW
from teatree.cli.exits import Exit
from teatree.cli.main import run
from teatree.client.versions.verify import VerifyReport, verify
from teatree.contracts.environment import connection_environ
from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.formats.manifest import ModelState, ObjectRef, stub_of
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.stores import open_store

TABLES = {
    "sales": {"id": "BIGINT", "site": "VARCHAR", "amount": "DOUBLE"},
    "sites": {"name": "VARCHAR", "tags": "VARCHAR[]", "place": "STRUCT(x DOUBLE, y DOUBLE)"},
}
ROWS = 300_000


@pytest.fixture
def model(object_store_settings: StoreSettings, tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model of five versions."""
    with PublishedModel(object_store_settings, tmp_path) as published:
        published.create(TABLES)
        published.sql(f"INSERT INTO sales SELECT range, md5(range::VARCHAR), random() FROM range({ROWS})")
        published.sql("INSERT INTO sites SELECT 'site', ['a', 'b'], {'x': 1.0, 'y': 2.0} FROM range(10)")
        published.sql("UPDATE sales SET amount = 1 WHERE id < 5")
        yield published


def pack_of(model: PublishedModel, version: int) -> ObjectRef:
    """Return a version's pack."""
    pack = model.chain.get(version).pack
    assert pack is not None
    return pack


def flip(model: PublishedModel, key: str, place: float) -> None:
    """Flip a bit of an object."""
    body = bytearray(model.chain.store.get(key))
    body[int(place * len(body))] ^= 8
    model.chain.store.put(key, bytes(body))


def codes(report: VerifyReport) -> set[tuple[int, str]]:
    """Return version and code of each finding."""
    return {(finding.version, finding.code) for finding in report.findings}


@pytest.mark.slow_on_s3
def test_an_intact_history_has_no_findings(model: PublishedModel, tmp_path: Path) -> None:
    """Nothing is found and everything is checked: each block once, and all rows of what each version changed."""
    reported: list[tuple[int, int]] = []
    newest = verify(model.chain, progress=lambda done, total: reported.append((done, total)), scratch=tmp_path)
    assert newest.is_right, newest.findings
    assert (newest.versions, newest.tables >= 2, newest.rows >= ROWS + 10) == (1, True, True)
    assert reported[-1][0] == reported[-1][1] or reported[-1][0] > 0.9 * reported[-1][1]
    history = verify(model.chain, all_versions=True)
    assert history.is_right, history.findings
    assert history.versions == 5
    assert history.rows >= 2 * ROWS + 10
    assert newest.blocks <= history.blocks < 3 * newest.blocks
    assert verify(model.chain, version=3).versions == 1
    assert verify(model.chain, at=model.chain.get(3).at).rows >= ROWS


def test_odd_names_are_right(tmp_path: Path) -> None:
    """A table whose name has a dot, a quote or a schema's name in it is no damage."""
    with PublishedModel(StoreSettings(url=(tmp_path / "store").as_uri()), tmp_path) as model:
        model.create({name: {"id": "BIGINT"} for name in ("a.b", "main.a", 'a"b', "main", "x'y", "é", "select")})
        report = verify(model.chain, all_versions=True)
    assert report.is_right, report.findings


@S3_IS_SLOW
@pytest.mark.slow_on_s3
@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.97])
def test_a_flipped_bit_in_a_pack_is_found(model: PublishedModel, place: float) -> None:
    """The pack's own hash shows any flipped bit; when a version needs the byte, its block is named as well."""
    flip(model, model.chain.key(pack_of(model, 3).key), place)
    report = verify(model.chain, version=3)
    assert (3, Code.CORRUPT) in codes(report)
    history = verify(model.chain, all_versions=True)
    assert (3, Code.CORRUPT) in codes(history)
    assert (2, Code.CORRUPT) not in codes(history)
    assert all(finding.where for finding in history.findings)


@pytest.mark.slow_on_s3
def test_a_missing_or_short_pack_is_found_with_all_versions_that_need_it(model: PublishedModel) -> None:
    """Each version that needs a missing pack is named."""
    key = model.chain.key(pack_of(model, 3).key)
    body = model.chain.store.get(key)
    model.chain.store.put(key, body[: len(body) * 2 // 3])
    short = verify(model.chain)
    assert (5, Code.CORRUPT) in codes(short)
    assert short.blocks > 0  # the blocks in the rest of the pack were checked
    model.chain.store.delete([key])
    history = verify(model.chain, all_versions=True)
    assert codes(history) >= {(3, Code.NOT_FOUND), (4, Code.NOT_FOUND), (5, Code.NOT_FOUND)}
    assert (2, Code.NOT_FOUND) not in codes(history)


@S3_IS_SLOW
def test_outcomes_are_checked(model: PublishedModel) -> None:
    """A damaged or missing outcome segment is found."""
    refs = {version: model.chain.get(version).outcomes for version in (3, 4)}
    assert refs[3] is not None
    assert refs[4] is not None
    flip(model, model.chain.key(refs[3].key), 0.5)
    model.chain.store.delete([model.chain.key(refs[4].key)])
    report = verify(model.chain, all_versions=True)
    assert codes(report) == {(3, Code.CORRUPT), (4, Code.NOT_FOUND)}


@pytest.mark.slow_on_s3
def test_broken_links_are_found(model: PublishedModel) -> None:
    """A valid manifest that does not follow its predecessor is found."""
    manifest = model.chain.get(4)
    key = model.chain.manifest_key(4)
    for wrong in (
        attrs.evolve(manifest, parent_write_id="0" * 16),
        attrs.evolve(manifest, epoch=4),
        attrs.evolve(manifest, offset=0),
        attrs.evolve(manifest, at=model.chain.get(1).at),
    ):
        model.chain.store.put(key, wrong.to_json())
        assert (4, Code.CORRUPT) in codes(verify(model.chain, all_versions=True))
        assert (4, Code.CORRUPT) in codes(verify(model.chain, version=4))
    model.chain.store.put(key, model.chain.store.get(model.chain.manifest_key(3)))
    assert (4, Code.CORRUPT) in codes(verify(model.chain, all_versions=True))
    model.chain.store.put(key, b"{")
    assert (4, Code.CORRUPT) in codes(verify(model.chain, all_versions=True))


@S3_IS_SLOW
def test_a_manifest_with_wrong_row_counts_is_found(model: PublishedModel) -> None:
    """What DuckDB reads is compared with the manifest."""
    manifest = model.chain.get(5)
    tables = tuple(attrs.evolve(t, rows=t.rows + 1) if t.name == "sales" else t for t in manifest.tables)
    model.chain.store.put(model.chain.manifest_key(5), attrs.evolve(manifest, tables=tables).to_json())
    report = verify(model.chain)
    assert len(report.findings) == 1
    assert "sales" in (report.findings[0].where or "")
    model.chain.store.put(model.chain.manifest_key(5), attrs.evolve(manifest, tables=tables[:1]).to_json())
    assert not verify(model.chain).is_right


@S3_IS_SLOW
def test_cleaned_up_versions_are_no_damage(model: PublishedModel) -> None:
    """Stubs are counted, their links are checked, and the kept versions are whole without the others."""
    for version in (1, 3):
        stub = stub_of(model.chain.get(version))
        model.chain.store.put(model.chain.manifest_key(version), stub.to_json())
    report = verify(model.chain, all_versions=True)
    assert report.is_right, report.findings
    assert (report.versions, report.cleaned_up) == (3, 2)
    assert report.rows >= ROWS + 10


@S3_IS_SLOW
def test_a_dropped_model_has_no_file_to_check(model: PublishedModel) -> None:
    """The chain of a model that was dropped is checked all the same."""
    manifest = model.request("drop_model", {})
    assert manifest.state is ModelState.DROPPED
    assert verify(model.chain).is_right
    assert verify(model.chain, all_versions=True).is_right


def test_an_unavailable_store_is_no_finding(model: PublishedModel, s3_server: StoreSettings) -> None:
    """A transient failure is a retryable error, never damage."""
    away = attrs.evolve(s3_server, url="s3://teatree/nothing?endpoint=http://127.0.0.1:9")
    chain = type(model.chain)(open_store(away), "teatree", "sales")
    with pytest.raises(RetryError):
        verify(chain)
    with pytest.raises(RequestError):
        verify(type(model.chain)(model.chain.store, "teatree", "nothing"))


def test_the_command_prints_findings_and_has_an_exit_code(
    model: PublishedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """0 and a line without damage, 5 and the findings with damage; also as JSON."""
    for name, value in connection_environ(model.settings).items():
        monkeypatch.setenv(name, value)
    assert run(["verify", "sales", "--all", "--json", "--scratch", str(tmp_path)]) == Exit.OK
    report = json.loads(capfdbinary.readouterr().out)
    assert (report["model"], report["versions"], report["findings"]) == ("sales", 5, [])
    flip(model, model.chain.key(pack_of(model, 3).key), 0.5)
    assert run(["verify", "sales", "--version", "3", "--json"]) == Exit.OPERATOR
    report = json.loads(capfdbinary.readouterr().out)
    assert report["findings"][0]["code"] == "corrupt"
    assert run(["verify", "sales"]) == Exit.OPERATOR
    assert b"is damaged" in capfdbinary.readouterr().out
    assert run(["verify", "sales", "--version", "99"]) == Exit.REJECTED
