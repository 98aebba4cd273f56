"""The engine interface: what holds the data of a model, and what its writer asks of that.

An `Engine` creates, restores and opens the data of models. `ModelData` are one model's open data, a `WriteConnection`
runs their transactions, a `VersionReader` reads one version. What makes requests exactly-once stands above and is the
same for all engines: ids and outcomes, batches and the search for the request that made one fail, versions and their
manifests, fencing, taking over, incarnations. It relies on two promises: a commit's record and its effects are kept
together or not at all, and the content of a version, restored, holds the record of that version's last commit.

An engine need not keep commits on this host. Those that it keeps are shipped after a crash; if it keeps none, the
newest version is restored, and the requests after it are applied again from the log.

Errors: a `RequestError` is a request's fault; after a `RetryError` the call is repeated. `engine.errors` has those
that are handled in a special way. Any other ends the manager.

Concurrency: one thread at a time uses a model's data, unless a docstring allows others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from teatree.contracts.clock import Clock
from teatree.contracts.formats.manifest import Content, Manifest, ObjectRef
from teatree.contracts.formats.requests import Request
from teatree.contracts.formats.steps import Steps
from teatree.contracts.parts import PartGroup, make_part, part_names
from teatree.contracts.probe import Probe
from teatree.contracts.settings import LimitSettings
from teatree.contracts.types.table_info import TableInfo
from teatree.engine.commits import Commit, Identity
from teatree.engine.errors import InvalidatedError
from teatree.functions.handles import Parameters, WriteAccess
from teatree.functions.history import History
from teatree.functions.others import Others
from teatree.functions.traits import Traits
from teatree.storage.model_folder import ModelFolder
from teatree.storage.versions.chain import Chain

if TYPE_CHECKING:
    import pyarrow as pa

OnStuck = Callable[[Sequence[Request]], None]
"""Called with the requests of a transaction that does not end."""
During = Callable[[Request, int], AbstractContextManager[object]]
"""Surrounds the run of a function of an app: called with its request, and the milliseconds after which it is stuck."""


def unguarded(_request: Request, _limit_ms: int) -> AbstractContextManager[object]:
    """Surround a function with nothing."""
    return nullcontext()


@frozen
class EngineContext:
    """One model's chain and folder, and how its engine may use this process."""

    chain: Chain
    folder: ModelFolder
    limits: LimitSettings
    """The model's own."""
    probe: Probe
    clock: Clock
    on_stuck: OnStuck | None = None
    """Ends the process when requests of one transaction do not end, and no interrupt reaches them."""
    others: Others | None = None
    """Where functions read other models: an interrupt of a transaction reaches that too."""


@frozen
class Upload:
    """An object that must be in the store before the manifest that names it."""

    object: ObjectRef
    source: Path | bytes


@frozen
class Captured:
    """The data of a version as its manifest describes them, and the objects that they add to the store."""

    content: Content
    pack: ObjectRef | None
    uploads: tuple[Upload, ...]
    steps: Steps
    """Those up to the capture."""


class EngineHandle(WriteAccess):
    """The handle that functions get, which also shows the writer what they did."""

    statements: int
    """Grows with every use that may leave a trace in the open transaction, also one that fails.

    A function that was refused without making it grow had no effect: its neighbours continue in the same transaction.
    """
    changed_tables: set[str]
    """The tables that the open transaction changed."""
    written: set[str]
    """Those changed since the caller cleared it."""

    @abstractmethod
    def infos(self) -> Sequence[TableInfo]:
        """Return the user tables by name, those with a fault among them."""

    @abstractmethod
    def count(self, table: str) -> int:
        """Return the number of a table's rows."""


class TimedBlock(Protocol):
    """A block of code with a time limit."""

    def check(self) -> None:
        """Raise `timed_out` if the time is over: for code that no interrupt reaches."""


class WriteConnection(ABC):
    """Runs the transactions of one model, one at a time."""

    @property
    @abstractmethod
    def handle(self) -> EngineHandle:
        """The handle of functions: what they read through it includes what the open transaction changed."""

    @abstractmethod
    def begin(self, requests: Sequence[Request]) -> None:
        """Begin a transaction, for `requests`; raises `unavailable` after `leave`."""

    @abstractmethod
    def commit(self, commit: Commit, shipped_version: int | None) -> None:
        """Keep the transaction's effects and `commit`, both or none; return only if both are kept.

        Records of versions below `shipped_version` may be forgotten. After an error `rollback` is called. A commit that
        may have taken effect raises `InvalidatedError`: the records of the data, opened again, show it.
        """

    @abstractmethod
    def rollback(self) -> None:
        """End the transaction and undo all that it did; also after a `commit` that raised."""

    @abstractmethod
    def is_committed(self, seq: int) -> bool:
        """Return whether the data hold the record of the commit that ends with this request."""

    @abstractmethod
    def time_limit(self, limit_ms: int, what: str, requests: Sequence[Request]) -> AbstractContextManager[TimedBlock]:
        """Interrupt what runs in the block for `requests` after `limit_ms`, and raise `timed_out` that names `what`."""

    def memory_limit(self, traits: Traits, *, exactly: bool) -> AbstractContextManager[object]:  # noqa: ARG002
        """Raise `over_limit` for a call in the block that takes more memory than a function of these traits may.

        For rows that are counted with those of earlier calls it may raise `UnsureRowsError`, unless `exactly` is asked
        for. An engine whose requests cannot take more than their body has no such limit.
        """
        return nullcontext()

    def checkpoint(self) -> None:  # noqa: B027
        """Write what is committed into its final form, if statements could depend on whether that happened."""

    @abstractmethod
    def leave(self) -> None:
        """Interrupt what runs, and begin no further transaction; any thread may call it."""


# More than ten public methods: with what taking over, applying and publishing need of an engine.
class ModelData(ABC):
    """The open read-write data of one model."""

    @property
    @abstractmethod
    def connection(self) -> WriteConnection:
        """Runs the transactions."""

    @abstractmethod
    def identity(self) -> Identity:
        """Return whose data these are."""

    @abstractmethod
    def commits(self) -> Sequence[Commit]:
        """Return the records that are kept, by offset: at least those since the version that was shipped last."""

    @abstractmethod
    def adopt(self, shipped_version: int, version: int, write_id: str) -> None:
        """Give commits beyond `shipped_version` the version and write id under which they will be shipped."""

    @abstractmethod
    def capture(self, version: int, write_id: str, steps: Steps) -> Captured:
        """Return what is committed as the content of a version, compared with the one before it, adding to `steps`.

        No transaction is open. It may be called again after a `RetryError`. What it returned does not change while
        further transactions are committed.
        """

    @abstractmethod
    def shipped(self, captured: Captured) -> None:
        """Compare the next capture with this one: its manifest is in the chain."""

    def history(self, unchanged: Callable[[Manifest], frozenset[str]]) -> History | None:  # noqa: ARG002
        """Return the earlier versions for functions that read them; None if this engine has none for them.

        `unchanged` returns the tables of a version that nothing has changed since.
        """
        return None

    @abstractmethod
    def restore(self, manifest: Manifest, place: Path) -> None:
        """Do what `Engine.restore` does, preferring what is at hand over the store; any thread may call it."""

    def exhausted(self) -> InvalidatedError | None:
        """Return why the data should be opened again after a request that failed, None if they need not be."""
        return None

    @abstractmethod
    def reopened(self, error: InvalidatedError) -> ModelData:
        """Close them and return them opened again; raises `DamagedFileError` if they cannot be read."""

    @abstractmethod
    def close(self) -> None:
        """Close them; what is committed stays."""


class VersionReader(ABC):
    """One open version."""

    @abstractmethod
    def answer(self, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
        """Return the rows of one guarded query.

        Raises `sql_not_allowed`, `bad_sql`, `timed_out`, `over_limit`, `result_too_large`; DamagedVersionError.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make the query that runs fail as `timed_out`; any thread may call it."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""


class Engine(ABC):
    """Holds the data of models in one form.

    A `place` is a path where it makes a file or a folder, and may use names that begin with it and a dot. What lies
    there is complete: it was made under another name first, or the newest manifest shows that it was not needed yet.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name by which `create_model`, options and contents name it."""

    @abstractmethod
    def create(self, context: EngineContext, place: Path, identity: Identity) -> ModelData:
        """Make empty data at a place, and open them."""

    @abstractmethod
    def fork(self, context: EngineContext, place: Path, source: Manifest, identity: Identity) -> ModelData:
        """Make data at a place that begin as the user tables of another model's version, and open them.

        The version is pinned: its objects may be shared. Raises `unknown_version`, `bad_source`.
        """

    @abstractmethod
    def restore(self, chain: Chain, manifest: Manifest, place: Path) -> None:
        """Write the content of a version to a place, complete and durable, or not at all; raises `disk_full`."""

    @abstractmethod
    def open(self, context: EngineContext, place: Path, newest: Manifest) -> ModelData:
        """Open the data at a place, of which `newest` was the last shipped version if they are current.

        Raises `DamagedFileError` if they cannot be used, `busy` if another process has them open.
        """

    @abstractmethod
    def read(self, place: Path, limits: LimitSettings, temp: Path | None = None) -> VersionReader:
        """Open what `restore` wrote, for reading; `temp` holds temporary files."""


@frozen
class Engines:
    """The engines of this process, by name: those that are installed, and others that it was given."""

    given: Mapping[str, Engine] = {}

    @classmethod
    def of(cls, *engines: Engine) -> Engines:
        """Return these and the installed ones."""
        return cls({engine.name: engine for engine in engines})

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, sorted."""
        return tuple(sorted({*self.given, *part_names(PartGroup.ENGINES)}))

    def require(self, name: str) -> Engine:
        """Return an engine; raises `wrong_configuration` if it is not installed."""
        engine = self.given.get(name)
        return engine if engine is not None else make_part(PartGroup.ENGINES, name, Engine, "engine")


INSTALLED_ENGINES = Engines()
"""The installed ones only."""
