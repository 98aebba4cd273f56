"""Warnings about variables that look like settings of Teatree and are none: a typing error would have no effect."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Iterable

PREFIX = "TEATREE_"


class UnknownSettingWarning(UserWarning):
    """A variable of the environment, or a line of teatree.env, that is the name of no setting."""


def warn_of_unknown(names: Iterable[str], known: Collection[str], source: str) -> None:
    """Warn of each name that begins with `TEATREE_` and is not known; `source` names where they are set."""
    for name in sorted(names):
        if not name.startswith(PREFIX) or name in known:
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        advice = f" Did you mean {close[0]}?" if close else " docs/settings.md lists the settings."
        message = f"{name} in {source} is not a setting of Teatree and has no effect.{advice}"
        warnings.warn(message, UnknownSettingWarning, stacklevel=3)
