"""Tables in Parquet: which types Parquet would change, and how they are written instead."""

from __future__ import annotations

from teatree.contracts.types.dtypes import (
    Array,
    Bit,
    Dtype,
    Integer,
    Interval,
    Json,
    List,
    Map,
    Struct,
    StructField,
    Timestamp,
    TimeTz,
    Varchar,
)
from teatree.contracts.types.schema import Schema
from teatree.datasets.ddl import quote


def parquet_dtype(dtype: Dtype) -> Dtype:
    """Return the type in which Parquet keeps the values of `dtype`; casting back gives them again.

    DuckDB 2.0 writes 128-bit integers as doubles, intervals in milliseconds, and TIMETZ without its offset: these are
    written as texts, as BIT is; Parquet has no whole seconds. Polars takes JSON for bytes, and PyArrow cannot read
    DuckDB's arrays where one is NULL: texts and lists are read by all.
    """
    match dtype:
        case Integer(bits=128) | Interval() | TimeTz() | Bit() | Json():
            return Varchar()
        case Timestamp(unit="s"):
            return Timestamp("us")
        case List(of=of) | Array(of=of):
            return List(parquet_dtype(of))
        case Struct(fields=fields):
            return Struct(tuple(StructField(member.name, parquet_dtype(member.dtype)) for member in fields))
        case Map(key=key, value=value):
            return Map(parquet_dtype(key), parquet_dtype(value))
        case _:
            return dtype


def parquet_columns(schema: Schema) -> str:
    """Return the columns of a SELECT whose rows Parquet keeps without loss."""
    parts = []
    for column in schema:
        kept = parquet_dtype(column.dtype)
        name = quote(column.name)
        parts.append(name if kept == column.dtype else f"CAST({name} AS {kept}) AS {name}")
    return ", ".join(parts)
