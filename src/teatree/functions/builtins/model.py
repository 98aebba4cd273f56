"""The functions that begin and end an incarnation: `create_model`, `drop_model`."""

from __future__ import annotations

from typing import Any

from teatree.functions.arguments import Call
from teatree.functions.model_arguments import ModelArguments, read_model_arguments
from teatree.functions.traits import Function, Nature, Traits


def create_model(_: Any, call: Call) -> ModelArguments:
    """Return what the model is to be."""
    return read_model_arguments(call)


def drop_model(_: Any, call: Call) -> None:
    """Check that the request has no arguments."""
    call.finish()


FUNCTIONS = (
    Function("create_model", create_model, Traits(Nature.BEGINS, alone=True)),
    Function("drop_model", drop_model, Traits(Nature.ENDS, alone=True)),
)
