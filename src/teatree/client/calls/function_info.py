"""What a model's app offers, as its manager describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

from teatree.client.notice import named_error
from teatree.contracts.errors import CorruptError, TeatreeError


@frozen
class FunctionInfo:
    """One function of a model's app."""

    name: str
    kind: str
    """`mutation` or `query`."""
    handle: str
    """`write`, `read` or `none`; "" for a built-in function."""
    signature: str
    """Its parameters and its result, as in Python."""
    doc: str
    labels: Mapping[str, str]
    parameters: tuple[Mapping[str, Any], ...]
    """Of each: `name`, `type`, `required`, `default`, `doc`."""
    schema: Mapping[str, Any] = field(repr=False)
    """The JSON Schema of its arguments."""


@frozen
class AppInfo:
    """The app of a model: its functions, of which one is found by `[name]`."""

    name: str | None
    """None for a model without an app."""
    version: str | None
    code_hash: str | None
    functions: tuple[FunctionInfo, ...]
    error: TeatreeError | None = None
    """Why its functions cannot be called; None if they can."""

    def __iter__(self) -> Iterator[FunctionInfo]:
        return iter(self.functions)

    def __len__(self) -> int:
        return len(self.functions)

    def __getitem__(self, name: str) -> FunctionInfo:
        """Return a function by its name; raises `KeyError`."""
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        return found

    def find(self, name: str) -> FunctionInfo | None:
        """Return a function by its name, None if there is none."""
        return next((function for function in self.functions if function.name == name), None)


def read_app_info(members: Any, where: str) -> AppInfo:
    """Return what the answer to a read of `functions` describes; raises `corrupt` for anything else."""
    try:
        app = members.get("app") or {}
        functions = tuple(read_function_info(item) for item in members["functions"])
        error = None if members.get("error") is None else named_error(members["error"])
        return AppInfo(app.get("name"), app.get("version"), app.get("code_hash"), functions, error)
    except (KeyError, TypeError, AttributeError) as e:
        raise CorruptError(f"This is not a list of functions: {e!r}.", where=where) from None


def read_function_info(members: Mapping[str, Any]) -> FunctionInfo:
    """Return what the description of a function holds."""
    parameters = tuple(members.get("parameters", ()))
    return FunctionInfo(
        name=members["name"],
        kind=members["kind"],
        handle=members.get("handle", ""),
        signature=members.get("signature") or f"{members['name']}({', '.join(p['name'] for p in parameters)})",
        doc=members.get("doc", ""),
        labels=members.get("labels", {}),
        parameters=parameters,
        schema=members.get("schema", {}),
    )
