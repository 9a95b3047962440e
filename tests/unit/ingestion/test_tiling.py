"""Gaps, overlaps and uneven days, held against counting hour by hour and run by run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_flowservice.ingestion.cron import AnyOfSchedule, CronSchedule
from airflow_flowservice.ingestion.tiling import breaks, length_text, uneven_day
from airflow_flowservice.ingestion.uneven import UnevenDays, uneven_days
from airflow_flowservice.ingestion.window import IngestionWindow

UTC = timezone.utc
ZURICH = ZoneInfo("Europe/Zurich")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
repeatable = settings(derandomize=True, deadline=None)

edges = st.lists(st.integers(0, 300), min_size=2, max_size=12, unique=True).map(sorted)
spans = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda span: (span[0], sum(span)))


def window(start: int, end: int) -> IngestionWindow:
    """From one hour to another."""
    return IngestionWindow(EPOCH + start * HOUR, EPOCH + end * HOUR)


def hours(found: Any) -> set[int]:
    """The hours of a break."""
    return set(range(int((found.start - EPOCH) / HOUR), int((found.end - EPOCH) / HOUR)))


class TestBreaks:
    @repeatable
    @given(edges=edges, data=st.data())
    def test_windows_that_tile_have_none(self, edges: list[int], data: st.DataObject) -> None:
        """In any order."""
        windows = data.draw(st.permutations([window(*pair) for pair in pairwise(edges)]))
        assert [] == breaks(windows)

    @repeatable
    @given(edges=edges, data=st.data())
    def test_a_planted_gap_is_found(self, edges: list[int], data: st.DataObject) -> None:
        """A window that is left out of a row of windows is the gap."""
        # One more at either end, where nothing would be missing.
        edges = [-1, *edges, 301]
        windows = [window(*pair) for pair in pairwise(edges)]
        out = data.draw(st.integers(1, len(windows) - 2))
        [found] = breaks(windows[:out] + windows[out + 1 :])
        assert ("gap", out, windows[out]) == (found.kind, found.index, IngestionWindow(found.start, found.end))

    @repeatable
    @given(edges=edges, data=st.data())
    def test_a_planted_overlap_is_found(self, edges: list[int], data: st.DataObject) -> None:
        """A window that is there twice overlaps as a whole."""
        windows = [window(*pair) for pair in pairwise(edges)]
        twice = data.draw(st.sampled_from(windows))
        [found] = breaks([*windows, twice])
        assert ("overlap", twice.start, twice.end) == (found.kind, found.start, found.end)
        assert len(windows) == found.index

    @repeatable
    @given(spans=st.lists(spans, max_size=12))
    @example(spans=[(0, 10), (2, 5), (5, 12)])
    @example(spans=[(0, 2), (4, 6), (4, 6)])
    def test_any_windows(self, spans: list[tuple[int, int]]) -> None:
        """An hour in no window is in a gap, an hour in several in an overlap, and no other hour in either."""
        windows = [window(*span) for span in spans]
        times = Counter(hour for span in spans for hour in range(*span))
        found = breaks(windows)
        missing = {hour for one in found if one.kind == "gap" for hour in hours(one)}
        doubled = {hour for one in found if one.kind == "overlap" for hour in hours(one)}
        assert {hour for hour in range(min(times, default=0), max(times, default=0)) if not times[hour]} == missing
        assert {hour for hour, count in times.items() if count > 1} == doubled
        for one in found:
            assert (one.end if one.kind == "gap" else one.start) == windows[one.index].start


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=90), "1 min 30 s"),
        (timedelta(hours=23), "23 h"),
        (DAY, "24 h"),
        (timedelta(hours=25, minutes=30), "25 h 30 min"),
        (7 * DAY, "7 d"),
        (7 * DAY - HOUR, "167 h"),
    ],
)
def test_lengths_for_people(length: timedelta, text: str) -> None:
    """A day is 24 h, so that 23 h and 25 h show beside it."""
    assert text == length_text(length)


@pytest.mark.parametrize(
    ("zone", "start", "end", "note"),
    [
        ("Europe/Zurich", "2026-03-29", "2026-03-30", "local day of 23 h"),
        ("Europe/Zurich", "2026-10-25", "2026-10-26", "local day of 25 h"),
        ("Europe/Zurich", "2026-03-29T06:00", "2026-03-30T06:00", ""),
        ("Europe/Zurich", "2026-03-28T06:00", "2026-03-29T06:00", "local day of 23 h"),
        ("Europe/Zurich", "2026-03-23", "2026-03-30", "7 local days of 167 h"),
        ("Europe/Zurich", "2026-03-29T01:00", "2026-03-29T03:00", ""),
        ("Europe/Zurich", "2026-03-28", "2026-03-29", ""),
        ("Europe/Zurich", "2026-03-28T12:00", "2026-03-29T18:00", ""),
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-05", "local day of 23 h 30 min"),
        ("UTC", "2026-03-29", "2026-03-30", ""),
    ],
)
def test_a_day_of_another_length(zone: str, start: str, end: str, note: str) -> None:
    """Whole local days are noted if the clocks change on them; shorter windows are not."""
    place = ZoneInfo(zone)
    local = IngestionWindow(*(datetime.fromisoformat(text).replace(tzinfo=place) for text in (start, end)))
    assert note == uneven_day(local, zone=place)


def cron(expression: str, zone: str = "Europe/Zurich") -> CronSchedule:
    return CronSchedule(expression=expression, zone=ZoneInfo(zone))


def dates(*texts: str) -> tuple[date, ...]:
    return tuple(map(date.fromisoformat, texts))


def changes_of(zone: ZoneInfo, year: int) -> dict[datetime, date]:
    """The changes of a zone's clock to the minute, and their local days; found minute by minute on suspicious days."""
    first = datetime(year, 1, 1, tzinfo=zone).astimezone(UTC)
    found = {}
    for midnight in (first + days * DAY for days in range(366)):
        if midnight.astimezone(zone).utcoffset() == (midnight + DAY).astimezone(zone).utcoffset():
            continue
        for change in (midnight + minute * timedelta(minutes=1) for minute in range(1, 1441)):
            if change.astimezone(zone).utcoffset() != (change - timedelta(minutes=1)).astimezone(zone).utcoffset():
                found[change] = change.astimezone(zone).date()
    return found


def walked(schedule: Any, interval: Any, year: int, zone: ZoneInfo) -> set[date]:
    """The uneven days of a year, from walking through all of its run dates."""
    changes = changes_of(zone, year)
    earlier = schedule.previous(datetime.combine(date(year, 1, 1), time(), tzinfo=zone).astimezone(UTC))
    found = set()
    while earlier.astimezone(zone).year <= year:
        later = schedule.next(earlier)
        if later - interval != earlier:
            change = next((day for moment, day in changes.items() if earlier < moment <= later), None)
            found.add(change or earlier.astimezone(zone).date())
        earlier = later
    return {day for day in found if day.year == year}


class TestUnevenDays:
    @pytest.mark.parametrize(
        ("schedule", "interval", "year", "days"),
        [
            (cron("0 0 * * *"), DAY, 2026, dates("2026-03-29", "2026-10-25")),
            (cron("0 6 * * *"), DAY, 2026, dates("2026-03-29", "2026-10-25")),
            (cron("30 2 * * *"), DAY, 2026, dates("2026-03-29", "2026-10-25")),
            (cron("@daily"), DAY, 2026, dates("2026-03-29", "2026-10-25")),
            (cron("0 0 * * *"), relativedelta(days=1), 2026, dates("2026-03-29", "2026-10-25")),
            (cron("0 */2 * * *"), 2 * HOUR, 2026, dates("2026-03-29", "2026-10-25")),
            (cron("0 0 * * 1"), 7 * DAY, 2026, dates("2026-03-29", "2026-10-25")),
            (cron("0 0 * * *", "America/Sao_Paulo"), DAY, 2018, dates("2018-02-17", "2018-11-04")),
            (cron("0 0 * * *", "UTC"), DAY, 2026, ()),
            (cron("0 0 * * *", "Asia/Tokyo"), DAY, 2026, ()),
            (cron("0 * * * *"), HOUR, 2026, ()),
            (cron("*/30 * * * *"), HOUR / 2, 2026, ()),
            (cron("30 * * * *", "America/Sao_Paulo"), HOUR, 2018, ()),
            # Its 30th of December did not exist, which kept the days' length.
            (cron("0 0 * * *", "Pacific/Apia"), DAY, 2011, dates("2011-04-02", "2011-09-24")),
            (cron("0 0 * 1-11 *"), DAY, 2026, dates("2026-03-29", "2026-10-25", "2026-11-30")),
            (cron("*/30 * * 1-11 *"), HOUR / 2, 2026, dates("2026-11-30")),
            (
                AnyOfSchedule(schedules=(cron("0 0 * * *"), cron("0 12 * * *"))),
                DAY / 2,
                2026,
                dates("2026-03-29", "2026-10-25"),
            ),
        ],
    )
    def test_the_days_of_an_interval_that_fits(
        self, schedule: Any, interval: Any, year: int, days: tuple[date, ...]
    ) -> None:
        """Where the clocks go on evenly, the windows tile; the few days on which they do not are all told."""
        assert UnevenDays(days=days, complete=True) == uneven_days(schedule=schedule, interval=interval, year=year)

    @pytest.mark.parametrize(
        ("schedule", "interval", "first"),
        [
            (cron("0 0 1 * *"), DAY, "2026-01-01"),
            (cron("0 0 * * 1-5"), DAY, "2026-01-02"),
            (cron("0 0 * * *"), HOUR, "2026-01-01"),
            (cron("0 0,1 * * *"), 23 * HOUR, "2026-01-01"),
            (cron("*/7 * * * *"), timedelta(minutes=7), "2026-01-01"),
            (AnyOfSchedule(schedules=(cron("0 0 * * *"), cron("0 6 * * *"))), DAY, "2026-01-01"),
        ],
    )
    def test_an_interval_that_does_not_fit(self, schedule: Any, interval: timedelta, first: str) -> None:
        """That is told apart from two days a year: the list is cut off."""
        found = uneven_days(schedule=schedule, interval=interval, year=2026)
        assert (False, date.fromisoformat(first)) == (found.complete, found.days[0])
        assert 10 <= len(found.days) <= 12

    @settings(repeatable, max_examples=settings.default.max_examples * 2 // 5)
    @given(
        expression=st.sampled_from(
            [
                "{m} {h} * * *",
                "{m} {h} * * 1",
                "{m} {h} 1 * *",
                "{m} {h} */2 * *",
                "{m} {h},23 * * *",
                "{m} {h} 1,L * 2",
            ]
        ),
        minute=st.sampled_from([0, 30]),
        hour=st.integers(0, 22),
        interval=st.sampled_from([DAY, 7 * DAY, 2 * DAY, 12 * HOUR, 31 * DAY, relativedelta(days=1)]),
        place=st.sampled_from(
            [
                ("Europe/Zurich", 2026),
                ("America/Sao_Paulo", 2018),
                ("Australia/Lord_Howe", 2026),
                ("Africa/Casablanca", 2025),
                ("Pacific/Apia", 2011),
            ]
        ),
        other=st.sampled_from([None, "0 12 * * *", "0 3 * * 6"]),
    )
    def test_they_are_those_of_a_walk_through_the_year(
        self, expression: str, minute: int, hour: int, interval: Any, place: tuple[str, int], other: str | None
    ) -> None:
        """The short cut finds what looking at each run date finds."""
        zone, year = ZoneInfo(place[0]), place[1]
        schedule: Any = cron(expression.format(m=minute, h=hour), place[0])
        if other:
            schedule = AnyOfSchedule(schedules=(schedule, cron(other, place[0])))
        truth = walked(schedule, interval, year, zone)
        found = uneven_days(schedule=schedule, interval=interval, year=year)
        if found.complete:
            assert sorted(truth) == list(found.days)
            return
        of_a_change = set(changes_of(zone, year).values())
        assert set() == set(found.days) - truth
        assert 10 == len(set(found.days) - of_a_change)

    def test_an_hourly_cron_is_not_walked_through(self) -> None:
        """Of 8760 run dates only those around the changes of the clock are looked at."""

        @dataclass(frozen=True, kw_only=True)
        class Counted(CronSchedule):
            calls: list[datetime] = field(default_factory=list)

            def next(self, moment: datetime) -> datetime:
                self.calls.append(moment)
                return super().next(moment)

        schedule = Counted(expression="0 * * * *", zone=ZURICH)
        assert UnevenDays(days=(), complete=True) == uneven_days(schedule=schedule, interval=HOUR, year=2026)
        assert 40 < len(schedule.calls) < 100
