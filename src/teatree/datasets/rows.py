"""The decoder of JSON rows into a table's Arrow form: the hot path of `append`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa
from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.shown import shown
from teatree.contracts.types.schema import Field, Schema
from teatree.datasets.arrow.arrays import build_array
from teatree.datasets.arrow.types import to_arrow_schema
from teatree.datasets.bad_value import BadValueError
from teatree.datasets.values import Convert, converter

_PLANS_MAX = 1_000
"""Distinct sets of keys that a decoder remembers; senders can make up more."""


@frozen
class RowGroup:
    """Converted rows that give the same columns: what one INSERT can take together."""

    columns: tuple[str, ...]
    """The columns to insert, in the table's order and spelling."""
    rows: list[tuple[Any, ...]]


@frozen
class _Plan:
    columns: tuple[str, ...]
    steps: tuple[tuple[Convert, str], ...]
    """For each column its converter and the key under which these rows hold it."""


class RowDecoder:
    """Converts rows for one schema; made once per schema and used for every request.

    With `fill` a column that is left out is given as NULL if it has no default; without it (`upsert`, `update`), only
    the columns that were sent are given.
    """

    def __init__(self, schema: Schema, *, fill: bool = True, convert_by: Callable[..., Convert] = converter) -> None:
        """`convert_by` makes the converter of a type: that of JSON values, or `python_converter`."""
        self.schema = schema
        self._fill = fill
        self._converters = {column.name: convert_by(column.dtype, nullable=column.nullable) for column in schema}
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def decode(self, rows: object, where: str = "rows") -> list[RowGroup]:
        """Return the rows of one request, converted; mostly one group.

        Raises a RequestError that names the place, for example `rows[3].id`.
        """
        if type(rows) is not list:
            raise RequestError(Code.BAD_ARGUMENT, "The rows are not a list of objects.", where=where)
        groups: dict[tuple[str, ...], RowGroup] = {}
        plans = self._plans
        plan = None
        at = -1
        try:
            for at, row in enumerate(rows):
                if type(row) is not dict:
                    raise RequestError(Code.BAD_ARGUMENT, "The row is not an object.", where=f"{where}[{at}]")
                keys = tuple(row)
                plan = plans.get(keys)
                if plan is None:
                    plan = self._plan(keys, f"{where}[{at}]")
                get = row.get
                values = tuple([convert(get(key)) for convert, key in plan.steps])
                group = groups.get(plan.columns)
                if group is None:
                    groups[plan.columns] = RowGroup(plan.columns, [values])
                else:
                    group.rows.append(values)
        except BadValueError as e:
            raise self._place(e, plan, rows[at], f"{where}[{at}]") from None
        return list(groups.values())

    def to_table(self, groups: Sequence[RowGroup]) -> pa.Table:
        """Return the rows of groups that give the same columns, of any number of requests, as one Arrow table."""
        (columns,) = {group.columns for group in groups}
        schema = self.schema.select(columns)
        rows: Iterable[tuple[Any, ...]] = chain.from_iterable(group.rows for group in groups)
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        arrays = [build_array(column.dtype, of) for column, of in zip(schema, values, strict=True)]
        return pa.Table.from_arrays(arrays, schema=to_arrow_schema(schema))

    def _plan(self, keys: tuple[str, ...], where: str) -> _Plan:
        sent: dict[str, str] = {}
        for key in keys:
            if not isinstance(key, str):
                raise RequestError(Code.BAD_ARGUMENT, f"A column's name is a text, not {shown(key)}.", where=where)
            name = self.schema.field(key, f"{where}.{key}").name
            if name in sent:
                message = f"The column {name!r} is given twice, as {sent[name]!r} and {key!r}."
                raise RequestError(Code.DUPLICATE_KEY, message, where=f"{where}.{key}")
            sent[name] = key
        given = [column for column in self.schema if self._is_given(column, sent, where)]
        if not given:
            raise RequestError(Code.MISSING_COLUMN, "The row gives no column.", where=where)
        steps = tuple((self._converters[column.name], sent.get(column.name, column.name)) for column in given)
        plan = _Plan(tuple(column.name for column in given), steps)
        if len(self._plans) >= _PLANS_MAX:
            self._plans.clear()
        self._plans[keys] = plan
        return plan

    def _is_given(self, column: Field, sent: dict[str, str], where: str) -> bool:
        if column.name in sent:
            return True
        if column.default is not None:
            return False
        if not column.nullable:
            raise missing_column(column, f"{where}.{column.name}")
        return self._fill

    @staticmethod
    def _place(error: BadValueError, plan: _Plan | None, row: dict[str, Any], where: str) -> RequestError:
        """Return the error for the column whose value was refused."""
        for convert, key in plan.steps if plan else ():
            try:
                convert(row.get(key))
            except BadValueError as e:
                return RequestError(e.code, e.message, where=f"{where}.{key}{e.path}")
        return RequestError(error.code, error.message, where=where)


def missing_column(column: Field, where: str) -> RequestError:
    """Return the error for a column that must be given and is not."""
    return RequestError(
        Code.MISSING_COLUMN,
        f"The column {column.name!r} is left out, though it takes no null and has no default.",
        where=where,
    )
