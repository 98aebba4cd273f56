"""The answer of a watched query as its changes add up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from teatree.client.live.watching import AnswerChange
from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.codec import dump_json, parse_json

if TYPE_CHECKING:
    from teatree.datasets.dataset import Dataset


class WatchedAnswer:
    """Rows that changes are applied to, one after the other; their order is not kept."""

    def __init__(self) -> None:
        self.version: int | None = None
        """The version whose answer it is; None before the first change."""
        self._change: AnswerChange | None = None
        self._by_key: dict[bytes, bytes] = {}
        self._counted: Counter[bytes] = Counter()

    def apply(self, change: AnswerChange) -> None:
        """Apply a change; raises `corrupt` for one that does not fit."""
        if change.is_whole:
            self._by_key.clear()
            self._counted.clear()
        elif change.from_version != self.version:
            raise self._unfit(change, f"it begins at version {change.from_version}")
        if change.key:
            self._apply_by_key(change)
        else:
            self._apply_counted(change)
        self.version, self._change = change.version, change

    def _apply_by_key(self, change: AnswerChange) -> None:
        for key, _ in _keyed(change.removed, change.key):
            if self._by_key.pop(key, None) is None:
                raise self._unfit(change, "it removes a row that is not there")
        for part, is_there in ((change.changed, True), (change.added, False)):
            for key, row in _keyed(part, change.key):
                if (key in self._by_key) is not is_there:
                    raise self._unfit(change, "it adds a row that is there, or changes one that is not")
                self._by_key[key] = row

    def _apply_counted(self, change: AnswerChange) -> None:
        self._counted.subtract(_texts(change.removed))
        if any(count < 0 for count in self._counted.values()):
            raise self._unfit(change, "it removes a row that is not there")
        self._counted.update(_texts(change.added))
        self._counted = +self._counted

    def _unfit(self, change: AnswerChange, why: str) -> CorruptError:
        return CorruptError(f"The change to version {change.version} does not fit version {self.version}: {why}.")

    def __len__(self) -> int:
        return len(self._by_key) + self._counted.total()

    def rows(self) -> Dataset:
        """Return the rows; raises ValueError before the first change."""
        from teatree.datasets.dataset import Dataset  # noqa: PLC0415 - Arrow, only for rows

        if self._change is None:
            raise ValueError("No change was applied yet.")
        texts = [*self._by_key.values(), *self._counted.elements()]
        return Dataset.from_rows([parse_json(text) for text in texts], self._change.added.schema)


def _keyed(rows: Dataset, key: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
    return [(dump_json([row[name] for name in key]), dump_json(row)) for row in _json_rows(rows)]


def _texts(rows: Dataset) -> list[bytes]:
    return [dump_json(row) for row in _json_rows(rows)]


def _json_rows(rows: Dataset) -> list[dict[str, Any]]:
    return rows.to_json_rows(as_written=True)
