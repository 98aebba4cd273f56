"""The registry: the functions of a model, by name. It is made once in a process and passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.functions import rows, tables
from teatree.functions.arguments import Call
from teatree.functions.load import load
from teatree.functions.model_arguments import read_model_arguments
from teatree.functions.restore import restore
from teatree.functions.sql import query, sql
from teatree.functions.traits import Function, Nature, Traits

_NO_TRAITS = Traits()


@frozen
class Registry:
    """Functions by name."""

    functions: Mapping[str, Function]

    @classmethod
    def of(cls, functions: Iterable[Function]) -> Registry:
        """Return a registry of functions; raises `ValueError` for two of one name."""
        found: dict[str, Function] = {}
        for function in functions:
            if function.name in found:
                raise ValueError(f"There are two functions {function.name!r}.")
            found[function.name] = function
        return cls(found)

    def extended(self, *functions: Function) -> Registry:
        """Return a registry with further functions, which replace those of the same names."""
        return Registry({**self.functions, **{function.name: function for function in functions}})

    def find(self, name: str) -> Function | None:
        """Return a function by its name, None if there is none."""
        return self.functions.get(name)

    def require(self, name: str) -> Function:
        """Return a function by its name; raises `unknown_function`."""
        found = self.find(name)
        if found is None:
            raise RequestError(
                Code.UNKNOWN_FUNCTION,
                f"There is no function {name!r}.",
                where="function",
                hint=f"There are: {', '.join(sorted(self.functions))}.",
            )
        return found

    def traits(self, name: str) -> Traits:
        """Return the traits of a function by its name; the defaults for a name that no function has."""
        found = self.functions.get(name)
        return _NO_TRAITS if found is None else found.traits

    def with_nature(self, nature: Nature) -> tuple[str, ...]:
        """Return the names of the functions of one nature, sorted."""
        return tuple(sorted(f.name for f in self.functions.values() if f.traits.nature is nature))


def _archive(_: Any, call: Call) -> list[str]:
    """Return the tables to archive: those named, or none for all."""
    names = call.texts("tables", [])
    call.finish()
    return names


def _create_model(_: Any, call: Call) -> Any:
    return read_model_arguments(call)


def _drop_model(_: Any, call: Call) -> None:
    call.finish()


def _may_update(body: bytes) -> bool:
    body = body.lower()
    return b"update" in body or b"\\u" in body


def built_in_functions() -> Registry:
    """Return the functions that every model has."""
    return Registry.of(
        (
            Function("create_model", _create_model, Traits(Nature.BEGINS, alone=True)),
            Function("drop_model", _drop_model, Traits(Nature.ENDS, alone=True)),
            Function("create_table", tables.create_table),
            Function("alter_table", tables.alter_table),
            Function("drop_table", tables.drop_table),
            Function("append", rows.append, Traits(error_place="rows")),
            Function("replace", rows.replace, Traits(error_place="rows")),
            Function("upsert", rows.upsert, Traits(error_place="rows")),
            Function("update", rows.update, Traits(makes_rows=True, moves_keys=lambda _: True)),
            Function("delete", rows.delete),
            Function("load", load, Traits(alone=True, copies=True, makes_rows=True, error_place="uri")),
            Function("restore", restore, Traits(alone=True, copies=True)),
            Function("sql", sql, Traits(makes_rows=True, moves_keys=_may_update, error_place="statement")),
            Function("query", query, Traits(Nature.READS, error_place="sql")),
            Function("archive", _archive, Traits(Nature.BARRIER, alone=True)),
        )
    )
