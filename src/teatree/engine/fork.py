"""Forks: models created from another model's version, whose objects stay in that model's folder.

The origin's version is pinned before anything of it is read, and so are the versions of which it was forked: their
folders hold data of the fork for as long as the fork exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

from attrs import evolve, frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.manifest import ForkPoint, Manifest, ModelOptions
from teatree.engine.model_context import ModelContext
from teatree.functions.history import retry_while_unavailable
from teatree.functions.model_arguments import ForkSource
from teatree.storage.retention.pins import find_pin, pin, pin_key
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.reader import check_active

T = TypeVar("T")


@frozen
class PinnedSource:
    """A pinned version of which a fork is made."""

    manifest: Manifest
    options: ModelOptions
    """The fork's own."""
    release: Callable[[], None]
    """Removes the pins again, if the fork fails."""

    @property
    def point(self) -> ForkPoint:
        """What the fork's manifests name."""
        return ForkPoint(self.manifest.model, self.manifest.goal_model_id, self.manifest.version)


def pin_source(context: ModelContext, fork_source: ForkSource, wanted: ModelOptions, seq: int) -> PinnedSource:
    """Pin the version to fork; `seq` is the request's place in the log.

    Raises `unknown_model`, `unknown_version`, `bad_argument` for a storage version that is not the version's,
    `source_unavailable` if the store is unavailable.
    """
    chain = context.chain
    source = Chain(chain.store, chain.prefix, fork_source.model)
    name = f"fork-{chain.goal_model_id}-{seq}"  # the same if the request is applied again after a crash

    def retrying(work: Callable[[], T]) -> T:
        return retry_while_unavailable(context.limits, f"{fork_source.model} could not be read", "from", work)

    try:
        version = retrying(lambda: _choose(fork_source, source, name))
    except RequestError as e:
        raise _placed(e) from e.__cause__
    release = partial(retrying, lambda: _release(source, version, name))
    try:
        with context.probe.step("fork.pin", version=version):
            manifest = retrying(lambda: _pinned(source, version, name, f"{chain.model} is a fork of it"))
        options = _options(wanted, manifest)
    except RequestError as e:
        release()
        raise _placed(e) from e.__cause__
    return PinnedSource(manifest, options, release)


def _placed(error: RequestError) -> RequestError:
    """Return an error about the origin's version, its `where` set to the argument that named it."""
    if error.code in (Code.UNKNOWN_VERSION, Code.BAD_SOURCE):
        error.where = "from.version"
    return error


def _choose(fork_source: ForkSource, source: Chain, name: str) -> int:
    """Return the version to fork; the pin of an earlier try keeps its choice of the newest."""
    held = find_pin(source, name)
    version = held.version if held else fork_source.version or source.newest_version()
    if not version:
        raise RequestError(
            Code.UNKNOWN_MODEL,
            f"There is no model {fork_source.model!r}.",
            where="from.model",
            hint="`teatree models` lists those there are.",
        )
    check_active(source.get(version))
    return version


def _pinned(source: Chain, version: int, name: str, note: str) -> Manifest:
    """Pin a version and its ancestors, and return its manifest as it is then."""
    pin(source, name, version, note)
    for chain, number in _ancestors(source, version):
        pin(chain, name, number, note)
    return source.get(version)


def _ancestors(chain: Chain, version: int) -> Iterator[tuple[Chain, int]]:
    """Yield the versions of which a version was forked, nearest first."""
    while (point := chain.get(version).fork_of) is not None:
        chain, version = Chain(chain.store, chain.prefix, point.model), point.version
        yield chain, version


def _release(source: Chain, version: int, name: str) -> None:
    """Remove the pins of a fork; those that were not set yet are skipped."""
    keys = [pin_key(source, name)]
    with suppress(RequestError):  # the version was cleaned up, so none of its ancestors was pinned
        keys += [pin_key(chain, name) for chain, _ in _ancestors(source, version)]
    source.store.delete(keys)


def _options(wanted: ModelOptions, fork_source: Manifest) -> ModelOptions:
    there = fork_source.options.storage_version
    if wanted.storage_version not in (None, there):
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"{fork_source.model} has the storage version {there or 'latest'}, and so has its fork.",
            where="storage_version",
            hint="Leave it out.",
        )
    options = fork_source.options
    return evolve(wanted, engine=options.engine, storage_version=there, app=wanted.app or options.app)
