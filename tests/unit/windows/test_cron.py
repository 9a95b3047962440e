# SPDX-License-Identifier: Apache-2.0
"""Tests of run dates of crons: near clock changes, in a few steps, and in threads."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise, takewhile
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.timetables import trigger as core
from croniter import croniter

from airflow_flowservice._airflow.timetables import parse_timetable
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.cron import CronSchedule, MultipleCronSchedule

if TYPE_CHECKING:
    from collections.abc import Iterator

UTC = timezone.utc
# Clock changes forward and back: by one hour, by half an hour, at midnight, and by a whole day.
CHANGES = [
    ("Europe/Zurich", "2026-03-29T01:00:00+00:00"),
    ("Europe/Zurich", "2026-10-25T01:00:00+00:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00+00:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00+00:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00:00+00:00"),
    ("America/Sao_Paulo", "2018-02-18T02:00:00+00:00"),
    ("Pacific/Apia", "2011-12-30T10:00:00+00:00"),
]
DENSE = [
    "* * * * *",
    "*/7 * * * *",
    "1-59/2 * * * *",
    "30-59 * * * *",
    "* 0-5 * * *",
    "*/5 2,23 * * *",
    "*/10 * * * 0,6",
    "* * 1 * *",
]
SEVERAL = [
    ("*/7 * * * *", "*/20 2 * * *"),
    ("10 2 * * *", "30 2 * * *", "45 0-4 * * *"),
    ("0 * 29-31 * *", "*/30 23,0 * * *"),
]


def runs_of(instant: datetime, *timetables: Any) -> Iterator[datetime]:
    """Yield the dates of the runs that the scheduler creates after an instant."""
    date = pendulum.instance(instant)
    while True:
        date = min(timetable._get_next(date) for timetable in timetables)
        yield date


def runs_through(change: datetime, *timetables: Any) -> list[datetime]:
    """Return the run dates from two hours before a clock change until three hours after it, at least three."""
    runs = runs_of(change - timedelta(hours=2), *timetables)
    return [*islice(runs, 3), *takewhile(lambda date: date < change + timedelta(hours=3), runs)]


def found(schedule: CronSchedule | MultipleCronSchedule, dates: list[datetime]) -> list[set[datetime]]:
    """Return the run dates found before each date except the first, from the date and from two earlier instants."""
    smallest = timedelta(microseconds=1)
    return [
        {schedule.previous(date), schedule.floor(date - smallest), schedule.floor(before + (date - before) / 2)}
        for before, date in pairwise(dates)
    ]


@pytest.mark.parametrize(("zone", "change"), CHANGES)
@pytest.mark.parametrize("cron", DENSE)
def test_all_run_dates_near_a_clock_change(cron: str, zone: str, change: str) -> None:
    """Each run's window begins at the previous run date, also with many runs per hour."""
    timetable = core.CronTriggerTimetable(cron, timezone=zone)
    schedule, _ = parse_timetable(timetable)
    dates = runs_through(datetime.fromisoformat(change), timetable)
    assert [{date} for date in dates[:-1]] == found(schedule, dates)


@pytest.mark.parametrize(("zone", "change"), CHANGES)
@pytest.mark.parametrize("crons", SEVERAL, ids=" and ".join)
def test_all_run_dates_of_several_crons(crons: tuple[str, ...], zone: str, change: str) -> None:
    """A run of one expression can remove a later run of another expression."""
    timetable = core.MultipleCronTriggerTimetable(*crons, timezone=zone)
    schedule, _ = parse_timetable(timetable)
    dates = runs_through(datetime.fromisoformat(change), *timetable._timetables)
    assert [{date} for date in dates[:-1]] == found(schedule, dates)


@pytest.mark.parametrize(
    "cron", ["0 0 */10 * *", "0 0 */2 * *", "0 0 1,15,31 * *", "0 17 26,29,30 1-6 *", "30 2 29 * sun", "0 */8 L * *"]
)
def test_run_dates_at_ends_of_months(cron: str) -> None:
    """The windows are contiguous, although croniter before 6.2 may skip 1 March forward and a leap day backward."""
    timetable = core.CronTriggerTimetable(cron, timezone="UTC")
    schedule, _ = parse_timetable(timetable)
    dates = list(islice(runs_of(datetime(2019, 12, 31, 12, tzinfo=UTC), timetable), 60))
    assert [{date} for date in dates[:-1]] == found(schedule, dates)


class Steps:
    """Count the calls of croniter, which are the cost of finding a window."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = self.parsed = 0
        for name in ("get_next", "get_prev", "__init__"):
            monkeypatch.setattr(croniter, name, self._count(name, getattr(croniter, name)))

    def _count(self, name: str, function: Any) -> Any:
        def counting(*args: Any, **kwargs: Any) -> Any:
            self.parsed += name == "__init__"
            self.taken += name != "__init__"
            return function(*args, **kwargs)

        return counting


@pytest.mark.parametrize(("zone", "change"), CHANGES)
@pytest.mark.parametrize("cron", [*DENSE, "0 0 * * *", "0 6 * * 1-5", "0 0 29 2 *"])
def test_window_is_found_in_a_few_steps(cron: str, zone: str, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost depends neither on the number of runs per hour nor on the distance to a clock change."""
    schedule = CronSchedule(expression=cron, zone=ZoneInfo(zone))
    steps = Steps(monkeypatch)
    for minutes in range(-90, 240, 7):
        steps.taken = 0
        schedule.previous(datetime.fromisoformat(change) + timedelta(minutes=minutes))
        assert 1 <= steps.taken <= 10
    assert steps.parsed <= 1


def test_threads_do_not_affect_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread can be interrupted while another thread computes a window with the same expression."""
    schedule = CronSchedule(expression="0 0 * * *", zone=ZoneInfo("UTC"))
    step, interrupted = croniter.get_prev, []

    def other_thread_first(cron: croniter, *args: Any) -> Any:
        if not interrupted:
            interrupted.append(schedule.previous)
            schedule.previous(datetime(2030, 1, 1, tzinfo=UTC))
        return step(cron, *args)

    monkeypatch.setattr(croniter, "get_prev", other_thread_first)
    assert datetime(2026, 1, 1, tzinfo=UTC) == schedule.previous(datetime(2026, 1, 2, tzinfo=UTC))
    assert interrupted


class TestYears:
    """Croniter supports a seventh field with years, so a schedule can have a first and a last run date."""

    SCHEDULE = CronSchedule(expression="0 0 1 1 * 0 2024-2026", zone=UTC)

    def test_last_date_has_an_earlier_one(self) -> None:
        last = datetime(2026, 1, 1, tzinfo=UTC)
        assert datetime(2025, 1, 1, tzinfo=UTC) == self.SCHEDULE.previous(last)
        assert last == self.SCHEDULE.floor(last) == self.SCHEDULE.floor(datetime(2026, 11, 30, tzinfo=UTC))

    def test_first_date_has_no_earlier_one(self) -> None:
        with pytest.raises(WindowError, match="no earlier run date") as caught:
            self.SCHEDULE.previous(datetime(2024, 1, 1, tzinfo=UTC))
        assert "window_start and window_end" in str(caught.value.remedy)

    def test_last_date_has_no_later_one(self) -> None:
        with pytest.raises(WindowError, match="no later run date"):
            self.SCHEDULE.next(datetime(2026, 1, 1, tzinfo=UTC))

    def test_another_cron_continues(self) -> None:
        both = MultipleCronSchedule(schedules=(self.SCHEDULE, CronSchedule(expression="0 0 2 1 *", zone=UTC)))
        assert datetime(2027, 1, 2, tzinfo=UTC) == both.next(datetime(2026, 1, 2, tzinfo=UTC))
        assert datetime(2023, 1, 2, tzinfo=UTC) == both.previous(datetime(2024, 1, 1, tzinfo=UTC))
        assert datetime(2026, 1, 2, tzinfo=UTC) == both.floor(datetime(2026, 11, 30, tzinfo=UTC))
