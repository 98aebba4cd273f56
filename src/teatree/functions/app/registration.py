"""The registration of a function: everything that can be wrong with it is found here, before any request."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from attrs import evolve

from teatree.contracts.errors import Code, OperatorError, RequestError
from teatree.contracts.formats.live import WATCH_FUNCTION
from teatree.contracts.formats.requests import CANCEL_FUNCTION, FUNCTIONS_FUNCTION, HEALTH_FUNCTION
from teatree.contracts.names import check_function
from teatree.datasets.bad_value import BadValueError
from teatree.functions.app.app_function import AppFunction, FunctionKind, FunctionOptions, HandleKind
from teatree.functions.app.app_parameter import AppParameter
from teatree.functions.app.calls.dependencies import Dependencies
from teatree.functions.app.calls.injection import injector_for
from teatree.functions.app.calls.signature import (
    REQUIRED,
    ParameterRole,
    Signature,
    SignatureParameter,
    read_signature,
)
from teatree.functions.app.values.converter import Reader, StrictConverter
from teatree.functions.app.values.results import result_json
from teatree.functions.app.values.shapes import UnsupportedHintError, hint_text, is_dataset

OTHER_NAMES = frozenset({CANCEL_FUNCTION, FUNCTIONS_FUNCTION, HEALTH_FUNCTION, WATCH_FUNCTION})
"""What a manager answers, on query subjects, beside the built-in functions."""


_HINTS = (
    "Parameters are texts, numbers, dates, times, enums and literals, lists, sets, maps, attrs classes and dataclasses"
    " of them, unions whose members differ in JSON, or a Dataset."
)


@cache
def built_in_names() -> frozenset[str]:
    """Return the names that no function of an app can have."""
    from teatree.functions.registry import built_in_functions  # noqa: PLC0415  their modules are many

    return OTHER_NAMES | built_in_functions().functions.keys()


def check_name(name: Any, place: str) -> str:
    """Return the name of a function, or raise `bad_app`."""
    try:
        check_function(name)
    except RequestError as e:
        raise OperatorError(Code.BAD_APP, e.message, where=place, hint=e.hint) from None
    if name in built_in_names():
        message = f"{name!r} is the name of a built-in function."
        raise OperatorError(Code.BAD_APP, message, where=place, hint="Give another one: @app.mutation(name=...).")
    return str(name)


def make_function(
    kind: FunctionKind,
    call: Callable[..., Any],
    name: str,
    options: FunctionOptions,
    names: Mapping[str, Any],
    converter: StrictConverter,
) -> AppFunction:
    """Return a function, checked; raises `bad_app`, or NameError if a hint names what does not exist yet."""
    signature = evolve(read_signature(call, names), name=name)
    return function_of(kind, Dependencies.of(signature, names), inspect.getdoc(call) or "", options, converter)


def function_of(
    kind: FunctionKind, dependencies: Dependencies, doc: str, options: FunctionOptions, converter: StrictConverter
) -> AppFunction:
    """Return a function of known dependencies, checked; raises `bad_app`."""
    signature = dependencies.function
    _check_kind(kind, dependencies)
    parameters = _parameters(dependencies, converter)
    datasets = [parameter.name for parameter in parameters if parameter.is_dataset]
    if len(datasets) > 1:
        signature.refuse(
            f"has several Datasets: {', '.join(datasets)}", "A request has rows for one; use lists of rows."
        )
    roles = {parameter.role for _, parameter in dependencies.with_role(*ParameterRole)}
    handle = (
        HandleKind.WRITE
        if ParameterRole.WRITE in roles
        else HandleKind.READ
        if ParameterRole.READ in roles
        else HandleKind.NONE
    )
    return AppFunction(
        name=signature.name,
        kind=kind,
        handle=handle,
        doc=doc,
        parameters=parameters,
        returns=signature.returns,
        is_async=dependencies.is_async,
        options=options,
        injector=injector_for(dependencies),
        read_result=_result_reader(signature, converter),
    )


def _check_kind(kind: FunctionKind, dependencies: Dependencies) -> None:
    signature = dependencies.function
    if signature.is_generator:
        signature.refuse("yields, but a function returns its result")
    for found in dependencies.signatures:
        whose = "" if found is signature else f", by its dependency {found.name},"
        if kind is FunctionKind.MUTATION and found.is_async:
            signature.refuse(
                f"is{whose} asynchronous, but a mutation runs in the one transaction of its model",
                "Write it with def, or register a query.",
            )
        if kind is FunctionKind.QUERY and found.with_role(ParameterRole.WRITE):
            signature.refuse(
                f"asks{whose} for a Write handle, but it is a query",
                "Take a Read handle, or register it with @app.mutation.",
            )


def _parameters(dependencies: Dependencies, converter: StrictConverter) -> tuple[AppParameter, ...]:
    found: dict[str, tuple[Signature, SignatureParameter]] = {}
    for signature, parameter in dependencies.with_role(ParameterRole.REQUEST):
        before = found.setdefault(parameter.name, (signature, parameter))
        _check_same(before, (signature, parameter), dependencies.function)
    return tuple(_app_parameter(signature, parameter, converter) for signature, parameter in found.values())


def _check_same(
    one: tuple[Signature, SignatureParameter], other: tuple[Signature, SignatureParameter], function: Signature
) -> None:
    (signature, first), (beside, second) = one, other
    if first.hint != second.hint or not _same_default(first.default, second.default):
        declared = f"{_declared(first)} in {signature.name}, {_declared(second)} in {beside.name}"
        function.refuse(
            f"has two parameters {first.name!r}: {declared}",
            "One argument has one type and one default: write the same, or rename one.",
        )


def _same_default(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))


def _declared(parameter: SignatureParameter) -> str:
    default = "" if parameter.default is REQUIRED else f" = {parameter.default!r}"
    return f"{parameter.name}: {hint_text(parameter.hint)}{default}"


def _app_parameter(signature: Signature, parameter: SignatureParameter, converter: StrictConverter) -> AppParameter:
    name = parameter.name
    try:
        read = converter.reader(parameter.hint)
        dataset = is_dataset(parameter.hint)
    except UnsupportedHintError as e:
        signature.refuse(f"cannot have the parameter {name}: {e.message} (at {name}{e.path})", _HINTS)
    _check_default(signature, parameter, read)
    return AppParameter(
        name=name,
        hint=parameter.hint,
        is_required=parameter.default is REQUIRED,
        default=parameter.default,
        doc=parameter.doc,
        is_dataset=dataset,
        read=read,
    )


def _check_default(signature: Signature, parameter: SignatureParameter, read: Reader) -> None:
    if parameter.default is REQUIRED:
        return
    try:
        read(parameter.default)
        result_json(parameter.default, parameter.name)
    except (BadValueError, OperatorError) as e:
        signature.refuse(f"has a default of {parameter.name} that is no {hint_text(parameter.hint)}: {e}".rstrip("."))


def _result_reader(signature: Signature, converter: StrictConverter) -> Reader:
    """Return what reads the function's result from JSON; one without a type that JSON has is left as it is."""
    try:
        return converter.reader(signature.returns)
    except UnsupportedHintError:
        return lambda value: value
