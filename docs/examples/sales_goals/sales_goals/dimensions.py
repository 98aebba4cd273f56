"""The dimensions of the data, and how a request names one site or one leaf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from teatree import Field, Refused, Schema
from teatree.contracts.types.dtypes import Integer, Varchar

DIMENSIONS = ("site", "product", "customer", "salesperson")
Value = str | int | None
"""A value of a dimension: NULL is one like any other."""


@frozen
class Dimensions:
    """Those of DIMENSIONS that the data has, in that order. A leaf is a value of each."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, schema: Schema, table: str) -> Dimensions:
        """Return those of a table; refuses one without any, or with one that is neither text nor an integer."""
        fields = tuple(Field(name, schema[name].dtype) for name in DIMENSIONS if name in schema)
        if not fields:
            raise Refused(f"The table {table!r} has none of the columns {', '.join(DIMENSIONS)}.", where=table)
        for field in fields:
            if not isinstance(field.dtype, Integer | Varchar):
                message = f"The column {field.name!r} of {table!r} is a {field.dtype}, not text or an integer."
                raise Refused(message, where=table)
        return cls(fields)

    @property
    def names(self) -> str:
        """Their names, as a list of SQL."""
        return ", ".join(field.name for field in self.fields)

    @property
    def with_site(self) -> str:
        """The same, and in data without sites a NULL in their place: all of it is one site."""
        return self.names if self.fields[0].name == "site" else f"NULL::VARCHAR AS site, {self.names}"

    @property
    def order(self) -> str:
        """What sorts leaves, as SQL: by their columns, text by code point, integers by value, NULL last."""
        return ", ".join(f"{field.name} ASC NULLS LAST" for field in self.fields)

    def same(self, one: str, other: str) -> str:
        """Return whether two tables' rows are of one leaf, as SQL."""
        return " AND ".join(f"{one}.{f.name} IS NOT DISTINCT FROM {other}.{f.name}" for f in self.fields)

    def only(self, names: Iterable[str]) -> Dimensions:
        """Return those of these names, each once; refuses one that the data lacks, and none at all."""
        wanted = dict.fromkeys(names)
        fields = tuple(field for field in self.fields if field.name in wanted)
        if not fields or len(fields) < len(wanted):
            raise Refused(f"The dimensions are some of: {self.names}.", where="dimensions")
        return Dimensions(fields)

    def either(self, one: str, other: str) -> str:
        """Return the dimensions of a FULL JOIN's rows, as SQL."""
        return ", ".join(f"coalesce({one}.{f.name}, {other}.{f.name}) AS {f.name}" for f in self.fields)

    def select(self, site: Value, leaf: Mapping[str, Value] | None) -> Selection:
        """Return what a request names: a site, or a leaf by its value in each dimension.

        A leaf with `site` alone is that site, so that `{"site": None}` is the site of the lines that name none.
        """
        if (site is None) == (leaf is None):
            raise Refused("A request names either a site or a leaf.", where="leaf")
        values = {"site": site} if leaf is None else dict(leaf)
        fields = {field.name: field for field in self.fields}
        is_leaf = leaf is not None and values.keys() == fields.keys()
        if not is_leaf and not (values.keys() == {"site"} <= fields.keys()):
            raise Refused(f"A leaf has a value for each of: {self.names}.", where="leaf" if site is None else "site")
        for name, value in values.items():
            _check(fields[name], value)
        return Selection(values, {name: str(fields[name].dtype) for name in values}, is_leaf)


@frozen
class Selection:
    """One site or one leaf, by its values."""

    values: Mapping[str, Value]
    types: Mapping[str, str]
    is_leaf: bool

    @property
    def condition(self) -> str:
        """Whether a row of `goals` belongs to it, as SQL whose parameters are `values`."""
        tests = (f"{name} IS NOT DISTINCT FROM ${name}::{self.types[name]}" for name in self.values)
        return " AND ".join(tests) or "true"

    @property
    def site(self) -> Selection:
        """Its site; in data without sites, all."""
        values = {name: value for name, value in self.values.items() if name == "site"}
        return Selection(values, self.types, is_leaf=False)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value!r}" for name, value in self.values.items())


def _check(field: Field, value: Value) -> None:
    """Refuse a value that a column cannot hold."""
    if value is None:
        return
    if isinstance(field.dtype, Integer):
        if isinstance(value, int) and field.dtype.minimum <= value <= field.dtype.maximum:
            return
    elif isinstance(value, str):
        return
    raise Refused(f"{value!r} is no value of {field.name!r}, which is a {field.dtype}.", where=field.name)
