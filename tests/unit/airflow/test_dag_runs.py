# SPDX-License-Identifier: Apache-2.0
"""The dates of a cron's DAG runs are those of Airflow's timetable, which steps only near clock changes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

import pendulum
import pytest
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice._airflow import dag_runs, timetables, versions

CRONS = ["0 * * * *", "*/7 * * * *", "0 0 * * *", "30 2 * * *", "0 1,2,3 * * *", "*/30 1-3 * * *", "30 */2 * * *"]
CRONS += ["0 0 29 2 *", "0 0 31 * *", "0 0 * * 1-5", "0 * 1 * *", "0 0 1 */3 *", "30 1 * 10,11 *", "0 0,12 * * *"]
ZONES = ["UTC", "Europe/Zurich", "Australia/Lord_Howe", "America/New_York", "Pacific/Apia", "Africa/Casablanca"]
# Shortly before clock changes, the skipped day of Samoa, and a leap day.
STARTS = [
    datetime(2011, 12, 28, tzinfo=timezone.utc),
    datetime(2024, 2, 27, tzinfo=timezone.utc),
    datetime(2024, 10, 26, 0, 30, tzinfo=timezone.utc),
    datetime(2025, 3, 29, 22, tzinfo=timezone.utc),
    datetime(2025, 4, 5, tzinfo=timezone.utc),
]
TIMETABLES = {
    "trigger": CronTriggerTimetable,
    "trigger with an interval": lambda cron, **zone: CronTriggerTimetable(cron, interval=timedelta(hours=1), **zone),
    "data interval": CronDataIntervalTimetable,
    "several crons": lambda cron, **zone: MultipleCronTriggerTimetable(cron, "30 1 * * *", "0 12 * * 1-5", **zone),
}
LENGTH = 60


def first_dates(dates: Any) -> Any:
    """Return the first dates, and the error after them, if there is one."""
    found: list[Any] = []
    try:
        found.extend(islice(dates, LENGTH))
    except ValueError as error:  # an interval that ends before it begins
        return found, type(error)
    return found, None


def by_airflow(timetable: Any, start: datetime) -> Any:
    infos = versions.run_infos(timetable, earliest=pendulum.instance(start), latest=None)
    return first_dates(dag_runs._run_dates(info, timetable) for info in infos)


@given(
    kind=st.sampled_from(list(TIMETABLES)),
    cron=st.sampled_from(CRONS),
    zone=st.sampled_from(ZONES),
    start=st.sampled_from(STARTS),
)
def test_same_dates_as_the_timetable(kind: str, cron: str, zone: str, start: datetime) -> None:
    """So is the run date before each of them, which is the begin of its window."""
    timetable = TIMETABLES[kind](cron, timezone=zone)
    found = first_dates(dag_runs.dates_between(timetable, earliest=start, latest=None))
    assert by_airflow(timetable, start) == found
    schedule, _ = timetables.parse_timetable(timetable)
    assert schedule is not None
    for dates in islice((each for each in found[0] if each.preceding), 10):
        assert schedule.previous(dates.run_after) == dates.preceding


def test_the_timetable_is_not_asked_far_from_clock_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow computes the first two DAG runs, and those within a day of the clock change."""
    asked: list[Any] = []
    original = versions._next_info

    def counted(*arguments: Any) -> Any:
        asked.append(original(*arguments))
        return asked[-1]

    monkeypatch.setattr(versions, "_next_info", counted)
    timetable = CronDataIntervalTimetable("0 * * * *", timezone="Europe/Zurich")
    start = datetime(2025, 3, 1, tzinfo=timezone.utc)
    assert 24 * 60 == len(list(islice(dag_runs.dates_between(timetable, earliest=start, latest=None), 24 * 60)))
    change = datetime(2025, 3, 30, 1, tzinfo=timezone.utc)
    near = [info.run_after for info in asked[2:]]
    assert change in near
    assert len(near) < 60
    assert all(abs(date - change) <= timedelta(days=1, hours=1) for date in near)


class Weekdays(CronTriggerTimetable):
    """A custom timetable without weekends."""

    def next_dagrun_info(self, **arguments: Any) -> Any:
        info = super().next_dagrun_info(**arguments)
        while info and info.run_after.weekday() >= 5:
            info = super().next_dagrun_info(
                last_automated_data_interval=info.data_interval, restriction=arguments["restriction"]
            )
        return info


def test_a_custom_timetable_computes_all_dates() -> None:
    timetable = Weekdays("0 0 * * *", timezone="UTC")
    start = datetime(2026, 1, 5, tzinfo=timezone.utc)
    dates = list(islice(dag_runs.dates_between(timetable, earliest=start, latest=None), 15))
    assert {0, 1, 2, 3, 4} == {each.run_after.weekday() for each in dates}
