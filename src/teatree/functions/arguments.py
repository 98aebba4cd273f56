"""A call: one request's arguments, parsed and checked; an error names the place of the fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import parse_json
from teatree.contracts.formats.provenance import VersionRead
from teatree.contracts.formats.requests import CONTENT_ARROW, HEADER_ARGS, Request
from teatree.contracts.settings import LimitSettings
from teatree.contracts.shown import shown
from teatree.datasets.parameters import PARAMETERS_MAX, check_parameter
from teatree.functions.sources import Sources

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.contracts.types.schema import Schema
    from teatree.datasets.csv.options import CsvOptions
    from teatree.functions.handles import Parameters
    from teatree.functions.history import History
    from teatree.functions.others import Others

T = TypeVar("T")
_REQUIRED: Any = object()
VALUE_BYTES = 8
"""Bytes that one value of a row counts for, though the body may not hold it: a column that is left out."""


Report = Callable[[Request, float, str], None]
"""Called with a request, the part of it that is done, and a text for people; it returns at once."""


def no_report(request: Request, fraction: float, text: str) -> None:
    """Publish nothing."""


def no_apps(name: str) -> None:
    """Refuse every app: there is none."""
    raise RequestError(Code.BAD_ARGUMENT, f"There is no app {shown(name)} that a model may have.", where="app")


@frozen
class CallContext:
    """What functions may use beside their handle."""

    limits: LimitSettings
    sources: Sources
    history: History | None = None
    """The model's versions, where there is an open transaction to read them into."""
    report: Report = no_report
    """Publishes how far a request is."""
    engines: tuple[str, ...] = ()
    """The engines that a new model can have."""
    others: Others | None = None
    """Opens versions of other models for functions of apps; None where there is no store."""
    check_app: Callable[[str], object] = no_apps
    """Raises `bad_name` or `bad_argument` for the name of an app that a model may not have."""


# More than ten public methods: one for each kind of argument.
class Call:
    """The arguments of one request, each taken once; `finish` refuses those that were not taken."""

    def __init__(self, request: Request, context: CallContext) -> None:
        """Parse the arguments; raises `body_too_large`, `bad_json`, `duplicate_key`, `bad_argument` or `bad_header`."""
        _check_size(request, context.limits)
        self.request = request
        self.context = context
        self._members = _members(request)
        self.reads: tuple[VersionRead, ...] = ()
        """Versions of other models that the function has read."""
        self.expected_version = self.integer("expected_version", None)

    def progress(self, fraction: float, text: str) -> None:
        """Have a long request's progress published, at most about once a second: the part that is done, 0 to 1."""
        self.context.report(self.request, fraction, text)

    def take(self, name: str, kind: type[T] | tuple[type[T], ...], noun: str, default: Any = _REQUIRED) -> T:
        """Take one argument of a kind; raises `missing_argument` or `bad_argument`."""
        value = self._members.pop(name, None)
        if value is None:
            if default is _REQUIRED:
                raise RequestError(
                    Code.MISSING_ARGUMENT, f"{self.request.function} needs the argument {name!r}.", where=name
                )
            return default  # type: ignore[no-any-return]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise RequestError(Code.BAD_ARGUMENT, f"{name!r} must be {noun}, not {shown(value)}.", where=name)
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> Any:
        """Take a text."""
        return self.take(name, str, "a text", default)

    def nullable_text(self, name: str) -> str | None:
        """Take a text, or the null that must be given for none."""
        if name in self._members and self._members[name] is None:
            return self._members.pop(name)  # type: ignore[no-any-return]
        return self.text(name)  # type: ignore[no-any-return]

    def choice(self, name: str, choices: tuple[str, ...], default: Any = _REQUIRED) -> Any:
        """Take one of some texts."""
        value = self.take(name, str, "a text", default)
        if value != default and value not in choices:
            raise RequestError(
                Code.BAD_ARGUMENT, f"{name!r} is one of {', '.join(choices)}; not {shown(value)}.", where=name
            )
        return value

    def integer(self, name: str, default: Any = _REQUIRED) -> Any:
        """Take a whole number of at least 0."""
        value = self.take(name, int, "a whole number", default)
        if isinstance(value, int) and not 0 <= value < 2**63:
            raise RequestError(Code.OUT_OF_RANGE, f"{name!r} is out of range: {value}.", where=name)
        return value

    def flag(self, name: str) -> bool:
        """Take true or false; false if it is left out."""
        return self.take(name, bool, "true or false", default=False)

    def members(self, name: str, default: Any = _REQUIRED) -> dict[str, Any]:
        """Take an object."""
        return self.take(name, dict, "an object", default)

    def items(self, name: str, default: Any = _REQUIRED) -> list[Any]:
        """Take a list."""
        return self.take(name, list, "a list", default)

    def texts(self, name: str, default: Any = _REQUIRED) -> list[str]:
        """Take a list of texts."""
        return self._each(name, self.items(name, default), str, "a text")

    def csv_options(self) -> CsvOptions | None:
        """Take the options of a CSV file; None if none is given."""
        from teatree.datasets.csv.options import OPTION_NAMES, read_csv_options  # noqa: PLC0415

        given = {name: self._members.pop(name) for name in OPTION_NAMES if name in self._members}
        return read_csv_options(given) if given else None

    def parameters(self) -> Parameters:
        """Take a statement's `parameters`: a list for `?`, an object for `$name`; plain scalars."""
        value: Any = self.take("parameters", (list, dict), "a list or an object", ())
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        if len(value) > PARAMETERS_MAX:
            raise RequestError(Code.OUT_OF_RANGE, f"At most {PARAMETERS_MAX} parameters are taken.", where="parameters")
        for key, item in pairs:
            if isinstance(item, (dict, list)):
                raise RequestError(
                    Code.BAD_ARGUMENT,
                    "A parameter must be a text, a number, true, false or null.",
                    where=f"parameters[{key!r}]",
                )
            check_parameter(item, f"parameters[{key!r}]")
        return value  # type: ignore[no-any-return]

    def _each(self, name: str, values: list[Any], kind: type[T], noun: str) -> list[T]:
        for place, value in enumerate(values):
            if not isinstance(value, kind):
                raise RequestError(
                    Code.BAD_ARGUMENT, f"It must be {noun}, not {shown(value)}.", where=f"{name}[{place}]"
                )
        return values

    def rows(self, columns: int) -> list[dict[str, Any]] | pa.Table:
        """Take the rows: objects of the JSON argument `rows`, or the Arrow body as a table.

        Each counts for `columns` values, though it may name fewer. Raises `body_too_large` where that is too much.
        """
        if self.request.content_type != CONTENT_ARROW:
            rows: list[dict[str, Any]] = self._each("rows", self.items("rows"), dict, "an object")
            self._check_values(len(rows) * columns)
            return rows
        from teatree.datasets.arrow_stream import read_arrow_stream  # noqa: PLC0415  JSON calls never need Arrow here

        if self._members.pop("rows", None) is not None:
            raise RequestError(Code.BAD_ARGUMENT, "Rows came twice: as the Arrow body and as 'rows'.", where="rows")
        table = read_arrow_stream(self.request.body, self.context.limits.rows_bytes_max)
        self._check_values(table.num_rows * columns)
        return table

    def all_arguments(self) -> tuple[dict[str, Any], pa.Table | None]:
        """Take all arguments that were not taken yet, as `parse_json` gives them, and the rows of an Arrow body."""
        members, self._members = self._members, {}
        if self.request.content_type != CONTENT_ARROW:
            return members, None
        from teatree.datasets.arrow_stream import read_arrow_stream  # noqa: PLC0415  JSON calls never need Arrow here

        return members, read_arrow_stream(self.request.body, self.context.limits.rows_bytes_max)

    def _check_values(self, count: int) -> None:
        found_bytes, limit_bytes = count * VALUE_BYTES, self.context.limits.rows_bytes_max
        if found_bytes > limit_bytes:
            raise RequestError(
                Code.BODY_TOO_LARGE,
                f"The rows take at least {found_bytes:,} bytes once decoded; the limit is {limit_bytes:,}.",
                where="rows",
                hint="Send them in several requests, or use `load`.",
            )

    def finish(self, *, takes_rows: bool = False) -> None:
        """Refuse the arguments that were not taken; raises `unknown_argument`."""
        if self._members:
            name = next(iter(self._members))
            message = f"{self.request.function} has no argument {name!r}."
            raise RequestError(Code.UNKNOWN_ARGUMENT, message, where=name or "arguments")
        if not takes_rows and self.request.content_type == CONTENT_ARROW:
            raise RequestError(
                Code.BAD_CONTENT_TYPE,
                f"{self.request.function} takes no rows, so its body must be JSON.",
                where="Content-Type",
            )


def to_tables(
    rows: list[dict[str, Any]] | pa.Table, schema: Schema, where: str = "rows", *, fill: bool = True
) -> list[pa.Table]:
    """Return rows as Arrow tables of exactly the schema's types, one for each set of columns that rows name.

    With `fill`, columns that are left out are null if they have no default. Raises `unknown_column`, `missing_column`,
    `type_mismatch`, `lossy_number` and their like, naming `rows[i].column`.
    """
    from teatree.datasets.fit import fit_table  # noqa: PLC0415
    from teatree.datasets.rows import RowDecoder  # noqa: PLC0415

    if not isinstance(rows, list):
        return [fit_table(rows, schema, where, fill=fill)]
    decoder = RowDecoder(schema, fill=fill)
    return [decoder.to_table([group]) for group in decoder.decode(rows, where)]


def _check_size(request: Request, limits: LimitSettings) -> None:
    if len(request.body) > limits.request_bytes_max:
        raise RequestError(
            Code.BODY_TOO_LARGE,
            f"The body has {len(request.body):,} bytes; the limit is {limits.request_bytes_max:,}.",
            where="body",
            hint="Send the rows in several requests, or use `load`.",
        )


def _members(request: Request) -> dict[str, Any]:
    if request.content_type == CONTENT_ARROW:
        place, text = HEADER_ARGS, (request.args or "{}").encode()
    else:
        place, text = "body", request.body or b"{}"
        if request.args is not None:
            raise RequestError(
                Code.BAD_HEADER, f"{HEADER_ARGS} goes with an Arrow body; put the arguments into the body.", where=place
            )
    members = parse_json(text, place)
    if not isinstance(members, dict):
        raise RequestError(
            Code.BAD_ARGUMENT, f"The arguments must be a JSON object, not {shown(members)}.", where=place
        )
    return members
