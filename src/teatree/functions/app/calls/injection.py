"""The one user of fast-depends: runs a function with its dependencies, each once, and tears them down.

fast-depends passes arguments to dependencies by their names, so that a name would mean one thing in a function and in
all of its dependencies. It is therefore given wrapped callables whose parameters have names that are unique in a run.
What is converted is converted before: it only injects. Everything of one run is on one thread: beside an asynchronous
function, what is synchronous is awaited like it, and not handed to a pool of threads.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Annotated, Any

from typing_extensions import override

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.extras import extra_for
from teatree.functions.app.calls.dependencies import Dependencies, key_of
from teatree.functions.app.calls.signature import Depends, ParameterRole, Signature, SignatureParameter
from teatree.functions.app.context import Context
from teatree.functions.app.handles import Read, Write

Arguments = Mapping[str, Any]
_Names = tuple[tuple[str, str], ...]
"""Pairs of a parameter's name and its name in a run."""
_WRITE, _READ, _CONTEXT = "write", "read", "context"
_ROLES = {ParameterRole.WRITE: _WRITE, ParameterRole.READ: _READ, ParameterRole.CONTEXT: _CONTEXT}


class Injector(ABC):
    """Runs one function; made when it is registered."""

    @abstractmethod
    def run(self, arguments: Arguments, handle: Read | Write | None, context: Context) -> Any:
        """Return what the function returns; its errors, and those of its dependencies, pass as they are."""


def injector_for(dependencies: Dependencies) -> Injector:
    """Return what runs a function; raises `wrong_configuration` if it has dependencies and fast-depends is missing."""
    made = _InjectedCall(dependencies) if dependencies.found else _DirectCall(dependencies.function)
    return _AsyncRun(made) if dependencies.is_async else made


class _DirectCall(Injector):
    """A function without dependencies."""

    def __init__(self, signature: Signature) -> None:
        self._call = signature.call
        self._arguments = tuple(p.name for p in signature.with_role(ParameterRole.REQUEST))
        self._handles = _Handles(signature.parameters)
        self._names = tuple((p.name, _ROLES[p.role]) for p in signature.parameters if p.role in _ROLES)

    @override
    def run(self, arguments: Arguments, handle: Read | Write | None, context: Context) -> Any:
        given = {name: arguments[name] for name in self._arguments}
        if self._names:
            found = self._handles.given(handle, context)
            for name, role in self._names:
                given[name] = found[role]
        return self._call(**given)


class _Handles:
    """What a run's handle is to parameters of each role."""

    def __init__(self, parameters: tuple[SignatureParameter, ...]) -> None:
        self._has_read = any(p.role is ParameterRole.READ for p in parameters)

    def given(self, handle: Read | Write | None, context: Context) -> dict[str, Any]:
        """Return the values of a run by their names; one that asks for `Read` gets what cannot write."""
        read = handle.read_only() if self._has_read and isinstance(handle, Write) else handle
        return {_WRITE: handle, _READ: read, _CONTEXT: context}


class _InjectedCall(Injector):
    """A function with dependencies."""

    def __init__(self, dependencies: Dependencies) -> None:
        with extra_for("A function with dependencies", "apps"):
            from fast_depends import Provider, inject  # noqa: PLC0415
        builder = _CallBuilder(dependencies)
        self._call = inject(builder.function(), cast=False, dependency_provider=Provider())
        self._handles = _Handles(tuple(parameter for _, parameter in dependencies.with_role(*_ROLES)))
        self._arguments = {p.name: _argument(p.name) for _, p in dependencies.with_role(ParameterRole.REQUEST)}

    @override
    def run(self, arguments: Arguments, handle: Read | Write | None, context: Context) -> Any:
        given = self._handles.given(handle, context)
        for name, in_run in self._arguments.items():
            given[in_run] = arguments[name]
        return self._call(**given)


class _AsyncRun(Injector):
    """A function that is asynchronous, or one of its dependencies is: it runs in an event loop until it ends."""

    def __init__(self, call: Injector) -> None:
        self._call = call

    @override
    def run(self, arguments: Arguments, handle: Read | Write | None, context: Context) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._awaited(arguments, handle, context))
        raise RequestError(
            Code.USAGE,
            "An asynchronous function is called on the thread of a running event loop.",
            where=context.function,
            hint="Call it on another thread: await asyncio.to_thread(...).",
        )

    async def _awaited(self, arguments: Arguments, handle: Read | Write | None, context: Context) -> Any:
        result = self._call.run(arguments, handle, context)
        return await result if inspect.isawaitable(result) else result


def _argument(name: str) -> str:
    return f"argument_{name}"


class _CallBuilder:
    """Wraps a function and its dependencies for fast-depends: each callable once, so that it is resolved once."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._is_async = dependencies.is_async
        self._wrapped: dict[Hashable, Callable[..., Any]] = {}
        self._count = 0

    def function(self) -> Callable[..., Any]:
        """Return the wrapped function."""
        return self._wrap(self._dependencies.function)

    def _wrap(self, signature: Signature) -> Callable[..., Any]:
        names: list[tuple[str, str]] = []
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters:
            in_run, hint = self._in_run(parameter)
            names.append((parameter.name, in_run))
            parameters.append(inspect.Parameter(in_run, inspect.Parameter.KEYWORD_ONLY, annotation=hint))
        unique = {parameter.name: parameter for parameter in parameters}
        wrapped = _wrapped(signature, tuple(names), is_async=self._is_async)
        wrapped.__signature__ = inspect.Signature(list(unique.values()))  # type: ignore[attr-defined]
        wrapped.__name__ = signature.name
        return wrapped

    def _in_run(self, parameter: SignatureParameter) -> tuple[str, Any]:
        if parameter.depends is None:
            return _ROLES.get(parameter.role) or _argument(parameter.name), Any
        from fast_depends.dependencies import Dependant  # noqa: PLC0415  present since `_InjectedCall` was made

        shared = parameter.depends.use_cache
        wrapped = self._dependency(parameter.depends) if shared else self._wrap(self._signature_of(parameter.depends))
        self._count += 1
        dependant = Dependant(wrapped, use_cache=shared, cast=False, cast_result=False)
        return f"dependency_{self._count}", Annotated[Any, dependant]

    def _dependency(self, depends: Depends) -> Callable[..., Any]:
        """Return the wrapped form of a dependency that is shared in a run: fast-depends keeps values by it."""
        key = key_of(depends)
        if key not in self._wrapped:
            self._wrapped[key] = self._wrap(self._signature_of(depends))
        return self._wrapped[key]

    def _signature_of(self, depends: Depends) -> Signature:
        return self._dependencies.signature_of(depends)


def _wrapped(signature: Signature, names: _Names, *, is_async: bool) -> Callable[..., Any]:
    """Return a callable that takes the names of a run and calls the original one with its names."""
    call = signature.call
    if signature.is_generator:
        if is_async:
            manage = asynccontextmanager(call) if signature.is_async else contextmanager(call)
            return _async_generator(manage, names)
        return _generator(contextmanager(call), names)

    def run(**given: Any) -> Any:
        return call(**{name: given[in_run] for name, in_run in names})

    async def run_async(**given: Any) -> Any:
        result = run(**given)
        return await result if signature.is_async and inspect.isawaitable(result) else result

    return run_async if is_async else run


def _generator(manage: Callable[..., AbstractContextManager[Any]], names: _Names) -> Callable[..., Iterator[Any]]:
    def run(**given: Any) -> Iterator[Any]:
        manager = manage(**{name: given[in_run] for name, in_run in names})
        value = manager.__enter__()
        try:
            yield value
        except BaseException as e:
            manager.__exit__(type(e), e, e.__traceback__)
            raise  # a dependency sees an error and can raise another one, but not make a success of it
        manager.__exit__(None, None, None)

    return run


def _async_generator(
    manage: Callable[..., AbstractContextManager[Any] | AbstractAsyncContextManager[Any]], names: _Names
) -> Callable[..., AsyncIterator[Any]]:
    async def run(**given: Any) -> AsyncIterator[Any]:
        manager = manage(**{name: given[in_run] for name, in_run in names})
        if isinstance(manager, AbstractContextManager):
            manager = _Awaited(manager)
        value = await manager.__aenter__()
        try:
            yield value
        except BaseException as e:
            await manager.__aexit__(type(e), e, e.__traceback__)
            raise
        await manager.__aexit__(None, None, None)

    return run


class _Awaited(AbstractAsyncContextManager[Any]):
    """A context manager as an asynchronous one, on the same thread."""

    def __init__(self, manager: AbstractContextManager[Any]) -> None:
        self._manager = manager

    @override
    async def __aenter__(self) -> Any:
        return self._manager.__enter__()

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._manager.__exit__(kind, error, trace)
