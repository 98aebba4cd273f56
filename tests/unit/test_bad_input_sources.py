"""`load` from places and files that are wrong, and `create_model` with wrong options: each harms only itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attrs import evolve
from test_bad_input import TABLES, check_sentence

from one_writer import OneWriter, Sent, arrow
from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.formats.notices import Status
from teatree.contracts.settings import LimitSettings, StoreSettings
from teatree.functions.sources import Sources

LIMITS = evolve(LimitSettings(), rows_bytes_max=20_000_000)
NEW = "new"


def write_sources(folder: Path) -> None:
    """Write files that are right, wrong and malicious."""
    parquet = {
        "good": {"n": pa.array([1, 2])},
        "text": {"n": ["x"]},
        "half": {"n": [1.5]},
        "nan": {"n": [1.0, float("nan")]},
        "wide": {"i": [2**40]},
        "column": {"q": [1]},
        "null": {"id": pa.array([5], pa.int32()), "v": pa.array([None], pa.string())},
        "twice": {"id": pa.array([5, 5], pa.int32()), "v": ["a", "b"]},
        "late": {"i": pa.array([*range(300_000), 2**40])},
        "long": {"t": pa.array(["x" * 30_000_000])},
    }
    for name, columns in parquet.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    bomb = pa.table({"t": pa.DictionaryArray.from_arrays(pa.array([0] * 50, pa.int32()), pa.array(["x" * 10**6]))})
    pq.write_table(bomb, folder / "repeated.parquet", store_schema=False)
    whole = (folder / "good.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.parquet").write_bytes(whole[:-60] + b"\xff" * 40 + whole[-20:])
    files = {
        "junk.parquet": b"junk" * 100, "empty.parquet": b"", "csv.parquet": b"n\n1\n", "name.txt": b"n\n1\n",
        "good.csv": b"n\n1\n2\n", "text.csv": b"n\nx\n", "late.csv": b"n\n" + b"1\n" * 700_000 + b"x\n",
        "ragged.csv": b"n\n1,2\n", "empty.csv": b"", "latin.csv": b"t\n\xff\n", "head.csv": b"\xff\n1\n",
        "twice.csv": b"n,N\n1,2\n", "huge.csv": b"n\n99999999999999999999\n", "digits.csv": b"dec\n1.005\n",
        "moment.csv": b"ts\n2020-01-01T00:00:00.123456789\n", "bool.csv": b"n\ntrue\n",
        "open.csv": b'id,t\n1,a\n2,"b\n3,c\n', "tail.csv": b'id,t\n1,"a"b\n2,c\n', "german.csv": b"t;dec\r\na;1,5\r\n",
        "junk.arrow": b"ARROW1junkjunk", "empty.arrow": b"", "cut.arrow": arrow({"n": [1, 2]})[:100],
        "bomb.arrow": arrow({"t": ["x" * 100_000_000]}, "zstd"),
        "exact.csv": b"h,t,dec,uh,n_\n-36893488147419103233,007,0.10,36893488147419103233,\n",
        "nulls.csv": b't,d\n,\n"",NaN\nNA,1.5\n',
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "many.csv").write_bytes(b"n,m\n" + b"12,345\n" * 2_000_000)
    (folder / "long.arrow").write_bytes(arrow({"n": range(9_000)}))
    (folder / "folder.parquet").mkdir()
    os.mkfifo(folder / "fifo.csv")
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    (folder / "passwd.csv").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    (folder / "kept").symlink_to(folder.parent / "data")
    (folder.parent / "outside.csv").write_bytes(b"n\n1\n")
    (folder.parent / f"{folder.name}-beside.csv").write_bytes(b"n\n1\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWriter]:
    """Return a model that may load from one folder, with a table of every type and one with a key."""
    writer = OneWriter(tmp_path_factory.mktemp("model"), TABLES, LIMITS)
    write_sources(writer.sources)
    yield writer
    writer.check_good_rows()
    tables = writer.rows("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM k) AS rows")
    assert tables == [{"rows": 0}]
    writer.close()


PLACES = [
    ("/etc/passwd", "source_not_allowed", "not in a place that load may read"),
    ("file:///etc/passwd", "source_not_allowed", "not in a place that load may read"),
    ("{sources}/../outside.csv", "source_not_allowed", "not in a place that load may read"),
    ("{sources}-beside.csv", "source_not_allowed", "not in a place that load may read"),
    ("{sources}/%2e%2e/outside.csv", "bad_source", "There is no file"),
    ("file://{sources}/%2e%2e/outside.csv", "source_not_allowed", "not in a place that load may read"),
    ("{sources}/passwd.csv", "source_not_allowed", "not in a place that load may read"),
    ("{sources}/etc/passwd", "source_not_allowed", "not in a place that load may read"),
    ("s3://bucket/good.parquet", "source_not_allowed", "not in a place that load may read"),
    ("s3://", "source_not_allowed", "not in a place that load may read"),
    ("{sources}/kept/m/manager.log", "source_not_allowed", "not in a place that load may read"),
    ("{sources}/../data/teatree.env", "source_not_allowed", "not in a place that load may read"),
    ("{sources}/../data/m/rw/1.parquet", "source_not_allowed", "not in a place that load may read"),
    ("{sources}/../store/1.parquet", "source_not_allowed", "not in a place that load may read"),
    ("good.csv", "bad_source", "is not an absolute path"),
    ("~/good.csv", "bad_source", "is not an absolute path"),
    ("", "bad_source", "is not an absolute path"),
    ("file://other{sources}/good.csv", "bad_source", "cannot read file://other"),
    ("https://example.org/x.parquet", "bad_source", "cannot read https://example.org"),
    ("postgresql://user:secret@host/base", "bad_source", "cannot read postgresql://host sources"),
    ("http://[::1", "bad_source", "Invalid IPv6 URL"),
    ("/a\0b", "bad_source", "it holds a NUL"),
    ("/\ud800", "bad_source", "is not an address"),
    ("{sources}/" + "x" * 300, "bad_source", "cannot be opened: File name too long"),
    ("{sources}/loop.csv", "bad_source", "cannot be opened: Symlink loop"),
    ("{sources}/nothing.csv", "bad_source", "There is no file"),
    ("{sources}/*.csv", "bad_source", "There is no file"),
    ("{sources}/fifo.csv", "bad_source", "There is no file"),
    ("{sources}/folder.parquet", "bad_source", "There is no file"),
    ("{sources}", "bad_source", "There is no file"),
    (1, "bad_argument", "must be a text"),
    (None, "missing_argument", "needs the argument 'uri'"),
]
FILES = [
    ("name.txt", "good", "bad_source", "ends in none of .arrow, .csv, .feather, .ipc, .parquet, .tsv", "uri"),
    ("cut.parquet", "good", "bad_source", "'cut.parquet' cannot be read", "uri"),
    ("flipped.parquet", "good", "bad_source", "'flipped.parquet' cannot be read", "uri"),
    ("junk.parquet", "good", "bad_source", "cannot be read", "uri"),
    ("empty.parquet", "good", "bad_source", "cannot be read: Parquet file size is 0 bytes", "uri"),
    ("csv.parquet", "good", "bad_source", "cannot be read", "uri"),
    ("text.parquet", "good", "type_mismatch", "is not a value of type BIGINT", "rows[0].n"),
    ("half.parquet", "good", "lossy_number", "1.5 would lose digits as BIGINT", "rows[0].n"),
    ("nan.parquet", "good", "type_mismatch", "nan is not a value of type BIGINT", "rows[1].n"),
    ("wide.parquet", "t", "out_of_range", "out of range for INTEGER", "rows[0].i"),
    ("late.parquet", "t", "out_of_range", "out of range for INTEGER", "rows[300000].i"),
    ("column.parquet", "good", "unknown_column", "There is no column 'q'", "rows.q"),
    ("null.parquet", "k", "not_null", "does not take null", "rows[0].v"),
    ("twice.parquet", "k", "constraint", "or twice in the request", "uri"),
    ("good.parquet", "nope", "unknown_table", "There is no table 'nope'", "table"),
    ("long.parquet", "t", "body_too_large", "One row of the source takes 30,000,0", "uri"),
    ("text.csv", "good", "type_mismatch", "column n: 'x' is not a value of type BIGINT", "line 2, column n"),
    ("late.csv", "good", "type_mismatch", "'x' is not a value of type BIGINT", "line 700002, column n"),
    ("ragged.csv", "good", "bad_source", "It has 2 cells; the first line has 1", "line 2"),
    ("open.csv", "t", "bad_source", "A quote opens here and is never closed", "line 3"),
    ("tail.csv", "t", "bad_source", "text follows its closing quote", "line 2"),
    ("empty.csv", "good", "bad_source", "'empty.csv' is empty", "line 1"),
    ("latin.csv", "t", "bad_source", r"Line 2 is not utf-8: byte 0xff in b'\xff", "line 2"),
    ("head.csv", "good", "bad_source", "Line 1 is not utf-8: byte 0xff", "line 1"),
    ("twice.csv", "good", "duplicate_key", "names the column 'n' twice, as 'n' and 'N'", "line 1"),
    ("huge.csv", "good", "out_of_range", "is out of range for BIGINT", "line 2, column n"),
    ("digits.csv", "t", "lossy_number", "1.005 would lose digits", "line 2, column dec"),
    ("moment.csv", "t", "type_mismatch", "has more than 6 digits after the seconds", "line 2, column ts"),
    ("bool.csv", "good", "type_mismatch", "'true' is not a value of type BIGINT", "line 2, column n"),
    ("german.csv", "t", "unknown_column", "It looks like delimiter ';'", "line 1"),
    ("junk.arrow", "good", "bad_source", "'junk.arrow' cannot be read", "uri"),
    ("empty.arrow", "good", "bad_source", "'empty.arrow' cannot be read", "uri"),
    ("cut.arrow", "good", "bad_source", "'cut.arrow' cannot be read", "uri"),
    ("bomb.arrow", "t", "body_too_large", "bytes once decoded", "uri"),
]
MODES = [
    ({"table": "good", "mode": "merge"}, "good.csv", "bad_argument", "'mode' is one of append, replace", "mode"),
    ({"table": "good", "mode": "create"}, "good.csv", "table_exists", "There is a table 'good' already", "table"),
    ({"table": "../x", "mode": "create"}, "good.csv", "bad_name", "is not a table name", "table"),
    ({"table": "_teatree_x", "mode": "create"}, "good.csv", "bad_name", "is reserved", "table"),
    ({"table": NEW, "mode": "create"}, "twice.csv", "column_exists", "'N' is named twice", "line 1"),
    ({"table": NEW, "mode": "create"}, "head.csv", "bad_source", "byte 0xff", "line 1"),
    ({"table": NEW, "mode": "create"}, "german.csv", "bad_source", "It looks like delimiter ';'", "line 1"),
    (
        {"table": "good", "mode": "replace"},
        "text.csv",
        "type_mismatch",
        "is not a value of type BIGINT",
        "line 2, column n",
    ),
    ({"table": "good", "mode": "replace"}, "late.csv", "type_mismatch", "'x' is not", "line 700002, column n"),
    ({"table": "good", "delimiters": ";"}, "good.csv", "unknown_argument", "no argument 'delimiters'", "delimiters"),
    (
        {"table": "good", "delimiter": ";;"},
        "good.csv",
        "bad_argument",
        "one ASCII character between cells",
        "delimiter",
    ),
    ({"table": "good", "quote": 1}, "good.csv", "bad_argument", "'quote' must be a text", "quote"),
    ({"table": "good", "quote": "a"}, "good.csv", "bad_argument", "one ASCII character round cells", "quote"),
    ({"table": "good", "decimal": ";"}, "good.csv", "bad_argument", "'decimal' must be '.' or ','", "decimal"),
    ({"table": "good", "thousands": "."}, "good.csv", "bad_argument", "is the decimal character too", "thousands"),
    ({"table": "good", "encoding": "klingon"}, "good.csv", "bad_argument", "is no encoding of texts", "encoding"),
    ({"table": "good", "encoding": "rot13"}, "good.csv", "bad_argument", "is no encoding of texts", "encoding"),
    ({"table": "good", "encoding": "ascii\0"}, "good.csv", "bad_argument", "is no encoding of texts", "encoding"),
    ({"table": "good", "null": [1]}, "good.csv", "bad_argument", "'null' must be a text, or a list", "null"),
    ({"table": "good", "date_format": "%d.%m."}, "good.csv", "bad_argument", "does not name year", "date_format"),
    ({"table": "good", "header": "no"}, "good.csv", "bad_argument", "'header' must be true or false", "header"),
    ({"table": "good", "quote": "'"}, "good.parquet", "bad_argument", "options such as delimiter are for .csv", "uri"),
    ({"table": NEW, "mode": "create", "header": False}, "good.csv", "bad_argument", "Create the table first", "header"),
]


def check_rejected(model: OneWriter, request: Sent, code: str, part: str, where: str) -> None:
    """Check the outcome of a bad request between two good ones."""
    outcome = model.between(request)
    error = outcome.error or {}
    assert (outcome.status, error.get("code"), error.get("where")) == (Status.REJECTED, code, where), error
    assert part in error["message"]
    assert "secret" not in error["message"]
    check_sentence(error["message"])


@pytest.mark.parametrize(("uri", "code", "part"), PLACES)
def test_a_place_that_is_wrong_or_not_allowed_is_rejected(model: OneWriter, uri: Any, code: str, part: str) -> None:
    """`load` reads only regular files in the allowed folder, also by links and `..`."""
    place = uri.replace("{sources}", str(model.sources)) if isinstance(uri, str) else uri
    check_rejected(model, Sent("load", {"table": "good", "uri": place}), code, part, "uri")


@pytest.mark.parametrize(("name", "table", "code", "part", "where"), FILES)
def test_a_file_that_is_wrong_is_rejected(
    model: OneWriter, name: str, table: str, code: str, part: str, where: str
) -> None:
    """A damaged file, or one whose values the table cannot hold, changes no row."""
    check_rejected(model, Sent("load", {"table": table, "uri": str(model.sources / name)}), code, part, where)


@pytest.mark.parametrize(("arguments", "name", "code", "part", "where"), MODES)
def test_a_wrong_use_of_load_is_rejected(
    model: OneWriter, arguments: dict[str, Any], name: str, code: str, part: str, where: str
) -> None:
    """A wrong mode or table is rejected, and a `replace` that fails leaves the rows as they were."""
    check_rejected(model, Sent("load", {**arguments, "uri": str(model.sources / name)}), code, part, where)


def test_files_of_the_installation_are_never_read(tmp_path: Path) -> None:
    """A root inside the data folder allows only itself, never a model's or server's folder, even if it is named."""
    for name in ("loads", "m", "_store"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("n\n1\n")
    (tmp_path / "m" / "manager.lock").touch()
    (tmp_path / "loads" / "link.csv").symlink_to(tmp_path / "m" / "a.csv")
    every = (str(tmp_path), *(str(tmp_path / name) for name in ("loads", "m", "_store")))
    sources = Sources(every, StoreSettings(url=f"file://{tmp_path}/_store"), tmp_path)
    with sources.local_file(str(tmp_path / "loads" / "a.csv")) as path:
        assert path.read_text() == "n\n1\n"
    for name in ("m/a.csv", "_store/a.csv", "loads/link.csv", "loads/../m/a.csv"):
        with pytest.raises(RequestError) as caught, sources.local_file(f"{tmp_path}/{name}"):
            pass
        assert caught.value.code is Code.SOURCE_NOT_ALLOWED


def test_the_store_itself_is_never_read() -> None:
    """An S3 address of the store is refused, even if a root allows it."""
    sources = Sources(("s3://bucket",), StoreSettings(url="s3://bucket/own?endpoint=http://127.0.0.1:1"))
    with pytest.raises(RequestError) as caught, sources.local_file("s3://bucket/own/models/x/packs/1.parquet"):
        pass
    assert caught.value.code is Code.SOURCE_NOT_ALLOWED


def test_a_source_in_s3_is_downloaded_into_the_folder_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is the manager's, which deletes what it leaves when it is killed."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    store = StoreSettings(url="s3://bucket/own?endpoint=http://127.0.0.1:1")
    with (
        pytest.raises(TeatreeError),
        Sources(("s3://b",), store, tmp_path, tmp_path / "temp").local_file("s3://b/x.csv"),
    ):
        pass
    assert list((tmp_path / "temp").iterdir()) == []


def test_a_small_file_of_much_text_is_loaded_in_pieces(model: OneWriter) -> None:
    """A file that names one long text many times is loaded in pieces that the limit allows."""
    uri = str(model.sources / "repeated.parquet")
    outcome, _ = model.apply(Sent("load", {"table": "t", "uri": uri}), Sent("delete", {"table": "t", "where": {}}))
    assert (outcome.status, outcome.result) == (Status.DONE, {"rows": 50})


def test_a_long_load_reports_how_far_it_is(model: OneWriter) -> None:
    """A load reports after each piece of the file, with the rows so far."""
    seen = model.progress
    for name, rows in (("late.parquet", 300_001), ("many.csv", 2_000_000), ("long.arrow", 9_000)):
        seen.clear()
        uri = str(model.sources / name)
        made, _ = model.apply(
            Sent("load", {"table": NEW, "uri": uri, "mode": "create"}), Sent("drop_table", {"table": NEW})
        )
        assert (made.status, made.result) == (Status.DONE, {"rows": rows}), made.error
        assert seen[-1][::2] == ("load", f"{rows:,} rows")
        assert 0.9 < seen[-1][1] <= 1
        assert [fraction for _, fraction, _ in seen] == sorted(fraction for _, fraction, _ in seen)


def test_csv_values_are_exact(model: OneWriter) -> None:
    """Digits beyond a double, leading zeros, NaN and NA are kept; only an empty field is null."""
    uris = [str(model.sources / name) for name in ("exact.csv", "nulls.csv")]
    new = [{"name": name, "type": kind} for name, kind in (("n_", "INTEGER"),)]
    model.apply(Sent("alter_table", {"table": "t", "add": new[0]}))
    outcomes = model.apply(*(Sent("load", {"table": "t", "uri": uri}) for uri in uris))
    assert [o.status for o in outcomes] == [Status.DONE, Status.DONE], outcomes[0].error
    rows = model.rows("SELECT h, t, dec, uh, d FROM t")
    assert rows[0] == {"h": "-36893488147419103233", "t": "007", "dec": 0.1, "uh": "36893488147419103233", "d": None}
    assert [(row["t"], row["d"]) for row in rows[1:]] == [(None, None), ("", "NaN"), ("NA", 1.5)]
    model.apply(Sent("delete", {"table": "t", "where": {}}))


TABLE = {"table": "x", "columns": [{"name": "a", "type": "INTEGER"}]}
OPTIONS = [
    ({"engine": "arrow"}, "bad_argument", "'engine' is one of duckdb", "engine"),
    ({"storage_version": "v9"}, "bad_argument", "'storage_version' is one of", "storage_version"),
    ({"storage_version": "x'); DETACH model; --"}, "bad_argument", "'storage_version' is one of", "storage_version"),
    ({"storage_version": 1}, "bad_argument", "must be a text", "storage_version"),
    ({"app": "x" * 300}, "bad_name", "is not an app name", "app"),
    ({"app": "os.path"}, "bad_name", "is not an app name", "app"),
    ({"app": "goals:app"}, "bad_name", "is not an app name", "app"),
    ({"app": "no_such_app"}, "bad_argument", "no app 'no_such_app' that a model may have", "app"),
    ({"app": 1}, "bad_argument", "must be a text", "app"),
    ({"limits": []}, "bad_argument", "must be an object", "limits"),
    ({"limits": {"nope": 1}}, "unknown_argument", "no limit 'nope'", "limits.nope"),
    ({"limits": {"remember_days": 1}}, "unknown_argument", "no limit 'remember_days'", "limits.remember_days"),
    ({"limits": {"threads": 0}}, "out_of_range", "'threads' is 1 to 2, not 0", "limits.threads"),
    ({"limits": {"threads": 10**9}}, "out_of_range", "not 1000000000", "limits.threads"),
    ({"limits": {"threads": 1.5}}, "bad_argument", "is a whole number", "limits.threads"),
    ({"limits": {"threads": True}}, "bad_argument", "is a whole number", "limits.threads"),
    ({"limits": {"memory_bytes_max": 1}}, "out_of_range", "not 1.", "limits.memory_bytes_max"),
    ({"tables": {}}, "bad_argument", "must be a list", "tables"),
    ({"tables": [1]}, "bad_argument", "A table is an object", "tables[0]"),
    ({"tables": [{"table": "x"}]}, "missing_argument", "at least one column", "tables[0].columns"),
    ({"tables": [TABLE, {**TABLE, "rows": []}]}, "unknown_argument", "no member 'rows'", "tables[1].rows"),
    ({"tables": [TABLE, TABLE]}, "table_exists", "There is a table 'x' already", "tables[1].table"),
    ({"tables": [{**TABLE, "table": "a/b"}]}, "bad_name", "is not a table name", "tables[0].table"),
    ({"tables": [{**TABLE, "primary_key": "a"}]}, "bad_argument", "list of columns", "tables[0].primary_key"),
    ({"tables": [{**TABLE, "primary_key": [1]}]}, "bad_argument", "names columns", "tables[0].primary_key[0]"),
    ({"owner": "me"}, "unknown_argument", "no argument 'owner'", "owner"),
    (b"{", "bad_json", "Not JSON", "body"),
]


@pytest.mark.parametrize(("options", "code", "part", "where"), OPTIONS)
def test_a_model_with_wrong_options_is_not_created(
    tmp_path: Path, options: Any, code: str, part: str, where: str
) -> None:
    """A wrong `create_model` is rejected and leaves nothing; a right one after it creates the model."""
    writer = OneWriter(tmp_path)
    (outcome,) = writer.apply(Sent("create_model", options))
    error = outcome.error or {}
    assert (outcome.status, error.get("code"), error.get("where")) == (Status.REJECTED, code, where), error
    assert part in error["message"]
    check_sentence(error["message"])
    (outcome,) = writer.apply(Sent("create_model", {"tables": [TABLE]}))
    assert outcome.status is Status.DONE, outcome.error
    assert writer.rows("SELECT count(*) AS rows FROM x") == [{"rows": 0}]
    writer.close()
