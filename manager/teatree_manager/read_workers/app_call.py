"""A direct call of a function of the model's app, as a manager gives it to a read worker."""

from __future__ import annotations

from attrs import frozen

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.formats.requests import Request


class OtherCodeError(RetryError):
    """A read worker loaded other code of an app than its manager: it was changed meanwhile."""

    def __init__(self, name: str, version: str) -> None:
        """`version` is that of the code that the worker loaded."""
        super().__init__(
            Code.UNAVAILABLE,
            f"The code of the app {name!r} was changed after the model's manager had loaded it.",
            where="function",
            hint="The request `use_app` makes a manager load it again.",
        )
        self.name = name
        self.version = version


@frozen
class AppCall:
    """One direct call: the worker loads the app by its name, parses the arguments and runs the function."""

    request: Request
    app: AppCode
    """The code that the manager has loaded: a worker that finds other code does not run it."""
    import_ms_max: int
    """Milliseconds that the import of the app may take, which comes before the time of the call."""

    @property
    def key(self) -> str:
        """Equal for calls of one function with the same arguments."""
        return f"{self.noun} {self.request.body_hash.hex()}"

    @property
    def noun(self) -> str:
        """What errors call it."""
        return self.request.function

    @property
    def place(self) -> str:
        """Where an error is that names no place itself."""
        return "function"
