# SPDX-License-Identifier: Apache-2.0
"""Subclasses of Airflow's timetables that change the dates, so that windows of Airflow's class would leave gaps."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable, DeltaTriggerTimetable

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
MONDAY = datetime(2026, 1, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)


class _Workdays:
    """Omits weekends, without a separate `next_dagrun_info`."""

    def _get_next(self, current):
        found = super()._get_next(current)
        return found if found.weekday() < 5 else self._get_next(found)

    def _get_prev(self, current):
        found = super()._get_prev(current)
        return found if found.weekday() < 5 else self._get_prev(found)


class CronOnWorkdays(_Workdays, CronTriggerTimetable):
    """Cron without weekends, by a mix-in."""


class DeltaOnWorkdays(_Workdays, DeltaTriggerTimetable):
    """Delta without weekends."""


class IntervalsOfWorkdays(_Workdays, CronDataIntervalTimetable):
    """Data intervals without weekends."""


class AlignedToWorkdays(CronTriggerTimetable):
    """Cron whose first date is moved."""

    def _align_to_next(self, current):
        return super()._align_to_next(current)


@pytest.mark.parametrize(
    "schedule",
    [
        CronOnWorkdays("0 0 * * *", timezone="UTC"),
        DeltaOnWorkdays(DAY),
        AlignedToWorkdays("0 0 * * *", timezone="UTC"),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize("run_type", ["scheduled", "backfill", "manual"])
def test_run_without_a_data_interval_has_no_window(worker, emulator, schedule, run_type):
    """On Monday, the period of the cron begins on Sunday, so Friday to Sunday would never be ingested."""
    task = worker.task(
        OnDemandFlowRunOperator, flow_id=FLOW, schedule=schedule, date=MONDAY, run_type=run_type, retries=2
    )
    ended = task.run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, WindowError))
    assert type(schedule).__name__ in ended.error.message
    assert "window_start and window_end" in ended.error.remedy
    assert {} == emulator.ledger()["requests"]


def test_run_with_a_data_interval_has_it_as_window(worker, runs_of):
    friday = MONDAY - 3 * DAY
    task = worker.task(
        OnDemandFlowRunOperator,
        flow_id=FLOW,
        delta_column="updated_at",
        schedule=IntervalsOfWorkdays("0 0 * * *", timezone="UTC"),
        date=friday,
        interval=(friday, MONDAY),
    )
    assert "success" == task.run().state
    [run] = runs_of()
    assert ("2026-01-09T00:00:00Z", "2026-01-12T00:00:00Z") == (run["window_start"], run["window_end"])
