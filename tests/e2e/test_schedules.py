# SPDX-License-Identifier: Apache-2.0
"""Contiguous windows on a real Airflow: schedules in Zurich's time zone, across both clock changes of 2026."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from instants import instant

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    Verdict = Callable[[str, datetime, datetime], tuple[int, int]]

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
ZURICH = ZoneInfo("Europe/Zurich")


def utc(*parts: int) -> datetime:
    """Return an aware UTC datetime of the year 2026."""
    return datetime(2026, *parts, tzinfo=timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """Arguments of `airflow backfill create`, and the span that its windows must cover.

    :param span: start and end (UTC); both are logical dates of the schedule.
    :param runs: number of DAG runs that the backfill must create.
    :param scheduled: number of DAG runs of the span that the scheduler creates before the backfill.
    :param since: first Airflow version whose backfills support these dates.
    """

    dag_id: str
    span: tuple[datetime, datetime]
    runs: int
    scheduled: int = 0
    max_active_runs: int = 16
    run_backwards: bool = False
    since: tuple[int, int] = (3, 0)

    @property
    def dates(self) -> tuple[datetime, datetime]:
        """Return the first and last date for `airflow backfill create`.

        The date of a DAG run is the end of its window; the date of a partition is the start of its window.
        For partitions, Airflow ignores the UTC offset of a date and reads it in the time zone of the schedule.
        """
        start, end = self.span
        if self.dag_id != "e2e_partitions":
            return start + SECOND, end
        first, last = (edge.astimezone(ZURICH).replace(tzinfo=timezone.utc) for edge in (start, end))
        return first, last - SECOND


SPRING, AUTUMN = (utc(3, 28, 22), utc(3, 29, 4)), (utc(10, 24, 22), utc(10, 25, 4))
DAY_OF_25_HOURS = utc(10, 24, 22), utc(10, 25, 23)
BACKFILLS = (
    Backfill(dag_id="e2e_spring_backwards", span=SPRING, runs=6, max_active_runs=1, run_backwards=True),
    Backfill(dag_id="e2e_autumn_forwards", span=AUTUMN, runs=6, max_active_runs=1),
    Backfill(dag_id="e2e_spring_forwards", span=SPRING, runs=6),
    Backfill(dag_id="e2e_autumn_backwards", span=DAY_OF_25_HOURS, runs=25, run_backwards=True),
    Backfill(dag_id="e2e_crons", span=(utc(10, 24, 22), utc(10, 25, 3)), runs=6),
    Backfill(dag_id="e2e_events", span=(utc(10, 24, 22), utc(10, 25, 3)), runs=3),
    Backfill(dag_id="e2e_partitions", span=AUTUMN, runs=4, scheduled=2, since=(3, 3)),
    Backfill(dag_id="e2e_asset_or_time", span=AUTUMN, runs=4, scheduled=2),
)


@pytest.fixture(scope="module")
def backfills_started(airflow: LocalAirflow, release: Callable[..., None]) -> None:
    """Start all backfills together, because each of them waits most of the time."""
    supported = [each for each in BACKFILLS if versions.version() >= each.since]
    for each in supported:
        release(each.dag_id)
    for each in supported:
        if each.scheduled:
            airflow.wait_for_runs(each.dag_id, count=each.scheduled, run_type="scheduled")
        first, last = each.dates
        airflow.create_backfill(
            each.dag_id,
            from_date=first,
            to_date=last,
            max_active_runs=each.max_active_runs,
            run_backwards=each.run_backwards,
        )


@pytest.mark.usefixtures("backfills_started")
@pytest.mark.parametrize(
    "case",
    [pytest.param(each, marks=pytest.mark.needs_airflow(*each.since, "partitions")) for each in BACKFILLS],
    ids=lambda each: each.dag_id.removeprefix("e2e_"),
)
def test_windows_are_contiguous(airflow: LocalAirflow, verdict: Verdict, case: Backfill) -> None:
    """Each record of the span is ingested exactly once, and no record of the hours before and after it is ingested."""
    runs = airflow.wait_for_runs(case.dag_id, count=case.runs + case.scheduled, timeout=240)

    assert {"success"} == {run["state"] for run in runs}
    expected = ["backfill"] * case.runs + ["scheduled"] * case.scheduled
    assert expected == sorted(run["run_type"] for run in runs)
    start, end = case.span
    assert (0, 0) == verdict(case.dag_id, start, end)
    assert (120, 0) == verdict(case.dag_id, start - HOUR, end + HOUR)


@pytest.mark.usefixtures("backfills_started")
@pytest.mark.parametrize(
    "case", [each for each in BACKFILLS if each.max_active_runs == 1], ids=lambda each: each.dag_id
)
def test_runs_do_not_overlap(airflow: LocalAirflow, case: Backfill) -> None:
    """With `max_active_runs=1`, a DAG run starts after the previous one ended, in the requested order."""
    runs = airflow.wait_for_runs(case.dag_id, count=case.runs, timeout=240)

    in_order = sorted(runs, key=lambda run: instant(run["start_date"]))
    dates = [instant(run["run_after"]) for run in in_order]
    assert sorted(dates, reverse=case.run_backwards) == dates
    assert all(instant(one["end_date"]) <= instant(next_one["start_date"]) for one, next_one in pairwise(in_order))


def test_manual_runs_take_the_last_complete_hour(airflow: LocalAirflow, release: Callable[..., None]) -> None:
    """A manual DAG run takes the last complete hour before its logical date.

    Without a logical date, it takes the last complete hour before the time of the trigger.
    """
    release("e2e_manual")
    dates = [None, utc(3, 29, 1, 30), utc(10, 25, 1), utc(10, 25, 1, 59)]
    run_ids = [airflow.trigger("e2e_manual", logical_date=date) for date in dates]
    runs = {run["dag_run_id"]: run for run in airflow.wait_for_runs("e2e_manual", count=len(dates))}

    triggered = instant(runs[run_ids[0]]["run_after"]).replace(minute=0, second=0, microsecond=0)
    for run_id, end in zip(run_ids, [triggered, utc(3, 29, 1), utc(10, 25, 1), utc(10, 25, 1)], strict=True):
        flow_run = airflow.xcom("e2e_manual", run_id, "ingest", "flow_run")
        expected = tuple(f"{edge:%Y-%m-%dT%H:%M:%SZ}" for edge in (end - HOUR, end))
        assert expected == (flow_run["window_start"], flow_run["window_end"])
