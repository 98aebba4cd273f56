"""A parameter of a request for a function of an app."""

from __future__ import annotations

import copy
from typing import Any

from attrs import field, frozen

from teatree.functions.app.values.converter import Reader
from teatree.functions.app.values.results import result_json
from teatree.functions.app.values.shapes import hint_text

_CHANGEABLE = (list, dict, set)


@frozen(eq=False)
class AppParameter:
    """A parameter of a request: the function's, or one of its dependencies'."""

    name: str
    hint: Any
    is_required: bool
    default: Any
    doc: str
    is_dataset: bool
    read: Reader = field(repr=False)

    @property
    def type(self) -> str:
        """The hint as Python writes it."""
        return hint_text(self.hint)

    @property
    def text(self) -> str:
        """Its name, type and default, as a signature has it."""
        default = "" if self.is_required else f" = {result_json(self.default, self.name)!r}"
        return f"{self.name}: {self.type}{default}"

    def given_default(self) -> Any:
        """Return the default for one call: a list that a function changes is not that of the next call."""
        return copy.deepcopy(self.default) if isinstance(self.default, _CHANGEABLE) else self.default

    def describe(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        default = {} if self.is_required else {"default": result_json(self.default, self.name)}
        return {"name": self.name, "type": self.type, "required": self.is_required, **default, "doc": self.doc}
