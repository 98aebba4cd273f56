"""The dependencies of a function: all that it depends on, and that they depend on, checked when it is registered."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from teatree.functions.app.calls.signature import (
    Depends,
    ParameterRole,
    Signature,
    SignatureParameter,
    name_of,
    read_signature,
)


@frozen(eq=False)
class Dependencies:
    """A function's signature, and those of its dependencies by what they are called with."""

    function: Signature
    found: Mapping[Hashable, Signature]
    """In the order in which they are met."""

    @classmethod
    def of(cls, function: Signature, names: Mapping[str, Any]) -> Dependencies:
        """Return all dependencies of a function; raises `bad_app` for a cycle, NameError as `read_signature` does."""
        found: dict[Hashable, Signature] = {}
        _collect(function, names, found, [])
        return cls(function, found)

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The function's and those of its dependencies."""
        return (self.function, *self.found.values())

    def signature_of(self, depends: Depends) -> Signature:
        """Return the signature of a dependency."""
        return self.found[key_of(depends)]

    def with_role(self, *roles: ParameterRole) -> Iterator[tuple[Signature, SignatureParameter]]:
        """Yield the parameters of some roles, and whose they are."""
        for signature in self.signatures:
            for parameter in signature.with_role(*roles):
                yield signature, parameter

    @property
    def is_async(self) -> bool:
        """Whether any of them is a coroutine function or an asynchronous generator."""
        return any(signature.is_async for signature in self.signatures)


def key_of(depends: Depends) -> Hashable:
    """Return what is the same for two dependencies on the same callable."""
    call = depends.dependency
    try:
        hash(call)
    except TypeError:
        return id(call)
    return call


def _collect(
    signature: Signature, names: Mapping[str, Any], found: dict[Hashable, Signature], path: Sequence[Hashable]
) -> None:
    for parameter in signature.with_role(ParameterRole.DEPENDENCY):
        if parameter.depends is None:
            continue
        key, call = key_of(parameter.depends), parameter.depends.dependency
        if key in path:
            cycle = [*path[path.index(key) :], key]
            text = " -> ".join(name_of(each) for each in cycle)
            signature.refuse(f"is part of a cycle of dependencies: {text}")
        if key not in found:
            found[key] = read_signature(call, names)
        _collect(found[key], names, found, [*path, key])
