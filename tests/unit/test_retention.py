"""Which versions the policy keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from teatree.contracts.settings import RetentionSettings
from teatree.storage.retention.policy import kept_versions

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = RetentionSettings(grace_ms=0, keep_all_hours=24, hourly_days=7, daily_days=60)
STEPS = st.lists(st.integers(0, 40 * 3_600), min_size=1, max_size=120)
POLICIES = st.builds(
    RetentionSettings,
    grace_ms=st.sampled_from([0, 60_000]),
    keep_all_hours=st.sampled_from([0.0, 0.5, 24.0]),
    hourly_days=st.sampled_from([0.0, 0.1, 7.0]),
    daily_days=st.sampled_from([0.0, 3.0, 60.0]),
)


def history(steps: list[int]) -> list[tuple[int, datetime]]:
    """Return versions 1, 2, …, each some seconds after the one before."""
    at = BEGIN
    versions = []
    for number, seconds in enumerate(steps, 1):
        at += timedelta(seconds=seconds)
        versions.append((number, at))
    return versions


@given(STEPS, st.integers(0, 100 * 86_400))
def test_what_is_kept(steps: list[int], later_s: int) -> None:
    """The newest, all of the last day, the last of each hour of a week, the last of each day of two months: no more."""
    versions = history(steps)
    now = versions[-1][1] + timedelta(seconds=later_s)
    kept = kept_versions(versions, now, POLICY, {3})
    following = {number: at for (number, _), (_, at) in pairwise(versions)}
    for number, at in versions:
        age = now - at
        then = following.get(number)
        ends_hour = then is None or then.replace(minute=0, second=0) != at.replace(minute=0, second=0)
        ends_day = then is None or then.date() != at.date()
        wanted = (
            then is None
            or number == 3
            or age <= timedelta(hours=24)
            or (ends_hour and age <= timedelta(days=7))
            or (ends_day and age <= timedelta(days=60))
        )
        assert (number in kept) == wanted


@given(STEPS, POLICIES, st.lists(st.integers(0, 50 * 86_400), min_size=1, max_size=8), st.integers(1, 120))
def test_often_and_rarely_end_the_same(
    steps: list[int], policy: RetentionSettings, looks_s: list[int], pinned: int
) -> None:
    """Clean-ups at any times leave exactly the versions that one clean-up at the end leaves."""
    versions = history(steps)
    end = versions[-1][1] + timedelta(seconds=looks_s[0])
    left = versions
    for moment in sorted(BEGIN + timedelta(seconds=s) for s in looks_s):
        now = min(moment, end)
        past = [v for v in left if v[1] <= now]
        kept = kept_versions(past, now, policy, {pinned})
        left = [v for v in left if v[1] > now or v[0] in kept]
    assert kept_versions(left, end, policy, {pinned}) == kept_versions(versions, end, policy, {pinned})


@given(STEPS, POLICIES)
def test_the_count_is_bounded_by_the_policy(steps: list[int], policy: RetentionSettings) -> None:
    """However many versions there are, beyond the first hours only one an hour and one a day are kept."""
    versions = history(steps)
    now = versions[-1][1]
    kept = kept_versions(versions, now, policy)
    recent = [
        number
        for number, at in versions
        if now - at <= timedelta(hours=policy.keep_all_hours, milliseconds=policy.grace_ms)
    ]
    assert len(kept - set(recent)) <= policy.hourly_days * 24 + 1 + policy.daily_days + 1 + 1


def test_no_version_at_all() -> None:
    """A model without versions keeps none."""
    assert kept_versions([], BEGIN, POLICY) == set()
