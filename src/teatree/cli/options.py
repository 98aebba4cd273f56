"""Options that every command takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from cyclopts import Group, Parameter

from teatree.contracts.environment import data_folder, process_environ
from teatree.contracts.names import is_model_name

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

COMMON = Group("Everywhere", sort_key=100)


def _model_names(context: CompletionContext) -> list[str]:
    """Return the models of the data folder, for a shell's completion: nothing is connected to."""
    from teatree.storage.model_folder import local_models  # noqa: PLC0415 - only for completion

    given = context.get("data")
    return local_models(Path(given.value) if given and given.value else data_folder(process_environ()))


def _app_names(context: CompletionContext) -> list[str]:
    """Return the functions of a model's app that its last manager wrote down, for a shell's completion."""
    from teatree.storage.model_folder import model_folder, read_function_names  # noqa: PLC0415 - only for completion

    model = context.get("model")
    given = context.get("data")
    data = Path(given.value) if given and given.value else data_folder(process_environ())
    if not (model and model.value and is_model_name(model.value)):
        return []
    return read_function_names(model_folder(data, model.value))


def _function_names(context: CompletionContext) -> list[str]:
    """Return the same and the built-in functions."""
    from teatree.functions.registry import built_in_functions  # noqa: PLC0415 - only for completion

    return sorted({*built_in_functions().functions, *_app_names(context)})


ModelName = Annotated[str, Parameter(completer=_model_names)]
"""The name of a model, which shells complete."""
FunctionName = Annotated[str, Parameter(completer=_function_names)]
"""The name of a function, which shells complete."""
AppFunctionName = Annotated[str, Parameter(completer=_app_names)]
"""The name of a function of the model's app."""


@Parameter(name="*")
@frozen
class Common:
    """Where to connect, and how to print."""

    data: Annotated[Path | None, Parameter(group=COMMON)] = None
    """Folder of a running stack (its teatree.env holds the addresses); otherwise the environment is used."""
    json: Annotated[bool, Parameter(negative="", group=COMMON)] = False
    """Print JSON for machines: one document, or one line per item, and nothing else on standard output."""


DEFAULT = Common()


@Parameter(name="*")
@frozen
class SenderCommon(Common):
    """The same, for commands that send requests."""

    sender: Annotated[str | None, Parameter(group=COMMON)] = None
    """Who the request is from, for everyone to see; otherwise TEATREE_SENDER, else the name of this user."""


SENDER_DEFAULT = SenderCommon()


@Parameter(name="*")
@frozen
class StoreCommon(Common):
    """The same, for commands that read versions only."""

    store: Annotated[str | None, Parameter(group=COMMON)] = None
    """Another object store: file:///folder, s3://bucket/prefix or the path of a folder; then no stack is needed."""


STORE_DEFAULT = StoreCommon()
