"""Windows tile time on a real Airflow: schedules of Zurich, across both changes of its clocks in 2026."""

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
    """An aware moment of 2026."""
    return datetime(2026, *parts, tzinfo=timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """What `airflow backfill create` is asked for, and the span that its windows must fill.

    :param span: start and end; both are run dates of the schedule.
    :param runs: how many it must make.
    :param scheduled: how many runs of the span the scheduler has made before.
    :param since: the first Airflow whose backfills take these dates.
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
        """The dates to ask for: a run is known by the end of its window, a partition by the start.

        Airflow reads the dates of partitions on the schedule's own clock, whatever their offset says.
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
def begun(airflow: LocalAirflow, release: Callable[..., None]) -> None:
    """All backfills, under way side by side: most of them wait for most of the time."""
    here = [each for each in BACKFILLS if versions.version() >= each.since]
    for each in here:
        release(each.dag_id)
    for each in here:
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


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize(
    "asked",
    [pytest.param(each, marks=pytest.mark.needs_airflow(*each.since, "partitions")) for each in BACKFILLS],
    ids=lambda each: each.dag_id.removeprefix("e2e_"),
)
def test_windows_tile(airflow: LocalAirflow, verdict: Verdict, asked: Backfill) -> None:
    """Every record of the span is ingested once, and none of the hours beside it."""
    runs = airflow.wait_for_runs(asked.dag_id, count=asked.runs + asked.scheduled, timeout=240)

    assert {"success"} == {run["state"] for run in runs}
    expected = ["backfill"] * asked.runs + ["scheduled"] * asked.scheduled
    assert expected == sorted(run["run_type"] for run in runs)
    start, end = asked.span
    assert (0, 0) == verdict(asked.dag_id, start, end)
    assert (120, 0) == verdict(asked.dag_id, start - HOUR, end + HOUR)


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize(
    "asked", [each for each in BACKFILLS if each.max_active_runs == 1], ids=lambda each: each.dag_id
)
def test_runs_come_one_by_one(airflow: LocalAirflow, asked: Backfill) -> None:
    """With one active run at a time, the next begins when the last has ended, in the order that was asked for."""
    runs = airflow.wait_for_runs(asked.dag_id, count=asked.runs, timeout=240)

    in_order = sorted(runs, key=lambda run: instant(run["start_date"]))
    dates = [instant(run["run_after"]) for run in in_order]
    assert sorted(dates, reverse=asked.run_backwards) == dates
    assert all(instant(one["end_date"]) <= instant(next_one["start_date"]) for one, next_one in pairwise(in_order))


def test_manual_runs_take_the_last_complete_hour(airflow: LocalAirflow, release: Callable[..., None]) -> None:
    """Without a date it is the last hour that was over when it was triggered; with a date, the last one before that."""
    release("e2e_manual")
    dates = [None, utc(3, 29, 1, 30), utc(10, 25, 1), utc(10, 25, 1, 59)]
    run_ids = [airflow.trigger("e2e_manual", logical_date=date) for date in dates]
    runs = {run["dag_run_id"]: run for run in airflow.wait_for_runs("e2e_manual", count=len(dates))}

    triggered = instant(runs[run_ids[0]]["run_after"]).replace(minute=0, second=0, microsecond=0)
    for run_id, end in zip(run_ids, [triggered, utc(3, 29, 1), utc(10, 25, 1), utc(10, 25, 1)], strict=True):
        flow_run = airflow.xcom("e2e_manual", run_id, "ingest", "flow_run")
        expected = tuple(f"{edge:%Y-%m-%dT%H:%M:%SZ}" for edge in (end - HOUR, end))
        assert expected == (flow_run["window_start"], flow_run["window_end"])
