"""`teatree functions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.exits import usage
from teatree.cli.functions.function_text import built_in_text, function_text, print_list, unknown_function
from teatree.cli.options import DEFAULT, Common, FunctionName, ModelName
from teatree.cli.output import Output
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.calls.function_info import AppInfo, FunctionInfo
    from teatree.client.session import Session

TIMEOUT_MS = 15_000


def functions(
    model: ModelName,
    function: FunctionName | None = None,
    /,
    *,
    label: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    schema: Annotated[bool, Parameter(negative="")] = False,
    timeout_ms: int = TIMEOUT_MS,
    common: Common = DEFAULT,
) -> None:
    """List the functions of a model's app, or explain one of them.

    The built-in functions, which every model has, are explained by name too.

    Example: teatree functions sales --label task_type=report

    Parameters
    ----------
    model
        The model's name.
    function
        Explain this function only: its parameters and its documentation.
    label
        List the functions with this label, as key=value; may be given several times.
    schema
        Print the JSON Schema of every request, for other languages.
    timeout_ms
        How long to wait for the model's manager, which is started first if the model is idle.
    """
    output = Output(json=common.json)
    wanted = dict(_label(text) for text in label)
    if function is not None and not (schema or common.json or wanted):
        text = built_in_text(function, model)
        if text is not None:
            output.message(text)
            return
    app = ask_app(common, model, timeout_ms)
    found = [f for f in app if wanted.items() <= f.labels.items() and function in (None, f.name)]
    if function is not None and not found:
        raise unknown_function(app, model, function)
    if schema:
        output.line({"model": model, "app": app.name, "requests": {f.name: f.schema for f in found}})
    elif output.json:
        code = {"name": app.name, "version": app.version, "code_hash": app.code_hash}
        output.line({"model": model, "app": code, "functions": [_members(f) for f in found]})
    elif function is not None:
        output.message(function_text(found[0], model))
    else:
        print_list(output, app, found, model)


def ask_app(common: Common, model: str, timeout_ms: int) -> AppInfo:
    """Return the app of a model, as its manager describes it."""

    async def work(session: Session) -> AppInfo:
        return await session.model(model).functions(timeout_ms=timeout_ms)

    return with_session(common, work)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise usage(f"--label is key=value, not {text!r}.")
    return key, value


def _members(function: FunctionInfo) -> dict[str, object]:
    return {
        "name": function.name,
        "kind": function.kind,
        "handle": function.handle,
        "signature": function.signature,
        "doc": function.doc,
        "labels": dict(function.labels),
        "parameters": [dict(parameter) for parameter in function.parameters],
    }
