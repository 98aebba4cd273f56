"""Earlier versions of a model, as its functions may use them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.retry import Pauses, Retry, is_unavailable
from teatree.contracts.settings import LimitSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.contracts.formats.manifest import Manifest
    from teatree.functions.handles import Parameters

T = TypeVar("T")
PAUSES = Pauses(ms_max=500)


class History(ABC):
    """The versions of one model that is open for writing."""

    @abstractmethod
    def version(self, number: int) -> Manifest:
        """Return a version that has a file; raises `unknown_version` if there is none, or it was cleaned up."""

    @abstractmethod
    def unchanged(self, manifest: Manifest) -> frozenset[str]:
        """Return the names of a version's tables that nothing has changed since."""

    @abstractmethod
    def opened(self, manifest: Manifest) -> AbstractContextManager[str]:
        """Let the open transaction read a version for the time of the block; yield the name of its database.

        Raises `unknown_version` if it was cleaned up, `bad_source` if it is damaged.
        """

    @abstractmethod
    def answer(self, manifest: Manifest, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
        """Return the rows of one guarded SELECT on a version, outside the open transaction.

        Raises what `opened` and `ReadAccess.query` raise.
        """


def retry_while_unavailable(limits: LimitSettings, what: str, where: str, work: Callable[[], T]) -> T:
    """Return what `work` returns, retrying for `load_retry_ms_max` while what it needs is unavailable.

    Raises `source_unavailable` after that: the request fails, its model continues.
    """
    try:
        return Retry(PAUSES, limits.load_retry_ms_max, again=is_unavailable).call(work)
    except RetryError as e:
        if not is_unavailable(e):
            raise
        hint = "Send it again later."
        raise RetryError(Code.SOURCE_UNAVAILABLE, f"{what}: {e.message}", where=where, hint=hint) from e
