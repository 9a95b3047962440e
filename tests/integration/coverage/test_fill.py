# SPDX-License-Identifier: Apache-2.0
"""Verify that the fill commands, parsed by Airflow, create exactly the missing windows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

import pendulum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_flowservice._airflow import choose_window, database, versions
from airflow_flowservice._airflow.backfill_commands import fill_commands
from airflow_flowservice._airflow.dag_coverage import coverage_of
from airflow_flowservice._airflow.dag_plan import Plan
from airflow_flowservice._airflow.dag_runs import _run_dates
from airflow_flowservice._airflow.database import TaskRow
from airflow_flowservice.coverage.cover import State
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.coverage.conftest import BEGIN, DAY, summary

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def _cron(expression: str, zone: str = "Europe/Zurich") -> Any:
    from airflow.timetables.trigger import CronTriggerTimetable

    return CronTriggerTimetable(expression, timezone=zone)


def _data_interval(expression: str, zone: str = "Europe/Zurich") -> Any:
    from airflow.timetables.interval import CronDataIntervalTimetable

    return CronDataIntervalTimetable(expression, timezone=zone)


def _partitions(zone: str, expression: str = "0 0 * * *") -> Any:
    from airflow.timetables import trigger

    if not hasattr(trigger, "CronPartitionTimetable"):
        pytest.skip("Airflow has partitioned timetables since 3.2")
    return trigger.CronPartitionTimetable(expression, timezone=zone, run_offset=-1)


def _delta(hours: int) -> Any:
    from airflow.timetables.trigger import DeltaTriggerTimetable

    return DeltaTriggerTimetable(timedelta(hours=hours))


def _delta_interval(hours: int) -> Any:
    from airflow.timetables.interval import DeltaDataIntervalTimetable

    return DeltaDataIntervalTimetable(timedelta(hours=hours))


def _several() -> Any:
    from airflow.timetables.trigger import MultipleCronTriggerTimetable

    return MultipleCronTriggerTimetable("0 6 * * *", "30 18 * * 1-5", timezone="Europe/Zurich")


SCHEDULES: dict[str, Callable[[], Any]] = {
    "daily": lambda: _cron("0 0 * * *", "UTC"),
    "daily in Zurich": lambda: _cron("0 0 * * *"),
    "hourly in Zurich": lambda: _cron("0 * * * *"),
    "every twenty minutes": lambda: _cron("*/20 * * * *", "UTC"),
    "data intervals": lambda: _data_interval("0 0 * * *"),
    "weekly data intervals": lambda: _data_interval("0 5 * * 1"),
    "several crons": _several,
    "partitions in Zurich": lambda: _partitions("Europe/Zurich"),
    "partitions in New York": lambda: _partitions("America/New_York"),
    "partitions of an hour in Kolkata": lambda: _partitions("Asia/Kolkata", "0 * * * *"),
    "six hours": lambda: _delta(6),
    "intervals of six hours": lambda: _delta_interval(6),
}


# Schedules with many dates take long, so the quick selection omits them.
_MANY_DATES = ("hourly in Zurich", "every twenty minutes", "partitions of an hour in Kolkata")
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in _MANY_DATES else name for name in SCHEDULES]


@pytest.mark.parametrize("offset", [None, -6 * HOUR], ids=["", "moved"])
@pytest.mark.parametrize("name", NAMES)
def test_backfill_creates_exactly_the_missing_windows(
    name: str, offset: timedelta | None, session: Any, ran: Any
) -> None:
    """Around a clock change, windows before and after the gap are not created again."""
    timetable = SCHEDULES[name]()
    partitioned = getattr(timetable, "partitioned", False)
    # Deltas start at three o'clock.
    first = BEGIN - 60 * DAY if "weekly" in name else datetime(2026, 3, 26, 3, tzinfo=timezone.utc)
    # Schedules with many dates need fewer days around the clock change of 29 March.
    last = first + 5 * DAY if name in _MANY_DATES else datetime(2026, 4, 12, tzinfo=timezone.utc)
    infos = _infos(timetable, first, last)
    existing = [info for number, info in enumerate(infos) if number % 10 not in (4, 5) and 6 <= number]
    for number, info in enumerate(existing):
        window = _window(timetable, info, offset)
        ran(
            info.run_after if partitioned else info.logical_date,
            dated=not partitioned,
            partition_date=info.partition_date if partitioned else None,
            interval=info.data_interval.end - info.data_interval.start if info.data_interval else timedelta(0),
            pushed=summary(number, window.start, window.end),
        )
    windows = [_window(timetable, info, offset) for info in existing]
    within = IngestionWindow(windows[0].start, windows[-1].end)

    rows = list(database.task_rows(session, dag_ids=["daily"]))
    plan = Plan(dag_id="daily", timetable=timetable, offset=offset)
    coverage = coverage_of(rows, plans=[plan], within=within, now=NOW)

    missing = [span.window for span in coverage.spans if span.state is State.MISSING]
    expected = [_window(timetable, info, offset) for info in infos if info not in existing]
    assert [window for window in expected if window.overlaps(within)] == missing
    filled = [
        _window(timetable, info, offset)
        for command in fill_commands(coverage, dag_id="daily")
        for info in _infos(timetable, *_parsed(command))
    ]
    assert missing == filled
    assert missing


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_every_missing_window_is_found(name: str, data: st.DataObject) -> None:
    """Missing windows around a clock change are found, whether or not the timetable computes their dates."""
    timetable = SCHEDULES[name]()
    infos, windows = _spring(name)
    numbers = range(len(infos))
    lost = data.draw(st.sets(st.sampled_from(numbers[1:-1]), max_size=12), label="lost")
    mapped = data.draw(st.sets(st.sampled_from(numbers), max_size=3), label="mapped, with another window")
    rows = [
        _row(
            infos[number],
            windows[number] if index < 0 else IngestionWindow(BEGIN - 300 * DAY, BEGIN - 299 * DAY),
            timetable=timetable,
            map_index=index,
        )
        for number in numbers
        if number not in lost
        for index in ((-1, 0) if number in mapped else (-1,))
    ]
    within = IngestionWindow(windows[0].start, windows[-1].end)
    coverage = coverage_of(rows, plans=[Plan(dag_id="daily", timetable=timetable)], within=within, now=NOW)

    missing = [span.window for span in coverage.spans if span.state is State.MISSING]
    assert [windows[number] for number in sorted(lost)] == missing


def test_dates_are_computed_only_near_missing_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's timetables are slow, so contiguous DAG runs are skipped."""
    infos, windows = _spring("hourly in Zurich")
    timetable = SCHEDULES["hourly in Zurich"]()
    rows = [
        _row(info, window, timetable=timetable)
        for number, (info, window) in enumerate(zip(infos, windows, strict=True))
        if number != 200
    ]
    computed = []
    original = versions.run_infos

    def run_infos(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for info in original(*args, **kwargs):
            computed.append(info)
            yield info

    monkeypatch.setattr(versions, "run_infos", run_infos)
    plan = Plan(dag_id="daily", timetable=timetable)
    within = IngestionWindow(windows[0].start, windows[-1].end)
    coverage = coverage_of(rows, plans=[plan], within=within, now=NOW)
    assert [windows[200]] == [span.window for span in coverage.spans if span.state is State.MISSING]
    assert 1 <= len(computed) < 10


def _spring(name: str) -> tuple[list[Any], list[IngestionWindow]]:
    """Return a schedule's DAG runs around the clock change in spring, and their windows."""
    timetable = SCHEDULES[name]()
    first = BEGIN - 60 * DAY if "weekly" in name else datetime(2026, 3, 26, 3, tzinfo=timezone.utc)
    infos = list(islice(_infos(timetable, first, datetime(2026, 4, 12, tzinfo=timezone.utc)), 260))
    return infos, [_window(timetable, info, None) for info in infos]


def _row(info: Any, window: IngestionWindow, *, timetable: Any, map_index: int = -1) -> TaskRow:
    """Create the row of a scheduled DAG run with a succeeded task."""
    return TaskRow(
        dag_id="daily",
        run_id=f"scheduled__{info.run_after.isoformat()}",
        run_state="success",
        task_id="ingest",
        map_index=map_index,
        state="success",
        run_type="scheduled",
        conf={},
        dates=_run_dates(info, timetable),
        creates=True,
        flow_run=FlowRunSummary.from_json(summary(int(window.start.timestamp()), window.start, window.end)),
    )


@pytest.mark.parametrize("name", ["data intervals", "partitions in Zurich", "partitions in New York", "six hours"])
def test_window_across_the_start_is_cut(name: str, session: Any) -> None:
    """The range need not begin at the start of a window."""
    within = IngestionWindow(BEGIN + timedelta(minutes=150), BEGIN + 3 * DAY)
    coverage = coverage_of([], plans=[Plan(dag_id="daily", timetable=SCHEDULES[name]())], within=within, now=NOW)
    assert within.start == coverage.spans[0].window.start
    assert within.end == coverage.spans[-1].window.end


@pytest.mark.parametrize("name", ["daily", "data intervals", "six hours", "partitions in New York"])
def test_no_dag_run_is_expected_outside_the_dates_of_the_dag(name: str, session: Any) -> None:
    """The schedule creates no DAG run before `start_date` or after `end_date`."""
    timetable = SCHEDULES[name]()
    start, end = BEGIN + 2 * DAY, BEGIN + 5 * DAY
    plan = Plan(dag_id="daily", timetable=timetable, start=start, end=end)
    coverage = coverage_of([], plans=[plan], within=IngestionWindow(BEGIN, BEGIN + 9 * DAY), now=NOW)
    dates = [each.date for span in coverage.spans for each in span.expected]
    assert dates
    assert [] == [date for date in dates if not start <= date <= end]


@pytest.mark.parametrize("kind", [pendulum.instance, lambda instant: instant], ids=["pendulum's", "plain"])
def test_deltas_without_dag_runs_start_with_the_dag(kind: Any, session: Any) -> None:
    """The dates are computed from `start_date`, as in Airflow's scheduler."""
    start = kind(BEGIN - 40 * DAY + timedelta(hours=3))
    plan = Plan(dag_id="daily", timetable=_delta(6), start=start)
    coverage = coverage_of([], plans=[plan], within=IngestionWindow(BEGIN, BEGIN + DAY), now=NOW)
    assert [0, 3, 9, 15, 21] == [span.window.start.hour for span in coverage.spans]


@pytest.mark.parametrize("zone", ["Africa/Cairo", "America/Santiago", "Europe/Zurich"])
def test_failed_partitions_have_the_windows_of_their_tasks(zone: str, session: Any, ran: Any) -> None:
    """This also holds if a clock change skips or repeats midnight, for which Airflow 3.2 stores another date."""
    timetable = _partitions(zone)
    changes = {"Africa/Cairo": (4, 20), "America/Santiago": (9, 2), "Europe/Zurich": (3, 26)}
    first = datetime(2026, *changes[zone], tzinfo=timezone.utc)
    for info in _infos(timetable, first, first + 8 * DAY):
        date = info.partition_date
        ran(info.run_after, dated=False, partition_date=date, state="failed", run_state="failed", run_type="scheduled")
    within = IngestionWindow(first + 2 * DAY, first + 6 * DAY)
    rows = list(database.task_rows(session, dag_ids=["daily"]))
    now = first + 30 * DAY
    coverage = coverage_of(rows, plans=[Plan(dag_id="daily", timetable=timetable)], within=within, now=now)
    assert {State.FAILED} == {span.state for span in coverage.spans}
    assert {1} == {len(span.expected) for span in coverage.spans}


def _infos(timetable: Any, first: datetime, last: datetime) -> list[Any]:
    """Return the DAG runs that `airflow backfill create` creates (`iter_dagrun_infos_between` of Airflow's DAG)."""
    from airflow.timetables.base import TimeRestriction

    earliest, latest = pendulum.instance(first), pendulum.instance(last)
    if getattr(timetable, "partitioned", False) and hasattr(timetable, "iter_partition_dagrun_infos"):  # since 3.3
        return list(timetable.iter_partition_dagrun_infos(earliest=earliest, latest=latest))
    found: list[Any] = []
    restriction = TimeRestriction(earliest, latest, catchup=True)
    while True:
        last_info = found[-1] if found else None
        if hasattr(timetable, "next_dagrun_info_v2"):
            info = timetable.next_dagrun_info_v2(last_dagrun_info=last_info, restriction=restriction)
        else:
            interval = last_info.data_interval if last_info else None
            info = timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
        if info is None:
            return found
        found.append(info)


def _window(timetable: Any, info: Any, offset: timedelta | None) -> IngestionWindow:
    return choose_window.window_of_run(timetable=timetable, dates=_run_dates(info, timetable), offset=offset)


def _parsed(command: str) -> tuple[datetime, datetime]:
    from airflow.cli.cli_parser import get_parser

    program, *arguments = shlex.split(command)
    assert "airflow" == program
    options = get_parser().parse_args(arguments)
    assert (["backfill", "create"], "daily") == (arguments[:2], options.dag_id)
    return options.from_date, options.to_date
