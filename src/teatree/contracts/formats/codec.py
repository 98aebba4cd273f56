"""The JSON codec: one strict parser for received texts, one strict converter for stored values.

Incoming JSON is parsed so that nothing is lost in silence: a repeated key is refused, NaN and Infinity are refused, a
number with a fraction or an exponent keeps all its digits as a `Decimal`, and an integer keeps its size.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.contracts.types.dtype_parser import parse_read_dtype
from teatree.contracts.types.dtypes import Dtype
from teatree.contracts.types.schema import Field

T = TypeVar("T")
_DIGITS_MAX = 400
"""Digits of one number; beyond it parsing cost would grow with the square of its length."""
_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
_DEPTH_HINT = "Nest values less deeply."


def parse_json(body: bytes, where: str = "body") -> Any:
    """Return the value of a JSON text; fractions become `Decimal`.

    Raises `bad_json` (with line and column), `duplicate_key` or `lossy_number`.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as e:
        raise RequestError(
            Code.BAD_JSON, f"The text is not UTF-8: byte {e.start} is 0x{body[e.start]:02x}.", where=where
        ) from None
    try:
        return _parse(text)
    except json.JSONDecodeError as e:
        raise RequestError(
            Code.BAD_JSON, f"Not JSON: {e.msg} in line {e.lineno}, column {e.colno}.", where=where
        ) from None
    except RecursionError:
        raise RequestError(Code.BAD_JSON, "The JSON is nested too deeply.", where=where, hint=_DEPTH_HINT) from None


def _parse(text: str) -> Any:
    """Return the value of a text; one without outer spaces is not searched for them, which takes longer than it."""
    try:
        value, end = _DECODER.scan_once(text, 0)  # type: ignore[attr-defined]
    except StopIteration:
        end = -1
    return value if end == len(text) else _DECODER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RequestError(Code.DUPLICATE_KEY, f"The key {key!r} occurs twice in one JSON object.", where=key)
            seen.add(key)
    return value


def _fraction(text: str) -> Decimal:
    if len(text) > _DIGITS_MAX:
        raise RequestError(Code.OUT_OF_RANGE, f"A number has more than {_DIGITS_MAX} characters.", where="body")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise RequestError(Code.OUT_OF_RANGE, f"{text} has too large an exponent.", where="body") from None


def _integer(text: str) -> int | Decimal:
    if len(text) > _DIGITS_MAX:
        raise RequestError(Code.OUT_OF_RANGE, f"A number has more than {_DIGITS_MAX} digits.", where="body")
    return Decimal(text) if text == "-0" else int(text)  # a float and a JSON column keep the sign of zero


def _constant(text: str) -> NoReturn:
    raise RequestError(Code.BAD_JSON, f"{text} is not JSON.", where="body", hint="Use null, or send Arrow.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_fraction, parse_int=_integer, parse_constant=_constant
)


def dump_json(value: Any) -> bytes:
    """Return compact JSON of plain values; a `Decimal` keeps its digits as a string, times are RFC 3339 in UTC."""
    try:
        return orjson.dumps(value, default=_plain, option=_JSON_OPTIONS)
    except TypeError:  # orjson refuses integers beyond 64 bits without calling `default`
        return orjson.dumps(_without_wide_integers(value), default=_plain, option=_JSON_OPTIONS)


def _without_wide_integers(value: Any) -> Any:
    """Return `value` with integers beyond 64 bits as texts: JSON readers would round them."""
    match value:
        case bool():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else str(value)
        case dict():
            return {_without_wide_integers(k): _without_wide_integers(v) for k, v in value.items()}
        case list() | tuple():
            return [_without_wide_integers(item) for item in value]
        case _ if attrs.has(type(value)):
            return _without_wide_integers(unstructure(value))
        case _:
            return value


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if attrs.has(type(value)):
        return unstructure(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def utc_text(at: datetime) -> str:
    """Return a time as RFC 3339 in UTC, with microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_utc(text: str) -> datetime:
    """Return the time that an RFC 3339 text names, in UTC; fractions beyond microseconds are cut."""
    head, _, tail = text.removesuffix("Z").partition(".")
    zone = "+00:00"
    digits = tail
    for sign in "+-":
        if sign in tail:
            digits, _, offset = tail.partition(sign)
            zone = sign + offset
    if not tail and len(head) > len("2026-01-01T00:00:00"):
        head, zone = head[:19], head[19:]
    return datetime.fromisoformat(f"{head}.{(digits or '0')[:6].ljust(6, '0')}{zone}").astimezone(UTC)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
    converter.register_structure_hook(int, _strict(int))
    converter.register_structure_hook(float, lambda v, _: float(_strict_number(v)))
    converter.register_structure_hook(str, _strict(str))
    converter.register_structure_hook(bool, _strict(bool))
    # Without it the hook of `str` applies and leaves a text, which `is` finds equal to no member.
    converter.register_structure_hook(StrEnum, lambda v, kind: kind(_strict(str)(v, str)))
    converter.register_structure_hook(datetime, lambda v, _: parse_utc(_strict(str)(v, str)))
    converter.register_unstructure_hook(datetime, utc_text)
    converter.register_structure_hook(uuid.UUID, lambda v, _: uuid.UUID(_strict(str)(v, str)))
    converter.register_unstructure_hook(uuid.UUID, str)
    converter.register_structure_hook(Dtype, lambda v, _: parse_read_dtype(_strict(str)(v, str)))
    converter.register_unstructure_hook_func(lambda t: isinstance(t, type) and issubclass(t, Dtype), str)
    return converter


def _strict(kind: type[Any]) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {value!r}")
        return value

    return structure


def _strict_number(value: Any) -> float | int | Decimal:
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return value
    raise TypeError(f"expected a number, got {value!r}")


_CONVERTER = _make_converter()


def unstructure(value: Any) -> Any:
    """Return the plain dicts, lists and scalars of an attrs value."""
    return _CONVERTER.unstructure(value)


def structure(raw: Any, kind: type[T], where: str) -> T:
    """Return what we once wrote as a value of `kind`; no coercion, no unknown keys. Raises `corrupt`."""
    try:
        return _CONVERTER.structure(raw, kind)
    except Exception as e:
        raise CorruptError(f"This is not a {kind.__name__}: {e}", where=where) from e


def tolerate_unknown_keys(kind: type[Any]) -> None:
    """Let values of `kind` be read from a newer writer: unknown keys are ignored."""
    _CONVERTER.register_structure_hook(kind, make_dict_structure_fn(kind, _CONVERTER, _cattrs_forbid_extra_keys=False))


def absent_if_default(*kinds: type[Any], always: tuple[str, ...] = ()) -> None:
    """Leave members that equal their defaults out of what is written, except those named in `always`.

    A kind is given after those that its members have.
    """
    kept: dict[str, Any] = {name: override(omit_if_default=False) for name in always}
    for kind in kinds:
        hook = make_dict_unstructure_fn(kind, _CONVERTER, _cattrs_omit_if_default=True, **kept)
        _CONVERTER.register_unstructure_hook(kind, hook)


absent_if_default(Field)
