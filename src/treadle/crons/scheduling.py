"""When a schedule matches: cron expressions, time zones, summer time. No clock, no database.

A schedule names local times. Where the clocks of its zone are changed, a schedule for every hour
goes on in real time: nothing is left out, and the hour that comes twice has its ticks twice. Any
other has each of its times once: one that is skipped in spring comes when the clocks have been
put forward, one that comes twice in autumn counts the first time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from treadle.clock import SECOND_US
from treadle.errors import Invalid, Refused

_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)
_EPOCH = datetime(1970, 1, 1)
_RANDOM = re.compile(r"[rh](?:\(|/|,|$)", re.IGNORECASE)
_FIELDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day", "1 to 31, or L for the last day of the month"),
    ("month", "1 to 12, or JAN to DEC"),
    ("weekday", "0 to 7, or SUN to SAT"),
    ("second", "0 to 59"),
    ("year", "1970 to 2099"),
)


class Schedule:
    """A cron expression in a time zone. Made by ``schedule_of``."""

    def __init__(self, text: str, zone: ZoneInfo) -> None:
        self._zone = zone
        self._cron = croniter(text)
        hours = self._cron.expanded[1]
        self._every_hour = hours == ["*"] or len(hours) == 24

    def next_after(self, us: int) -> int | None:
        """The first tick after a moment, both in microseconds since the epoch; None if never."""
        after = _EPOCH + timedelta(seconds=us // SECOND_US)
        try:
            found = self._in_real_time(after) if self._every_hour else self._by_the_clock(after)
        except (CroniterBadDateError, OverflowError):
            return None
        return int((found - _EPOCH).total_seconds()) * SECOND_US

    # Moments are UTC, times are local; both are datetimes without a zone.

    def _by_the_clock(self, after: datetime) -> datetime:
        """Each local time once."""
        time = after + self._offset(after)
        while True:
            time = self._next_time(time)
            moment = time - self._zone_offset(time)
            if moment + self._offset(moment) != time:  # skipped when the clocks are put forward
                moment = self._change(moment - _DAY, moment) or moment
            if moment > after:
                return moment

    def _in_real_time(self, after: datetime) -> datetime:
        """Every hour that passes, from one change of the clocks to the next."""
        begin, time = after, after + self._offset(after)
        while True:
            moment = self._next_time(time) - self._offset(begin)
            change = self._change(begin, moment)
            if change is None:
                return moment
            begin, time = change, change + self._offset(change) - _SECOND

    def _next_time(self, time: datetime) -> datetime:
        return self._cron.get_next(datetime, start_time=time)

    def _offset(self, moment: datetime) -> timedelta:
        local = moment.replace(tzinfo=UTC).astimezone(self._zone)
        return local.utcoffset() or timedelta()

    def _zone_offset(self, time: datetime) -> timedelta:
        """The offset of a local time: the first of two, the one before a gap."""
        return self._zone.utcoffset(time) or timedelta()

    def _change(self, begin: datetime, end: datetime) -> datetime | None:
        """The first moment after ``begin``, up to ``end``, at which the clocks are changed."""
        before = self._offset(begin)
        while begin < end:
            step = min(begin + _DAY, end)
            if self._offset(step) != before:
                while step - begin > _SECOND:
                    middle = begin + timedelta(seconds=(step - begin) // (2 * _SECOND))
                    if self._offset(middle) == before:
                        begin = middle
                    else:
                        step = middle
                return step
            begin = step
        return None


@lru_cache(maxsize=1024)
def schedule_of(text: str, timezone: str | None) -> Schedule:
    """The schedule of a cron. ``Invalid`` names the field, or the time zone, that is wrong."""
    zone = _zone(timezone)
    fields = text.split()
    try:
        if any(_RANDOM.match(field) for field in fields):
            raise ValueError("R and H, for times left to chance, are not supported")
        return Schedule(text, zone)
    except Exception as error:
        reason = _reason(fields) or str(error)
        raise Invalid(f"Invalid cron schedule: '{text}'. Reason: {reason}") from None


def first_tick(schedule: Schedule, now: int) -> int:
    """The first tick after now. ``Refused`` if the schedule never matches again."""
    found = schedule.next_after(now)
    if found is None:
        raise Refused("failed to find next date: the schedule names a date that never comes")
    return found


def parse_end_time(text: str) -> int:
    """An ``end_time`` in microseconds since the epoch; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * SECOND_US)
    except (ValueError, OverflowError):
        raise Invalid(
            f"end_time is {text[:100]!r}, but has to be a date and time in ISO 8601, such as"
            " '2030-01-31T12:00:00+00:00'"
        ) from None


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo("UTC" if name is None else name)
    except (ValueError, OSError, LookupError):
        raise Invalid(
            f"Invalid timezone: '{str(name)[:100]}'. Use IANA timezone format"
            " (e.g. 'America/New_York')."
        ) from None


def _reason(fields: list[str]) -> str | None:
    """What is wrong with the first field that is wrong by itself."""
    if len(fields) == 1 and fields[0].startswith("@"):
        return "expected @yearly, @annually, @monthly, @weekly, @daily, @midnight or @hourly"
    if not 5 <= len(fields) <= len(_FIELDS):
        return (
            f"it has {len(fields)} fields, but needs 5 (minute, hour, day, month, weekday), and"
            " may have a sixth for the second and a seventh for the year"
        )
    for place, (field, (name, allowed)) in enumerate(zip(fields, _FIELDS, strict=False)):
        alone = ["*"] * max(5, place + 1)
        alone[place] = field
        try:
            if _RANDOM.match(field):
                raise ValueError
            croniter(" ".join(alone))
        except Exception:
            return f"the {name} is '{field}', but has to be within {allowed}"
    return None
