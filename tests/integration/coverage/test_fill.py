"""The commands that fill gaps: parsed by Airflow's own parser, their runs' windows are exactly the missing ones."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_flowservice import _metadata, _windows
from airflow_flowservice._coverage import Plan, coverage_of, fill_commands
from airflow_flowservice._runs import _dates
from airflow_flowservice.ingestion.coverage import State
from airflow_flowservice.ingestion.window import IngestionWindow
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


@pytest.mark.parametrize("offset", [None, -6 * HOUR], ids=["", "moved"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_backfill_makes_exactly_the_missing_windows(
    name: str, offset: timedelta | None, session: Any, ran: Any
) -> None:
    """Over a change of the clocks; what is there before and after the gap is not made again."""
    timetable = SCHEDULES[name]()
    partitioned = getattr(timetable, "partitioned", False)
    # Deltas are counted from a start of their own, at three o'clock.
    first = BEGIN - 60 * DAY if "weekly" in name else datetime(2026, 3, 26, 3, tzinfo=timezone.utc)
    infos = _infos(timetable, first, datetime(2026, 4, 12, tzinfo=timezone.utc))
    made = [info for number, info in enumerate(infos) if number % 10 not in (4, 5) and 6 <= number]
    for number, info in enumerate(made):
        window = _window(timetable, info, offset)
        ran(
            info.partition_date if partitioned else info.logical_date,
            dated=not partitioned,
            partition_date=info.partition_date if partitioned else None,
            interval=info.data_interval.end - info.data_interval.start if info.data_interval else timedelta(0),
            pushed=summary(number, window.start, window.end),
        )
    have = [_window(timetable, info, offset) for info in made]
    within = IngestionWindow(have[0].start, have[-1].end)

    rows = list(_metadata.task_rows(session, dag_ids=["daily"]))
    plan = Plan(dag_id="daily", timetable=timetable, offset=offset)
    coverage = coverage_of(rows, plans=[plan], within=within, now=NOW)

    missing = [span.window for span in coverage.spans if span.state is State.MISSING]
    expected = [_window(timetable, info, offset) for info in infos if info not in made]
    assert [window for window in expected if window.overlaps(within)] == missing
    filled = [
        _window(timetable, info, offset)
        for command in fill_commands(coverage, dag_id="daily")
        for info in _infos(timetable, *_parsed(command))
    ]
    assert missing == filled
    assert missing


@pytest.mark.parametrize("name", ["data intervals", "partitions in Zurich", "partitions in New York", "six hours"])
def test_a_window_that_sticks_out_is_asked_for_in_part(name: str, session: Any) -> None:
    """The span of time that is looked at need not begin where a window does."""
    within = IngestionWindow(BEGIN + timedelta(minutes=150), BEGIN + 3 * DAY)
    coverage = coverage_of([], plans=[Plan(dag_id="daily", timetable=SCHEDULES[name]())], within=within, now=NOW)
    assert within.start == coverage.spans[0].window.start
    assert within.end == coverage.spans[-1].window.end


@pytest.mark.parametrize("name", ["daily", "data intervals", "six hours", "partitions in New York"])
def test_no_run_is_expected_outside_of_the_dags_own_dates(name: str, session: Any) -> None:
    """The schedule makes none before its `start_date`, nor after its `end_date`."""
    timetable = SCHEDULES[name]()
    start, end = BEGIN + 2 * DAY, BEGIN + 5 * DAY
    plan = Plan(dag_id="daily", timetable=timetable, start=start, end=end)
    coverage = coverage_of([], plans=[plan], within=IngestionWindow(BEGIN, BEGIN + 9 * DAY), now=NOW)
    dates = [asked.date for span in coverage.spans for asked in span.asked]
    assert dates
    assert [] == [date for date in dates if not start <= date <= end]


def test_deltas_without_any_run_are_counted_from_the_dags_start(session: Any) -> None:
    """As the scheduler counts them."""
    start = BEGIN - 40 * DAY + timedelta(hours=3)
    plan = Plan(dag_id="daily", timetable=_delta(6), start=start)
    coverage = coverage_of([], plans=[plan], within=IngestionWindow(BEGIN, BEGIN + DAY), now=NOW)
    assert [0, 3, 9, 15, 21] == [span.window.start.hour for span in coverage.spans]


def _infos(timetable: Any, first: datetime, last: datetime) -> list[Any]:
    """What `airflow backfill create` makes of these dates (`iter_dagrun_infos_between` of Airflow's DAG)."""
    import pendulum
    from airflow.timetables.base import TimeRestriction

    earliest, latest = pendulum.instance(first), pendulum.instance(last)
    if getattr(timetable, "partitioned", False):
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
    return _windows.window_of_run(timetable=timetable, dates=_dates(info), offset=offset)


def _parsed(command: str) -> tuple[datetime, datetime]:
    from airflow.cli.cli_parser import get_parser

    program, *arguments = shlex.split(command)
    assert "airflow" == program
    options = get_parser().parse_args(arguments)
    assert (["backfill", "create"], "daily") == (arguments[:2], options.dag_id)
    return options.from_date, options.to_date
