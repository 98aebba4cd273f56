"""A function of an app: reads the arguments of a request, strictly, and runs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from teatree.contracts.errors import Code, RequestError
from teatree.datasets.bad_value import BadValueError
from teatree.functions.app.app_parameter import AppParameter
from teatree.functions.app.calls.injection import Injector
from teatree.functions.app.context import Context
from teatree.functions.app.handles import Read, Write
from teatree.functions.app.json_schema import request_schema
from teatree.functions.app.values.converter import Reader
from teatree.functions.app.values.shapes import hint_text

if TYPE_CHECKING:
    import pyarrow as pa

_MISSING: Any = object()


class FunctionKind(StrEnum):
    """What a function is registered as."""

    MUTATION = "mutation"
    QUERY = "query"


class HandleKind(Enum):
    """The most that a function, or a dependency of it, asks for."""

    WRITE = "write"
    READ = "read"
    NONE = "none"


@frozen
class FunctionOptions:
    """What a function is registered with."""

    labels: Mapping[str, str]
    alone: bool = False
    time_ms_max: int | None = None
    page_size: int | None = None


@frozen(eq=False)
class AppFunction:
    """One function, ready to run: everything was checked and prepared when it was registered."""

    name: str
    kind: FunctionKind
    handle: HandleKind
    doc: str
    parameters: tuple[AppParameter, ...]
    """Those of the request, its dependencies' among them."""
    returns: Any
    """The hint of what it returns."""
    is_async: bool
    options: FunctionOptions
    _injector: Injector = field(repr=False)
    _read_result: Reader = field(repr=False)

    @property
    def labels(self) -> Mapping[str, str]:
        """What it is labelled with."""
        return self.options.labels

    @property
    def alone(self) -> bool:
        """Whether it is applied in a separate batch."""
        return self.options.alone

    @property
    def time_ms_max(self) -> int | None:
        """How long it may run, if it has a separate limit."""
        return self.options.time_ms_max

    @property
    def page_size(self) -> int | None:
        """Rows of a page of its result, if the request names none."""
        return self.options.page_size

    @property
    def signature(self) -> str:
        """Its name, parameters and result, without what a request does not give."""
        result = "" if self.returns is Any else f" -> {hint_text(self.returns)}"
        return f"{self.name}({', '.join(parameter.text for parameter in self.parameters)}){result}"

    def read_arguments(self, members: Mapping[str, Any], rows: pa.Table | None = None) -> dict[str, Any]:
        """Return the arguments of a request, converted, with the defaults of those that it leaves out.

        `members` are as `parse_json` returns them, or Python values of the hinted types; `rows`, the body in Arrow, are
        the value of the function's one Dataset, whose name can stand among the members with null. Raises
        `missing_argument`, `unknown_argument`, `type_mismatch`, `lossy_number`, `bad_argument` and the like, `where`
        being the path: `lines[3].price`.
        """
        if rows is not None:
            members = self._with_rows(members, rows)
        arguments: dict[str, Any] = {}
        taken = 0
        for parameter in self.parameters:
            name = parameter.name
            value = members.get(name, _MISSING)
            if value is _MISSING:
                if parameter.is_required:
                    raise RequestError(Code.MISSING_ARGUMENT, f"{self.name} needs the argument {name!r}.", where=name)
                arguments[name] = parameter.given_default()
                continue
            taken += 1
            try:
                arguments[name] = parameter.read(value)
            except BadValueError as e:
                raise RequestError(e.code, e.message, where=f"{name}{e.path}") from None
            except RecursionError:
                raise RequestError(Code.BAD_ARGUMENT, "It is nested too deeply.", where=name) from None
        if taken != len(members):
            self._refuse_unknown(members)
        return arguments

    def _with_rows(self, members: Mapping[str, Any], rows: pa.Table) -> dict[str, Any]:
        name = next((p.name for p in self.parameters if p.is_dataset), None)
        if name is None:
            message = f"{self.name} takes no rows, so its body must be JSON."
            raise RequestError(Code.BAD_CONTENT_TYPE, message, where="Content-Type")
        if members.get(name) is not None:
            raise RequestError(Code.BAD_ARGUMENT, f"Rows came twice: as the Arrow body and as {name!r}.", where=name)
        return {**members, name: rows}

    def _refuse_unknown(self, members: Mapping[str, Any]) -> None:
        names = {p.name for p in self.parameters}
        name = next(name for name in members if name not in names)
        raise RequestError(
            Code.UNKNOWN_ARGUMENT,
            f"{self.name} has no argument {name!r}.",
            where=name or "arguments",
            hint=f"It takes: {', '.join(p.name for p in self.parameters) or 'none'}.",
        )

    def run(self, arguments: Mapping[str, Any], handle: Read | Write | None, context: Context) -> Any:
        """Run its dependencies, itself, and their tear-downs; return what it returns.

        `arguments` are those that `read_arguments` returned. An error of the app's code passes as it is.
        """
        return self._injector.run(arguments, handle, context)

    def read_result(self, value: Any) -> Any:
        """Return a result that came as JSON as what the function's hint names; raises `type_mismatch` and its like."""
        try:
            return self._read_result(value)
        except BadValueError as e:
            raise RequestError(e.code, e.message, where=f"result{e.path}") from None

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the arguments of a request."""
        return request_schema(self.name, self.doc, self.parameters)

    def describe(self) -> dict[str, Any]:
        """Return what a client shows of it, as plain JSON values."""
        return {
            "name": self.name,
            "kind": str(self.kind),
            "handle": self.handle.value,
            "signature": self.signature,
            "doc": self.doc,
            "labels": dict(self.labels),
            "parameters": [parameter.describe() for parameter in self.parameters],
        }
