"""When schedules match: fields, zones, and what the change of the clocks does to them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from treadle.crons.scheduling import first_tick, parse_end_time, schedule_of
from treadle.errors import Invalid, Refused


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def ticks(schedule: str, zone: str | None, after: str, count: int) -> list[str]:
    """The next ticks, as ``MM-DD HH:MM`` in UTC."""
    found, moment = [], us(after)
    for _ in range(count):
        following = schedule_of(schedule, zone).next_after(moment)
        assert following is not None
        assert following > moment
        moment = following
        found.append(datetime.fromtimestamp(moment / 1e6, UTC).strftime("%m-%d %H:%M"))
    return found


NEW_YORK, BERLIN = "America/New_York", "Europe/Berlin"


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        # a time that is skipped comes when the clocks have been put forward
        ("30 2 * * *", NEW_YORK, "2026-03-07T20:00Z", ["03-08 07:00", "03-09 06:30"]),
        ("0,30 2 * * *", NEW_YORK, "2026-03-07T20:00Z", ["03-08 07:00", "03-09 06:00"]),
        ("0 2,3 * * *", NEW_YORK, "2026-03-08T05:00Z", ["03-08 07:00", "03-09 06:00"]),
        ("30 2 * * *", BERLIN, "2026-03-28T20:00Z", ["03-29 01:00", "03-30 00:30"]),
        # a time that comes twice counts once
        ("30 1 * * *", NEW_YORK, "2026-10-31T20:00Z", ["11-01 05:30", "11-02 06:30"]),
        ("0,30 1 * * *", NEW_YORK, "2026-11-01T05:10Z", ["11-01 05:30", "11-02 06:00"]),
        ("30 1 * * *", NEW_YORK, "2026-11-01T06:10Z", ["11-02 06:30"]),
        ("0 */2 * * *", BERLIN, "2026-10-24T22:00Z", ["10-25 00:00", "10-25 03:00"]),
        # every hour is every hour
        (
            "30 * * * *",
            NEW_YORK,
            "2026-03-08T06:00Z",
            ["03-08 06:30", "03-08 07:30", "03-08 08:30"],
        ),
        (
            "30 * * * *",
            NEW_YORK,
            "2026-11-01T05:00Z",
            ["11-01 05:30", "11-01 06:30", "11-01 07:30"],
        ),
        (
            "*/30 * * * *",
            BERLIN,
            "2026-10-25T00:10Z",
            ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"],
        ),
        # half an hour, and a whole day that a place has left out
        (
            "*/20 * * * *",
            "Australia/Lord_Howe",
            "2026-04-04T14:30Z",
            ["04-04 14:40", "04-04 15:10"],
        ),
        ("0 9 30 12 *", "Pacific/Apia", "2011-12-01T00:00Z", ["12-30 10:00", "12-29 19:00"]),
        # plain ones
        ("0 9 * * 1-5", None, "2026-11-20T10:00Z", ["11-23 09:00", "11-24 09:00"]),
        ("0 0 L * *", None, "2026-02-01T00:00Z", ["02-28 00:00", "03-31 00:00"]),
        ("0 0 29 2 *", None, "2026-02-01T00:00Z", ["02-29 00:00"]),
        ("@monthly", None, "2026-02-01T00:00Z", ["03-01 00:00"]),
        ("0 0 1 1 * 0 2030", None, "2026-02-01T00:00Z", ["01-01 00:00"]),
    ],
)
def test_ticks(schedule, zone, after, expected):
    assert ticks(schedule, zone, after, len(expected)) == expected


def test_a_sixth_field_is_seconds():
    second = schedule_of("* * * * * */2", None).next_after(us("2026-01-01T00:00:01.5Z"))
    assert second == us("2026-01-01T00:00:02Z")


def test_what_never_comes_again():
    assert schedule_of("0 0 31 2 *", None).next_after(us("2026-01-01T00:00Z")) is None
    with pytest.raises(Refused, match="failed to find next date"):
        first_tick(schedule_of("0 0 1 1 * 0 2020", None), us("2026-01-01T00:00Z"))


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("60 * * * *", "the minute is '60'"),
        ("* 24 * * *", "the hour is '24'"),
        ("* * 0 * *", "the day is '0'"),
        ("* * * 13 *", "the month is '13'"),
        ("* * * * MON#9", "the weekday is 'MON#9'"),
        ("* * * * * 61", "the second is '61'"),
        ("* * * * * 0 1900", "the year is '1900'"),
        ("R * * * *", "the minute is 'R'"),
        ("* * * * H", "the weekday is 'H'"),
        ("* * * *", "it has 4 fields"),
        ("", "it has 0 fields"),
        ("@reboot", "expected @yearly"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_named(schedule, reason):
    with pytest.raises(Invalid) as refused:
        schedule_of(schedule, None)
    assert f"Invalid cron schedule: '{schedule}'. Reason: {reason}" in str(refused.value)


@pytest.mark.parametrize("zone", ["", "utc", "Mars/X", "America", "../UTC", "/etc/UTC", "a\0"])
def test_unknown_zones_are_named(zone):
    with pytest.raises(Invalid, match="Invalid timezone"):
        schedule_of("* * * * *", zone)


def test_end_times():
    assert parse_end_time("2030-01-01T00:00:00") == us("2030-01-01T00:00:00+00:00")
    assert parse_end_time("2030-01-01T02:00:00+02:00") == us("2030-01-01T00:00:00Z")
    for text in ("soon", "", "2030-13-01", "0001-01-01T00:00:00+14:00x"):
        with pytest.raises(Invalid, match="end_time"):
            parse_end_time(text)
