"""What a model's app offers, as its manager describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

from teatree.contracts.errors import CorruptError


@frozen
class FunctionInfo:
    """One function of a model's app."""

    name: str
    kind: str
    """`mutation` or `query`."""
    handle: str
    """`write`, `read` or `none`."""
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
        functions = tuple(
            FunctionInfo(
                name=item["name"],
                kind=item["kind"],
                handle=item["handle"],
                signature=item["signature"],
                doc=item.get("doc", ""),
                labels=item.get("labels", {}),
                parameters=tuple(item.get("parameters", ())),
                schema=item.get("schema", {}),
            )
            for item in members["functions"]
        )
        return AppInfo(app.get("name"), app.get("version"), app.get("code_hash"), functions)
    except (KeyError, TypeError, AttributeError) as e:
        raise CorruptError(f"This is not a list of functions: {e!r}.", where=where) from None
