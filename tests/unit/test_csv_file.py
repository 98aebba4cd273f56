"""CSV files are read exactly, in blocks of any size, or refused with line and column."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.schema import Field, Schema, parse_dtype
from teatree.datasets.csv import cells as csv_cells
from teatree.datasets.csv.file import BLOCK_BYTES, CsvFile
from teatree.datasets.csv.options import CsvOptions, read_csv_options

SAME_FOLDER = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
Cells = list[list[Any]]


def read(
    folder: Path, data: str | bytes, types: dict[str, str] | None = None, block_bytes: int = BLOCK_BYTES, **options: Any
) -> tuple[dict[str, str], Cells]:
    """Return the types and the rows of a file with these bytes."""
    path = folder / "file.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    file = CsvFile(path, read_csv_options(options), block_bytes)
    schema = file.guess_schema() if types is None else schema_of(types)
    table = pa.concat_tables(file.tables(schema))
    rows = [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    return {name: str(schema[name].dtype) for name in table.column_names}, rows


def refusal(folder: Path, data: str | bytes, types: dict[str, str] | None = None, **options: Any) -> RequestError:
    """Return the error of a file that is refused."""
    with pytest.raises(RequestError) as caught:
        read(folder, data, types, **options)
    return caught.value


def schema_of(types: dict[str, str]) -> Schema:
    """Return the columns of these types; `!` ends one that is NOT NULL."""
    fields = (Field(name, parse_dtype(kind.rstrip("!")), nullable=kind[-1] != "!") for name, kind in types.items())
    return Schema(tuple(fields))


TEXTS = {"a": "VARCHAR", "b": "VARCHAR"}


class TestRecords:
    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
    def test_cells_are_the_same_in_blocks_of_any_size(self, tmp_path: Path, newline: str, encoding: str) -> None:
        """Line breaks, quotes, delimiters and letters of several bytes can be at a block's end."""
        rows = [["ä\r\nb", 'c"d'], ['"', "\r\n"], ["e,f", ""], ["\n", "g\r"], ["x", "Köln\r"]]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
        data = text.getvalue().encode(encoding)
        given_encoding = {} if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32") else {"encoding": encoding}
        for block_bytes in range(1, 40):
            assert read(tmp_path, data, TEXTS, block_bytes, **given_encoding)[1] == rows, block_bytes

    @SAME_FOLDER
    @given(
        rows=st.integers(1, 4).flatmap(
            lambda n: st.lists(
                st.lists(
                    st.text(
                        st.sampled_from("ab\"',;\t|\r\n é€𝄞 \u2028\u0085") | st.characters(codec="utf-8"), max_size=6
                    ).filter(lambda text: "\0" not in text),
                    min_size=n,
                    max_size=n,
                ),
                max_size=8,
            )
        ),
        delimiter=st.sampled_from(",;\t|"),
        quote=st.sampled_from("\"'"),
        newline=st.sampled_from(["\n", "\r\n", "\r"]),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
        block_bytes=st.integers(1, 64),
    )
    def test_what_python_writes_is_read_back(
        self,
        tmp_path: Path,
        rows: list[list[str]],
        delimiter: str,
        quote: str,
        newline: str,
        quoting: Any,
        block_bytes: int,
    ) -> None:
        """Any table of texts, in any of the common dialects; Python's writer may leave a CR without quotes."""
        if quoting == csv.QUOTE_MINIMAL:
            rows = [[cell.replace("\r", "") for cell in row] for row in rows]
        names = [f"c{i}" for i in range(len(rows[0]) if rows else 2)]
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, quotechar=quote, lineterminator=newline, quoting=quoting)
        writer.writerows([names, *rows])
        options = {"delimiter": delimiter, "quote": quote, "null": []}
        found = read(tmp_path, text.getvalue(), dict.fromkeys(names, "VARCHAR"), block_bytes, **options)
        assert found[1] == rows

    @pytest.mark.parametrize(
        ("data", "line", "part"),
        [
            ('a,b\n1,x\n2,"b\n3,c\n', 3, "never closed"),
            ('a,b\n1,"x\r\ny"\r\n2,"b\r\n3,"c"\r\n', 4, "text follows its closing quote"),
            ('a,b\n1,"x" \n', 2, "text follows its closing quote"),
            ('a,b\n1,5" pipe, 6" pipe\n', 2, "does not begin with one"),
            ('a,b\n1,"x"\n2, "y"\n', 3, "does not begin with one"),
            ("a,b\n1,x\n2\n", 3, "It has 1 cell; the first line has 2"),
            ("a,b\n1,x\n\n\n2,y,z\n", 5, "It has 3 cells; the first line has 2"),
            ('a,b\n1,"\n\n"\n2,y,z', 5, "It has 3 cells; the first line has 2"),
            ("a,b\n1,x\n2,\0\n", 3, "holds a NUL"),
            ("", 1, "is empty"),
            ("\n\n", 1, "is empty"),
        ],
    )
    def test_a_broken_record_is_refused_with_its_line(self, tmp_path: Path, data: str, line: int, part: str) -> None:
        """Quotes that do not match, and too few or too many cells, whatever the block's size."""
        for block_bytes in (1, 3, 7, 1000):
            error = refusal(tmp_path, data, TEXTS, block_bytes=block_bytes)
            assert (error.code, error.where) == (Code.BAD_SOURCE, f"line {line}")
            assert part in error.message

    def test_a_file_without_quotes(self, tmp_path: Path) -> None:
        """With an empty `quote` they are ordinary characters."""
        assert read(tmp_path, 'a,b\n5" pipe,"\n', TEXTS, quote="")[1] == [['5" pipe', '"']]

    def test_empty_lines(self, tmp_path: Path) -> None:
        """They are skipped, except where records have one cell: there each is an empty cell."""
        assert read(tmp_path, "\n\na,b\n\n1,x\n\n", TEXTS)[1] == [["1", "x"]]
        assert read(tmp_path, "n\n1\n\n2\n", {"n": "INTEGER"})[1] == [[1], [None], [2]]

    def test_bytes_of_another_encoding_are_refused(self, tmp_path: Path) -> None:
        """The error names the line and the option."""
        data = "a,b\n1,x\n2,Köln\n".encode("cp1252")
        for block_bytes in (1, 5, 100):
            error = refusal(tmp_path, data, TEXTS, block_bytes=block_bytes)
            assert (error.code, error.where) == (Code.BAD_SOURCE, "line 3")
            assert "0xf6" in error.message
            assert "cp1252" in (error.hint or "")
        hint = refusal(tmp_path, "a;b\n1;K\u00f6ln\n".encode("cp1252"), TEXTS).hint or ""
        assert "cp1252" in hint
        assert "delimiter ';'" in hint
        assert "utf-16" in (refusal(tmp_path, "a,b\n1,x\n".encode("utf-16-le"), TEXTS).hint or "")


class TestHeader:
    def test_names_are_matched_in_any_case_and_order(self, tmp_path: Path) -> None:
        """Column names match without regard to case."""
        assert read(tmp_path, "B,A\n1,2\n", TEXTS) == ({"b": "VARCHAR", "a": "VARCHAR"}, [["1", "2"]])

    def test_without_header(self, tmp_path: Path) -> None:
        """The columns are the table's, in order."""
        assert read(tmp_path, "1,2\n3,4\n", TEXTS, header=False)[1] == [["1", "2"], ["3", "4"]]
        assert "3 cells" in refusal(tmp_path, "1,2,3\n", TEXTS, header=False).message

    @pytest.mark.parametrize("delimiter", [";", "\t", "|"])
    def test_another_delimiter_is_named(self, tmp_path: Path, delimiter: str) -> None:
        """A header that does not fit names the delimiter that the file seems to use."""
        data = f"a{delimiter}b\n1{delimiter}2\n"
        for types in (TEXTS, None):
            assert f"delimiter {delimiter!r}" in (refusal(tmp_path, data, types).hint or "")
        assert read(tmp_path, data, TEXTS, delimiter=delimiter)[1] == [["1", "2"]]


class TestCells:
    @pytest.mark.parametrize(
        ("kind", "cells", "wanted"),
        [
            ("DOUBLE", ["1", "1.5", "-2e3", "NaN", "-inf", ""], [1.0, 1.5, -2000.0, "nan", float("-inf"), None]),
            ("INTEGER", ["5", "+5", "-0", "1.0", "1e3", " 7 "], [5, 5, 0, 1, 1000, 7]),
            ("UBIGINT", ["18446744073709551615", "007"], [2**64 - 1, 7]),
            ("BOOLEAN", ["0", "1", "TRUE", "f", "no", ""], [False, True, True, False, False, None]),
            (
                "DECIMAL(18,2)",
                ["1", "1.5", "-0.10", "1e2", "1.500"],
                [Decimal(t) for t in ("1", "1.5", "-.1", "100", "1.5")],
            ),
            ("VARCHAR", ["007", "NaN", "NA", " x ", "null"], ["007", "NaN", "NA", " x ", "null"]),
            ("ENUM('a','b')", ["a", "", "b"], ["a", None, "b"]),
            ("JSON", ['"{""a"": 1.50}"'], ['{"a": 1.50}']),
            ("INTEGER[]", ['"[1, 2]"', ""], [[1, 2], None]),
        ],
    )
    def test_types_are_the_tables(self, tmp_path: Path, kind: str, cells: list[str], wanted: list[Any]) -> None:
        """Each cell is a value of the column's type, however late its notation appears."""
        data = "x,y\n" + "".join(f"{cell},\n" for cell in cells)
        found = read(tmp_path, data, {"x": kind, "y": "VARCHAR"}, 4)[1]
        assert ["nan" if x != x else x for x, _ in found] == wanted  # noqa: PLR0124

    def test_moments(self, tmp_path: Path) -> None:
        """Days and moments in ISO 8601, or in the form of the options."""
        types = {"d": "DATE", "t": "TIMESTAMP", "z": "TIMESTAMPTZ"}
        iso = read(tmp_path, "d,t,z\n2026-12-31,2026-12-31,2026-12-31T10:00+01:00\n,2026-12-31 10:00:00.5,\n", types)[1]
        german = read(
            tmp_path,
            "d,t,z\n31.12.2026,31.12.2026 00:00:00,31.12.2026 09:00:00\n".replace("09:00:00\n", "00:00:00\n"),
            {"d": "DATE", "t": "TIMESTAMP", "z": "TIMESTAMP"},
            date_format="%d.%m.%Y",
            timestamp_format="%d.%m.%Y %H:%M:%S",
        )[1]
        assert [str(v) for v in iso[0]] == ["2026-12-31", "2026-12-31 00:00:00", "2026-12-31 09:00:00+00:00"]
        assert [str(v) for v in iso[1]] == ["None", "2026-12-31 10:00:00.500000", "None"]
        assert [str(v) for v in german[0]] == ["2026-12-31", "2026-12-31 00:00:00", "2026-12-31 00:00:00"]

    def test_a_german_spreadsheet(self, tmp_path: Path) -> None:
        """Semicolons, decimal commas, points between thousands, cp1252, days with points."""
        data = 'id;site;amount;day\r\n1;Köln;"1.234.567,50";31.12.2026\r\n2;Trier;-3,5;\r\n3;-;;1.1.2026\r\n'
        options: dict[str, Any] = {
            "delimiter": ";",
            "decimal": ",",
            "thousands": ".",
            "encoding": "cp1252",
            "date_format": "%d.%m.%Y",
        }
        types = {"id": "INTEGER", "site": "VARCHAR", "amount": "DECIMAL(18,2)", "day": "DATE"}
        for given_types in (types, None):
            _, rows = read(tmp_path, data.encode("cp1252"), given_types, null=["-", ""], **options)
            assert [[str(cell) for cell in row[:2]] for row in rows] == [["1", "Köln"], ["2", "Trier"], ["3", "None"]]
            assert [row[2] for row in rows] == [Decimal("1234567.5"), Decimal("-3.5"), None]
            assert [str(row[3]) for row in rows] == ["2026-12-31", "None", "2026-01-01"]

    @pytest.mark.parametrize("number", ["1.5", "1.23.456", "1.2345", "12,3,4", ".123", "1 234"])
    def test_thousands_separators_precede_three_digits(self, tmp_path: Path, number: str) -> None:
        """A number in another notation is refused, not read as ten times as large."""
        data = f"x\n{number}\n"
        error = refusal(tmp_path, data, {"x": "DOUBLE"}, delimiter=";", decimal=",", thousands=".")
        assert (error.code, error.where) == (Code.TYPE_MISMATCH, "line 2, column x")

    def test_nulls(self, tmp_path: Path) -> None:
        """An empty cell is NULL, a quoted one the empty text; other types have no empty text."""
        types = {"t": "VARCHAR", "n": "INTEGER"}
        assert read(tmp_path, 't,n\n,\n"",""\nNULL,\n', types)[1] == [[None, None], ["", None], ["NULL", None]]
        found = read(tmp_path, 't,n\n,NULL\nNULL,"NULL"\n"NULL",1\n', types, null="NULL")[1]
        assert found == [["", None], [None, None], ["NULL", 1]]

    @pytest.mark.parametrize(
        ("kind", "cell", "code", "part"),
        [
            ("INTEGER", "12,50", Code.TYPE_MISMATCH, "'12,50' is not a value of type INTEGER"),
            ("INTEGER", "1.5", Code.LOSSY_NUMBER, "1.5 would lose digits"),
            ("INTEGER", "0x1f", Code.TYPE_MISMATCH, "'0x1f'"),
            ("INTEGER", "1_000", Code.TYPE_MISMATCH, "'1_000'"),
            ("INTEGER", "\uff13", Code.TYPE_MISMATCH, "'\uff13'"),
            ("TINYINT", "128", Code.OUT_OF_RANGE, "128 is out of range"),
            ("DECIMAL(4,2)", "100", Code.OUT_OF_RANGE, "100 is out of range"),
            ("DOUBLE", "1e999", Code.OUT_OF_RANGE, "is out of range"),
            ("DOUBLE", "9007199254740993", Code.LOSSY_NUMBER, "9007199254740993 would lose digits"),
            ("BOOLEAN", "maybe", Code.TYPE_MISMATCH, "'maybe'"),
            ("DATE", "31.12.2026", Code.TYPE_MISMATCH, "'31.12.2026'"),
            ("VARCHAR!", "", Code.NOT_NULL, "does not take null"),
        ],
    )
    def test_a_wrong_value_is_refused_with_its_place(
        self, tmp_path: Path, kind: str, cell: str, code: Code, part: str
    ) -> None:
        """Line, column and value are named."""
        data = f'x,y\n{"a" if kind == "VARCHAR!" else ""},"\n\n"\n'
        error = refusal(tmp_path, f'{data}"{cell}",\n' if cell else f"{data},\n", {"x": kind, "y": "VARCHAR"})
        assert (error.code, error.where) == (code, "line 5, column x")
        assert part in error.message

    @SAME_FOLDER
    @given(
        texts=st.lists(
            st.from_regex(r"[+-]?[0-9]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True) | st.none(),
            max_size=4,
        ),
        kind=st.sampled_from(
            "TINYINT INTEGER BIGINT UBIGINT FLOAT DOUBLE DECIMAL(18,2) DECIMAL(38,9) DECIMAL(38,38)".split()
        ),
    )
    @example(texts=["065535.5"], kind="DECIMAL(38,38)")  # Arrow's own cast wraps around
    def test_the_fast_conversion_is_exact(self, texts: list[str | None], kind: str) -> None:
        """Arrow's conversion of a column equals our converter's of each value."""
        dtype = parse_dtype(kind)
        cells = pa.array(texts, pa.string())
        quick = csv_cells._numbers(cells, dtype)  # type: ignore[arg-type]
        if quick is not None:
            assert quick.equals(csv_cells._by_value(cells, dtype, CsvOptions()))


class TestGuesses:
    @pytest.mark.parametrize(
        ("cells", "kind"),
        [
            (["1", "2", ""], "BIGINT"),
            (["1", "007"], "VARCHAR"),
            (["1", "+49"], "VARCHAR"),
            (["1", "1.5"], "DOUBLE"),
            (["1", "0.1234567890123456789"], "DECIMAL(20,19)"),
            (["0.30000000000000004", "1e300"], "DOUBLE"),
            (["1", "1e400"], "VARCHAR"),
            (["1", "9223372036854775808"], "HUGEINT"),
            (["1", "9" * 40], "VARCHAR"),
            (["0", "1", "true"], "VARCHAR"),
            (["true", "False"], "BOOLEAN"),
            (["", "2026-01-01"], "DATE"),
            (["2026-01-01", "2026-01-01 10:00:00"], "TIMESTAMP"),
            (["2026-01-01", "2026-02-30"], "VARCHAR"),
            (["10:00", "10:00:30"], "TIME"),
            (["2026-01-01T10:00Z"], "TIMESTAMP WITH TIME ZONE"),
            (["2026-01-01T10:00Z", "2026-01-01T10:00"], "VARCHAR"),
            (["1", "x"], "VARCHAR"),
            (["", ""], "VARCHAR"),
        ],
    )
    def test_a_type_holds_all_cells_of_the_file(self, tmp_path: Path, cells: list[str], kind: str) -> None:
        """The widest form of any cell decides; a column that a number type would change is text."""
        for order in (cells, cells[::-1]):
            data = "x,y\n" + "".join(f"{cell},\n" for cell in order)
            assert read(tmp_path, data, None, 3)[0]["x"] == kind

    @SAME_FOLDER
    @given(
        cells=st.lists(
            st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE]-?[0-9]{1,3})?", fullmatch=True)
            | st.dates().map(str)
            | st.datetimes().map(str)
            | st.sampled_from(["true", "FALSE", "", "x", "10:00", "NaN"]),
            max_size=5,
        )
    )
    def test_what_was_guessed_can_be_read(self, tmp_path: Path, cells: list[str]) -> None:
        """The guessed type accepts every cell."""
        data = "x,y\n" + "".join(f"{cell},\n" for cell in cells)
        types, rows = read(tmp_path, data, None, 3)
        if types["x"] == "VARCHAR":
            assert [row[0] for row in rows] == [cell or None for cell in cells]
