"""Periods: half-open ranges of days."""

from __future__ import annotations

import re
from datetime import date

from attrs import frozen

from teatree import Refused

_YEAR = re.compile(r"[0-9]{4}")
_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FORMS = "Write it as `2011`, `2011-12` or `2010-12-01/2011-03-01`: the first day, and the day after the last one."


@frozen
class Period:
    """The days from `start` to the day before `end`."""

    start: date
    end: date

    @classmethod
    def parse(cls, text: str, where: str = "period") -> Period:
        """Return the period of a year, a month, or `from/to`; refuses anything else, and one without a day."""
        try:
            period = _read(text)
        except ValueError:
            raise Refused(f"{text!r} is not a period.", where=where, hint=_FORMS) from None
        if period.start >= period.end:
            raise Refused(f"The period {text!r} has no day.", where=where, hint=_FORMS)
        return period

    def __str__(self) -> str:
        """Return the shortest text of it: `2011`, `2011-12` or `2010-12-01/2011-03-01`."""
        for text in (f"{self.start:%Y}", f"{self.start:%Y-%m}"):
            if _read(text) == self:
                return text
        return f"{self.start}/{self.end}"

    def until(self, end: date) -> Period:
        """Return the days of this period before `end`; without any if that is before its start."""
        return Period(self.start, max(self.start, min(self.end, end)))


def _read(text: str) -> Period:
    start, slash, end = text.partition("/")
    if slash:
        return Period(_day(start), _day(end))
    if found := _MONTH.fullmatch(text):
        year, month = int(found[1]), int(found[2])
        return Period(date(year, month, 1), date(year + month // 12, month % 12 + 1, 1))
    if _YEAR.fullmatch(text):
        return Period(date(int(text), 1, 1), date(int(text) + 1, 1, 1))
    raise ValueError(text)


def _day(text: str) -> date:
    if not _DAY.fullmatch(text):  # other forms of ISO 8601 are read, too
        raise ValueError(text)
    return date.fromisoformat(text)
