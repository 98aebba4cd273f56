"""Which versions are kept: all for a while, then one an hour, then one a day."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from teatree.contracts.settings import RetentionSettings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


def kept_versions(
    versions: Iterable[tuple[int, datetime]], now: datetime, policy: RetentionSettings, always: Collection[int] = ()
) -> set[int]:
    """Return the numbers of the versions that a policy keeps, of those given with the moment of each.

    The newest is kept, and those named in `always`. Of an hour or a day the last version is kept: it is what readers
    saw at its end. What is kept later is always among what is kept now, so cleaning up often and cleaning up rarely
    have the same result.
    """
    ascending = sorted(versions)
    all_since = now - max(timedelta(hours=policy.keep_all_hours), timedelta(milliseconds=policy.grace_ms))
    kept = {number for number, _ in ascending if number in always}
    kept.update(number for number, _ in ascending[-1:])
    last_of_hour: dict[int, tuple[int, datetime]] = {}
    last_of_day: dict[int, tuple[int, datetime]] = {}
    for number, at in ascending:
        if at >= all_since:
            kept.add(number)
        last_of_hour[(at - _EPOCH) // _HOUR] = (number, at)
        last_of_day[(at - _EPOCH) // _DAY] = (number, at)
    kept.update(number for number, at in last_of_hour.values() if now - at <= timedelta(days=policy.hourly_days))
    kept.update(number for number, at in last_of_day.values() if now - at <= timedelta(days=policy.daily_days))
    return kept
