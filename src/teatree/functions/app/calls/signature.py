"""The signature of a function or a dependency: what each parameter is filled with, from its hints."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import partial
from typing import Any, NoReturn, get_args, get_type_hints

from attrs import frozen

from teatree.contracts.errors import Code, OperatorError
from teatree.functions.app.context import Context
from teatree.functions.app.handles import Read, Write
from teatree.functions.app.values.shapes import bare, doc_of, hint_text

RESERVED_NAMES = frozenset({"expected_version", "min_version", "wait_ms", "page_size", "format"})
"""Arguments that Teatree takes itself: no parameter can have their names."""
REQUIRED: Any = inspect.Parameter.empty
"""The default of a parameter without one."""
_KINDS = {
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments (*args)",
    inspect.Parameter.VAR_KEYWORD: "takes arguments of any name (**kwargs)",
    inspect.Parameter.POSITIONAL_ONLY: "is positional only (/), but arguments have names",
}


class ParameterRole(Enum):
    """What a parameter is filled with."""

    REQUEST = auto()
    """An argument of the request."""
    WRITE = auto()
    READ = auto()
    CONTEXT = auto()
    DEPENDENCY = auto()


@frozen
class Depends:
    """In `Annotated[T, Depends(f)]`: the parameter is what `f` returns, or yields; resolved once per run.

    `f` can have parameters as a function has, dependencies too. One that yields is torn down after the function.
    """

    dependency: Callable[..., Any]
    use_cache: bool = True
    """Whether all that depend on it in a run share what it returned."""


@frozen
class SignatureParameter:
    """One parameter."""

    name: str
    role: ParameterRole
    hint: Any
    default: Any
    doc: str
    depends: Depends | None = None


@frozen(eq=False)
class Signature:
    """A function or dependency, and its parameters."""

    call: Callable[..., Any]
    name: str
    place: str
    """File and line."""
    parameters: tuple[SignatureParameter, ...]
    returns: Any
    is_async: bool
    is_generator: bool

    def refuse(self, why: str, hint: str | None = None) -> NoReturn:
        """Refuse the function; raises `bad_app`."""
        raise OperatorError(Code.BAD_APP, f"{self.name} {why}.", where=self.place, hint=hint)

    def with_role(self, *roles: ParameterRole) -> tuple[SignatureParameter, ...]:
        """Return the parameters of some roles."""
        return tuple(parameter for parameter in self.parameters if parameter.role in roles)


def read_signature(call: Callable[..., Any], names: Mapping[str, Any]) -> Signature:
    """Return the signature of a callable; `names` are those of the place where it was registered.

    Raises NameError if a hint names what does not exist yet, and `bad_app`.
    """
    name, place = name_of(call), place_of(call)
    try:
        parameters = inspect.signature(call).parameters.values()
    except (ValueError, TypeError):
        raise OperatorError(Code.BAD_APP, f"{name} has no signature that can be read.", where=place) from None
    hints = _hints(call, names, name, place)
    function = _function_of(call)
    is_async_generator = inspect.isasyncgenfunction(function)
    signature = Signature(
        call,
        name,
        place,
        tuple(_parameter(parameter, hints, name, place) for parameter in parameters),
        hints.get("return", Any),
        inspect.iscoroutinefunction(inspect.unwrap(function)) or is_async_generator,
        inspect.isgeneratorfunction(function) or is_async_generator,
    )
    for parameter in signature.with_role(ParameterRole.REQUEST):
        if parameter.name in RESERVED_NAMES:
            names_text = ", ".join(sorted(RESERVED_NAMES))
            signature.refuse(
                f"has a parameter with the reserved name {parameter.name!r}", f"Reserved are {names_text}."
            )
    return signature


def name_of(call: Any) -> str:
    """Return the name of a callable, for messages."""
    found = call.func if isinstance(call, partial) else call
    return str(getattr(found, "__name__", None) or type(found).__name__)


def place_of(call: Any) -> str:
    """Return the file and line of a callable, as far as they are known."""
    found = inspect.unwrap(_function_of(call))
    code = getattr(found, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    return f"{getattr(call, '__module__', '?')}.{name_of(call)}"


def _function_of(call: Any) -> Any:
    """Return the function that runs when a callable is called."""
    if isinstance(call, partial):
        return _function_of(call.func)
    if inspect.isclass(call):
        return call.__init__
    return call if inspect.isroutine(call) else type(call).__call__


def _hints(call: Any, names: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    hinted = inspect.unwrap(_function_of(call))
    module = sys.modules.get(getattr(call, "__module__", "")) if inspect.isclass(call) else None
    known = {**names, **(vars(module) if module else {}), **getattr(hinted, "__globals__", {})}
    try:
        return get_type_hints(hinted, globalns=known, include_extras=True)
    except NameError:
        raise
    except Exception as e:
        message = f"The hints of {name} cannot be resolved: {e}."
        raise OperatorError(Code.BAD_APP, message, where=place) from e


def _parameter(parameter: inspect.Parameter, hints: Mapping[str, Any], name: str, place: str) -> SignatureParameter:
    def refuse(why: str, hint: str | None = None) -> NoReturn:
        raise OperatorError(Code.BAD_APP, f"{name}: the parameter {parameter.name} {why}.", where=place, hint=hint)

    if parameter.kind in _KINDS:
        refuse(_KINDS[parameter.kind])
    if parameter.name not in hints:
        refuse("has no hint", "Write its type after a colon: an argument is converted by it.")
    hint, default = hints[parameter.name], parameter.default
    kind, notes = bare(hint)
    found = [Depends(note.dependency, note.use_cache) for note in (*notes, default) if _is_depends(note)]
    if found:
        if len(found) > 1 or not (default is REQUIRED or _is_depends(default)):
            refuse("has a dependency and a default, or two dependencies")
        if not callable(found[0].dependency):
            refuse("depends on something that cannot be called")
        return SignatureParameter(parameter.name, ParameterRole.DEPENDENCY, hint, REQUIRED, "", found[0])
    role = _role(kind)
    if role is not ParameterRole.REQUEST:
        if default is not REQUIRED:
            refuse(f"is a {hint_text(kind)}, which is always given: it has no default")
        return SignatureParameter(parameter.name, role, hint, REQUIRED, "")
    if misplaced := _misplaced(kind):
        refuse(f"has a {misplaced} inside another type", f"{misplaced} is the whole type of a parameter.")
    return SignatureParameter(parameter.name, role, hint, default, doc_of(notes))


def _is_depends(note: Any) -> bool:
    """Return whether an annotation is a dependency: ours, or one that other libraries write the same way."""
    return isinstance(note, Depends) or (
        not isinstance(note, type) and hasattr(note, "dependency") and hasattr(note, "use_cache")
    )


def _role(kind: Any) -> ParameterRole:
    if not isinstance(kind, type):
        return ParameterRole.REQUEST
    if issubclass(kind, Write):
        return ParameterRole.WRITE
    if issubclass(kind, Read):
        return ParameterRole.READ
    return ParameterRole.CONTEXT if issubclass(kind, Context) else ParameterRole.REQUEST


def _misplaced(hint: Any) -> str | None:
    """Return the name of a handle or context that stands inside another type."""
    for arg in get_args(hint):
        kind, _ = bare(arg)
        if _role(kind) is not ParameterRole.REQUEST:
            return hint_text(kind)
        if found := _misplaced(kind):
            return found
    return None
