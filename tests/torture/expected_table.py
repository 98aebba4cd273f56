"""A table as the oracle has it: rows by their key, in plain dicts."""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

Row = dict[str, Any]


class RefusedError(Exception):
    """The request must be rejected with this code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@define
class ExpectedTable:
    """Rows by their key, or by a running number if there is none."""

    columns: dict[str, str]
    key: tuple[str, ...] = ()
    rows: dict[Any, Row] = Factory(dict)
    next_row: int = 0

    def key_of(self, row: Row) -> Any:
        if self.key:
            return tuple(row[name] for name in self.key)
        self.next_row += 1
        return self.next_row

    def insert(self, rows: list[Row]) -> None:
        made: dict[Any, Row] = {}
        for row in rows:
            key = self.key_of(row)
            if key in self.rows or key in made:
                raise RefusedError("constraint")
            made[key] = {name: row.get(name) for name in self.columns}
        self.rows.update(made)

    def matching(self, where: Row) -> list[Any]:
        self.check_columns(where)
        if self.key and set(where) == set(self.key):
            key = tuple(where[name] for name in self.key)
            return [key] if key in self.rows else []
        return [k for k, row in self.rows.items() if all(row[name] == v for name, v in where.items())]

    def check_columns(self, names: Row) -> None:
        if any(name not in self.columns for name in names):
            raise RefusedError("unknown_column")

    def check_rows(self, rows: list[Row], *, fill: bool) -> None:
        for row in rows:
            self.check_columns(row)
            for name in self.key:
                if name not in row:
                    raise RefusedError("missing_column")
                if row[name] is None:
                    raise RefusedError("not_null")
        if not fill and len({tuple(row[name] for name in self.key) for row in rows}) < len(rows):
            raise RefusedError("constraint")
