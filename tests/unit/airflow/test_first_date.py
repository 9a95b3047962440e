# SPDX-License-Identifier: Apache-2.0
"""The first date before a range, from which its windows are computed, for custom timetables."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable

from airflow_flowservice._airflow.dag_coverage import first_date
from airflow_flowservice._airflow.dag_plan import Plan
from airflow_flowservice.cli.planned_windows import runs_of_windows

MONDAY = datetime(2026, 1, 5, tzinfo=timezone.utc)
DAY = timedelta(days=1)


class Weekly(Timetable):
    """Data intervals from Monday to Monday."""

    def infer_manual_data_interval(self, *, run_after: Any) -> DataInterval:
        end = run_after.start_of("week")
        return DataInterval(end.subtract(weeks=1), end)

    def next_dagrun_info(self, *, last_automated_data_interval: Any, restriction: Any) -> DagRunInfo | None:
        if last_automated_data_interval is not None:
            start = last_automated_data_interval.end
        else:
            week = restriction.earliest.start_of("week")
            start = week if week == restriction.earliest else week.add(weeks=1)
        if restriction.latest is not None and start > restriction.latest:
            return None
        return DagRunInfo.interval(start=start, end=start.add(weeks=1))


class Failing(Weekly):
    """A custom timetable with a fault."""

    def infer_manual_data_interval(self, *, run_after: Any) -> DataInterval:
        raise ZeroDivisionError


class Distant(Weekly):
    """A custom timetable whose interval begins long before."""

    def infer_manual_data_interval(self, *, run_after: Any) -> DataInterval:
        return DataInterval(run_after.subtract(years=30), run_after)


@pytest.mark.parametrize("day", range(8))
def test_window_across_the_begin_is_included(day: int) -> None:
    """A range that begins and ends within a week has the window of this week."""
    begin = MONDAY + day * DAY
    runs = list(runs_of_windows(Plan(dag_id="a", timetable=Weekly()), begin=begin, end=begin + timedelta(hours=1)))
    assert [MONDAY + day // 7 * 7 * DAY] == [each.data_interval_start for each in runs]


@pytest.mark.parametrize("timetable", [Failing(), Distant()])
def test_begin_without_an_interval(timetable: Timetable) -> None:
    """A timetable that infers no near data interval leaves the begin as it is."""
    assert first_date(Plan(dag_id="a", timetable=timetable), (), MONDAY) == MONDAY
