"""The commands that fill gaps: parsed by Airflow's own parser, their runs' windows are exactly the missing ones."""

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
from airflow_flowservice._airflow.dag_coverage import Plan, coverage_of
from airflow_flowservice._airflow.dag_runs import _dates
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
            info.run_after if partitioned else info.logical_date,
            dated=not partitioned,
            partition_date=info.partition_date if partitioned else None,
            interval=info.data_interval.end - info.data_interval.start if info.data_interval else timedelta(0),
            pushed=summary(number, window.start, window.end),
        )
    have = [_window(timetable, info, offset) for info in made]
    within = IngestionWindow(have[0].start, have[-1].end)

    rows = list(database.task_rows(session, dag_ids=["daily"]))
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


@pytest.mark.parametrize("name", SCHEDULES)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_whatever_is_missing_is_found(name: str, data: st.DataObject) -> None:
    """Any of a schedule's windows, over a change of the clocks, whether or not the scheduler counts them."""
    timetable = SCHEDULES[name]()
    infos, windows = _spring(name)
    numbers = range(len(infos))
    lost = data.draw(st.sets(st.sampled_from(numbers[1:-1]), max_size=12), label="lost")
    twice = data.draw(st.sets(st.sampled_from(numbers), max_size=3), label="mapped, with a window of its own")
    rows = [
        _row(
            infos[number],
            windows[number] if index < 0 else IngestionWindow(BEGIN - 300 * DAY, BEGIN - 299 * DAY),
            timetable=timetable,
            map_index=index,
        )
        for number in numbers
        if number not in lost
        for index in ((-1, 0) if number in twice else (-1,))
    ]
    within = IngestionWindow(windows[0].start, windows[-1].end)
    coverage = coverage_of(rows, plans=[Plan(dag_id="daily", timetable=timetable)], within=within, now=NOW)

    missing = [span.window for span in coverage.spans if span.state is State.MISSING]
    assert [windows[number] for number in sorted(lost)] == missing


def test_the_scheduler_counts_only_where_something_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its counting is slow, and of a year of hours nearly all are in."""
    infos, windows = _spring("hourly in Zurich")
    timetable = SCHEDULES["hourly in Zurich"]()
    rows = [
        _row(info, window, timetable=timetable)
        for number, (info, window) in enumerate(zip(infos, windows, strict=True))
        if number != 200
    ]
    counted = []
    count = versions.run_infos

    def run_infos(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for info in count(*args, **kwargs):
            counted.append(info)
            yield info

    monkeypatch.setattr(versions, "run_infos", run_infos)
    plan = Plan(dag_id="daily", timetable=timetable)
    within = IngestionWindow(windows[0].start, windows[-1].end)
    coverage = coverage_of(rows, plans=[plan], within=within, now=NOW)
    assert [windows[200]] == [span.window for span in coverage.spans if span.state is State.MISSING]
    assert 1 <= len(counted) < 10


def _spring(name: str) -> tuple[list[Any], list[IngestionWindow]]:
    """A schedule's runs around the change of the clocks, and their windows."""
    timetable = SCHEDULES[name]()
    first = BEGIN - 60 * DAY if "weekly" in name else datetime(2026, 3, 26, 3, tzinfo=timezone.utc)
    infos = list(islice(_infos(timetable, first, datetime(2026, 4, 12, tzinfo=timezone.utc)), 260))
    return infos, [_window(timetable, info, None) for info in infos]


def _row(info: Any, window: IngestionWindow, *, timetable: Any, map_index: int = -1) -> TaskRow:
    """What the database has of a scheduled run whose task succeeded."""
    return TaskRow(
        dag_id="daily",
        run_id=f"scheduled__{info.run_after.isoformat()}",
        run_state="success",
        task_id="ingest",
        map_index=map_index,
        state="success",
        run_type="scheduled",
        conf={},
        dates=_dates(info, timetable),
        creates=True,
        flow_run=FlowRunSummary.from_json(summary(int(window.start.timestamp()), window.start, window.end)),
    )


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


@pytest.mark.parametrize("kind", [pendulum.instance, lambda moment: moment], ids=["pendulum's", "plain"])
def test_deltas_without_any_run_are_counted_from_the_dags_start(kind: Any, session: Any) -> None:
    """As the scheduler counts them."""
    start = kind(BEGIN - 40 * DAY + timedelta(hours=3))
    plan = Plan(dag_id="daily", timetable=_delta(6), start=start)
    coverage = coverage_of([], plans=[plan], within=IngestionWindow(BEGIN, BEGIN + DAY), now=NOW)
    assert [0, 3, 9, 15, 21] == [span.window.start.hour for span in coverage.spans]


@pytest.mark.parametrize("zone", ["Africa/Cairo", "America/Santiago", "Europe/Zurich"])
def test_partitions_that_failed_are_where_their_tasks_looked_for_them(zone: str, session: Any, ran: Any) -> None:
    """Also where midnight itself is left out or comes twice, of which Airflow 3.2 keeps another date."""
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
    assert {1} == {len(span.asked) for span in coverage.spans}


def _infos(timetable: Any, first: datetime, last: datetime) -> list[Any]:
    """What `airflow backfill create` makes of these dates (`iter_dagrun_infos_between` of Airflow's DAG)."""
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
    return choose_window.window_of_run(timetable=timetable, dates=_dates(info, timetable), offset=offset)


def _parsed(command: str) -> tuple[datetime, datetime]:
    from airflow.cli.cli_parser import get_parser

    program, *arguments = shlex.split(command)
    assert "airflow" == program
    options = get_parser().parse_args(arguments)
    assert (["backfill", "create"], "daily") == (arguments[:2], options.dag_id)
    return options.from_date, options.to_date
