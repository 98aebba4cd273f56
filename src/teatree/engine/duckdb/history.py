"""Earlier versions as DuckDB files from the store, for `restore`, queries and forks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from teatree.contracts.errors import Code, CorruptError, RequestError, RetryError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.settings import LimitSettings
from teatree.engine.duckdb.database import Database
from teatree.engine.duckdb.open_version import answer_from
from teatree.engine.errors import DamagedVersionError
from teatree.functions.handles import Parameters
from teatree.functions.history import History
from teatree.storage.objects.base import NotFoundError
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.reader import layout_of, materialise

if TYPE_CHECKING:
    import pyarrow as pa


class StoredHistory(History):
    """The versions of the model whose file is open."""

    def __init__(self, chain: Chain, database: Database, unchanged: Callable[[Manifest], frozenset[str]]) -> None:
        self._chain = chain
        self._database = database
        self._unchanged = unchanged

    @override
    def version(self, number: int) -> Manifest:
        try:
            manifest = self._chain.get(number)
            layout_of(manifest)
        except RequestError as e:
            e.where = "version"
            raise
        return manifest

    @override
    def unchanged(self, manifest: Manifest) -> frozenset[str]:
        return self._unchanged(manifest)

    @override
    @contextmanager
    def opened(self, manifest: Manifest) -> Iterator[str]:
        path = self._database.attached_snapshot
        try:
            fetch_file(self._chain, manifest, path)
            yield self._database.attach_snapshot()
        finally:
            path.unlink(missing_ok=True)  # the transaction continues to read the open file until its end

    @override
    def answer(self, manifest: Manifest, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
        path = self._database.path.with_name("asked.duckdb")
        try:
            fetch_file(self._chain, manifest, path)
            return answer_from(path, sql, parameters, limits)
        except DamagedVersionError as e:
            raise _damaged(self._chain, manifest, e) from e
        finally:
            path.unlink(missing_ok=True)


def _damaged(chain: Chain, manifest: Manifest, error: CorruptError) -> RequestError:
    return RequestError(
        Code.BAD_SOURCE,
        f"Version {manifest.version} of {chain.model} is damaged in the store: {error.message} ({error.where})",
        where="version",
        hint="Take the version before or after it; `teatree verify` reports which are damaged.",
    )


def fetch_file(chain: Chain, manifest: Manifest, path: Path) -> None:
    """Write a version's file for a request that names it; errors of the version become errors of the request.

    Raises `unknown_version` if it was cleaned up meanwhile, `bad_source` if it is damaged, `over_limit` if the disk has
    no room for it.
    """
    try:
        materialise(chain.store, manifest, path)
    except NotFoundError as e:
        raise RequestError(
            Code.UNKNOWN_VERSION,
            f"Version {manifest.version} of {chain.model} does not exist any more: it was cleaned up.",
            where="version",
            hint="`teatree versions` lists what there is.",
        ) from e
    except CorruptError as e:
        raise _damaged(chain, manifest, e) from e
    except RetryError as e:
        if e.code is not Code.DISK_FULL:
            raise
        raise RetryError(
            Code.OVER_LIMIT,
            f"The disk has no room for version {manifest.version} of {chain.model} beside the model itself.",
            where="version",
            hint="Send it again when there is more room.",
        ) from e
