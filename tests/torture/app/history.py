"""When the code of the apps was changed or could not be imported, and which requests may have met which code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Factory, define, frozen


@frozen
class CodeChange:
    """One change of the apps' files, and perhaps a time in which they could not be imported."""

    version: int
    """The version that is installed when it is over."""
    newest: Mapping[str, int]
    """The newest version of each model before it began."""
    last_seq: int
    """The last request of the log when it was over."""


@define
class AppHistory:
    """What one model's requests may have met, while its log is replayed."""

    model: str
    changes: tuple[CodeChange, ...] = ()
    uses: list[int] = Factory(list)
    """The `use_app` requests so far: after each, a manager has loaded the app that was installed then."""

    def may_lack(self, version: int | None) -> bool:
        """Return whether the app's import may have failed for the manager that made a version, the next one if None."""
        return any(
            (version is None or version > change.newest.get(self.model, 0)) and not self._is_used(change)
            for change in self.changes
        )

    @property
    def version_min(self) -> int:
        """The version of the app that a request meets at least."""
        return max((change.version for change in self.changes if self._is_used(change)), default=1)

    def _is_used(self, change: CodeChange) -> bool:
        return any(seq > change.last_seq for seq in self.uses)


def versions_that_went_back(manifests: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return where a version of a model was made with older code than the one before."""
    wrong, before = [], 0
    for manifest in manifests:
        app = manifest.get("app")
        number = int(app["version"]) if app else before
        if number < before:
            wrong.append(f"version {manifest['version']} was made with the app's version {number} after {before}")
        before = number
    return wrong
