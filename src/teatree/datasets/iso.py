"""ISO 8601 texts of days, times, moments and durations, to and from the integers that DuckDB and Arrow count in.

Years beyond 9999 or before 1 are written with a sign, as in ISO 8601; `infinity` and `-infinity` are DuckDB's own.
Nothing is rounded: digits finer than the unit must be zeros.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date, datetime

DATE_INFINITY = 2**31 - 1
TIMESTAMP_INFINITY = 2**63 - 1
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
# What DuckDB 2.0 can hold; a value beyond stops its whole database with an internal error when it is cast or printed.
TIMESTAMP_US_MIN = -9_223_372_022_400_000_000
TIMESTAMP_US_MAX = TIMESTAMP_INFINITY - 1
DATE_MIN = -2_147_483_646
DATE_MAX = DATE_INFINITY - 1
OFFSET_SECONDS_MAX = 57_599
"""Seconds of the largest offset of a TIME WITH TIME ZONE: 15:59:59."""
DAY_SECONDS = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_EPOCH_MOMENT = datetime(1970, 1, 1)  # noqa: DTZ001 - wall-clock moments have no zone

_DATE = re.compile(r"([+-]?[0-9]{4,7})-([0-9]{2})-([0-9]{2})")
_CLOCK = r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,12}))?)?"
_OFFSET = r"(Z|z|[+-][0-9]{2}(?::[0-9]{2}(?::[0-9]{2})?|[0-9]{2}(?:[0-9]{2})?)?)?"
_COMMON = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ](?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}")
_TIME = re.compile(_CLOCK + _OFFSET)
_TIMESTAMP = re.compile(rf"{_DATE.pattern}(?:[T ]{_CLOCK}{_OFFSET})?")
_DURATION = re.compile(
    r"([+-])?P(?:([+-]?[0-9]{1,9})Y)?(?:([+-]?[0-9]{1,10})M)?(?:([+-]?[0-9]{1,9})W)?(?:([+-]?[0-9]{1,10})D)?"
    r"(?:T(?:([+-]?[0-9]{1,15})H)?(?:([+-]?[0-9]{1,15})M)?(?:([+-]?)([0-9]{1,15})(?:[.,]([0-9]{1,12}))?S)?)?"
)


def parse_date(text: str) -> int:
    """Return the days since 1970-01-01; raises ValueError with what is wrong."""
    if text in ("infinity", "-infinity"):
        return DATE_INFINITY if text == "infinity" else -DATE_INFINITY
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("is not a date as in 2026-12-31")
    days = _days(match[1], match[2], match[3])
    if not DATE_MIN <= days <= DATE_MAX:
        raise OverflowError("is outside the dates that DuckDB holds")
    return days


def parse_time(text: str, unit: str) -> int:
    """Return a time of day in `unit`; raises ValueError with what is wrong."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("is not a time of day as in 23:59:59.5")
    if match[5]:
        raise ValueError("has an offset, which the type does not keep")
    return _time_of_day(match, unit)


def parse_time_tz(text: str) -> tuple[int, int]:
    """Return a time of day in microseconds and its offset in seconds; raises ValueError with what is wrong."""
    match = _TIME.fullmatch(text)
    if match is None or not match[5]:
        raise ValueError("is not a time of day with an offset as in 23:59:59.5+01:00")
    offset = _offset(match[5])
    if abs(offset) > OFFSET_SECONDS_MAX:
        raise ValueError("has too large an offset")
    return _time_of_day(match, "us"), offset


def parse_timestamp(text: str, unit: str, *, tz: bool) -> int:
    """Return the moment in `unit` since 1970 (UTC if `tz`); raises ValueError with what is wrong."""
    if not tz and unit != "ns" and _COMMON.fullmatch(text):
        with suppress(ValueError):  # the common form, in a third of the time; the rest is read below
            since = datetime.fromisoformat(text) - _EPOCH_MOMENT
            return (since.days * DAY_SECONDS + since.seconds) * PER_SECOND[unit]
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        if text in ("infinity", "-infinity"):
            return TIMESTAMP_INFINITY if text == "infinity" else -TIMESTAMP_INFINITY
        raise ValueError("is not a moment as in 2026-12-31T23:59:59" + ("Z" if tz else ""))
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    value = _days(year, month, day) * DAY_SECONDS * PER_SECOND[unit]
    if hour is not None:
        value += _clock(hour, minute, second, fraction, unit)
    if tz:
        if offset is None:
            raise ValueError("has no offset from UTC: end it with Z or, for example, +01:00")
        value -= _offset(offset) * PER_SECOND[unit]
    elif offset is not None:
        raise ValueError("has an offset, which the type does not keep: use TIMESTAMPTZ, or leave it out")
    first, last = timestamp_range(unit)
    if not first <= value <= last:
        raise OverflowError("is outside the moments that DuckDB holds")
    return value


def timestamp_range(unit: str) -> tuple[int, int]:
    """Return the first and the last finite moment that DuckDB holds, in `unit` since 1970."""
    if unit == "ns":
        return 1 - TIMESTAMP_INFINITY, TIMESTAMP_INFINITY - 1
    scale = PER_SECOND["us"] // PER_SECOND[unit]
    return -(-TIMESTAMP_US_MIN // scale), TIMESTAMP_US_MAX // scale


def parse_duration(text: str) -> tuple[int, int, int]:
    """Return months, days and microseconds of an ISO 8601 duration; raises ValueError with what is wrong.

    Each part may have its own sign, as DuckDB's parts do.
    """
    match = _DURATION.fullmatch(text)
    if match is None or text.endswith(("P", "T")):
        raise ValueError("is not a duration as in P1Y2M3DT4H5M6.5S")
    sign, years, months, weeks, days, hours, minutes, second_sign, seconds, fraction = match.groups()
    micros = int(seconds or 0) * PER_SECOND["us"] + _fraction(fraction, "us")
    if second_sign == "-":
        micros = -micros
    micros += (int(hours or 0) * 3600 + int(minutes or 0) * 60) * PER_SECOND["us"]
    flip = -1 if sign == "-" else 1
    return (
        flip * (int(years or 0) * 12 + int(months or 0)),
        flip * (int(weeks or 0) * 7 + int(days or 0)),
        flip * micros,
    )


def format_date(days: int) -> str:
    """Return the text of a day."""
    if abs(days) >= DATE_INFINITY:
        return "infinity" if days > 0 else "-infinity"
    ordinal = days + _EPOCH
    if 1 <= ordinal <= date.max.toordinal():
        return date.fromordinal(ordinal).isoformat()
    year, month, day = _civil(days)
    return f"{'-' if year < 0 else '+' if year > 9999 else ''}{abs(year):04}-{month:02}-{day:02}"


def format_time(value: int, unit: str) -> str:
    """Return the text of a time of day; a fraction is written with the digits of its unit, or not at all."""
    seconds, fraction = divmod(value, PER_SECOND[unit])
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    tail = f".{fraction:0{DIGITS[unit]}}" if fraction else ""
    return f"{hour:02}:{minute:02}:{second:02}{tail}"


def format_time_tz(micros: int, offset_seconds: int) -> str:
    """Return the text of a time of day with its offset."""
    minutes, second = divmod(abs(offset_seconds), 60)
    tail = f":{second:02}" if second else ""
    sign = "-" if offset_seconds < 0 else "+"
    return f"{format_time(micros, 'us')}{sign}{minutes // 60:02}:{minutes % 60:02}{tail}"


def format_timestamp(value: int, unit: str, *, tz: bool) -> str:
    """Return the text of a moment."""
    if abs(value) >= TIMESTAMP_INFINITY:
        return "infinity" if value > 0 else "-infinity"
    days, rest = divmod(value, DAY_SECONDS * PER_SECOND[unit])
    return f"{format_date(days)}T{format_time(rest, unit)}{'Z' if tz else ''}"


def format_duration(months: int, days: int, micros: int) -> str:
    """Return the text of a duration; each part keeps its own sign."""
    sign = "-" if micros < 0 else ""
    seconds, fraction = divmod(abs(micros), PER_SECOND["us"])
    text = "P" + (f"{months}M" if months else "") + (f"{days}D" if days else "")
    if micros:
        text += f"T{sign}{seconds}" + (f".{fraction:06}" if fraction else "") + "S"
    return text if len(text) > 1 else "PT0S"


def _days(year: str, month: str, day: str) -> int:
    try:
        if len(year) == 4:
            return date(int(year), int(month), int(day)).toordinal() - _EPOCH
        y, m, d = int(year), int(month), int(day)
        date(2000 + y % 400, m, d)  # the calendar repeats every 400 years
    except ValueError:
        if year == "0000" and month + day in _DAYS_OF_LEAP_YEAR:
            return _days_from_civil(0, int(month), int(day))
        raise ValueError("is not a day of the calendar") from None
    return _days_from_civil(y, m, d)


_DAYS_OF_LEAP_YEAR = frozenset(date.fromordinal(date(2000, 1, 1).toordinal() + n).strftime("%m%d") for n in range(366))


def _time_of_day(match: re.Match[str], unit: str) -> int:
    """Return a time of day; 24:00:00, the end of the day, is one too."""
    hour, minute, second, fraction = match.groups()[:4]
    if hour == "24" and not int(minute + (second or "0") + (fraction or "0")):
        return DAY_SECONDS * PER_SECOND[unit]
    return _clock(hour, minute, second, fraction, unit)


def _clock(hour: str, minute: str, second: str | None, fraction: str | None, unit: str) -> int:
    h, m, s = int(hour), int(minute), int(second or 0)
    if h > 23 or m > 59 or s > 59:
        raise ValueError("is not a time of the day")
    value = (h * 3600 + m * 60 + s) * PER_SECOND[unit]
    return value + _fraction(fraction, unit) if fraction else value


def _fraction(digits: str | None, unit: str) -> int:
    if not digits:
        return 0
    kept = DIGITS[unit]
    if digits[kept:].strip("0"):
        raise ValueError(f"has more than {kept} digits after the seconds, which the type does not keep")
    return int(digits[:kept].ljust(kept, "0") or 0)


def _offset(text: str) -> int:
    if text in ("Z", "z"):
        return 0
    digits = text[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError("has an offset that is no time")
    value = hours * 3600 + minutes * 60 + seconds
    return -value if text[0] == "-" else value


# Days and civil dates in the proleptic Gregorian calendar, after Howard Hinnant,
# "chrono-Compatible Low-Level Date Algorithms".
def _days_from_civil(year: int, month: int, day: int) -> int:
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


def _civil(days: int) -> tuple[int, int, int]:
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1
