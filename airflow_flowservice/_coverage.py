"""A dataflow's coverage, from what Airflow's database, a schedule and Flow Service say; for command line and page."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice import _runs, _windows
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.ingestion.asked import named_window
from airflow_flowservice.ingestion.coverage import Asked, Coverage, cover, gaps, known_runs, window_of_summary

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from airflow_flowservice._metadata import TaskRow
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ingestion.coverage import Span
    from airflow_flowservice.ingestion.schedule import RunDates
    from airflow_flowservice.ingestion.window import IngestionWindow

_ENOUGH = 20
_OF_THE_SCHEDULE = ("scheduled", "backfill")
# A year of five-minute windows; more is neither drawn nor read.
MOST_WINDOWS = 110_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a DAG's schedule asks for.

    :param timetable: the core's; None if nobody knows it.
    :param offset: the task's `window_offset`; None takes the one that its earlier windows show.
    """

    dag_id: str
    timetable: Any = None
    offset: timedelta | None = None


def coverage_of(
    rows: Iterable[TaskRow],
    *,
    plans: Iterable[Plan],
    within: IngestionWindow,
    now: datetime,
    found: Iterable[FlowRun] = (),
) -> Coverage:
    """What became of the time within, as far as windows were asked for there.

    :param rows: of the tasks that feed the dataflow.
    :param plans: one for each DAG among them; windows that a schedule has and no DAG run took are missing.
    :param now: aware; windows that end later are not asked for yet.
    :param found: what Flow Service has of the dataflow, if it could be asked.
    """
    rows = list(rows)
    asked: list[Asked] = []
    for plan in plans:
        own = [row for row in rows if row.dag_id == plan.dag_id]
        offset = plan.offset if plan.offset is not None else _offset_shown(own, plan)
        made = [each for row in own if row.creates and (each := _asked(row, plan, offset))]
        asked += made
        asked += _scheduled(plan, within=within, now=now, offset=offset, made={each.date for each in made})
    return cover(asked, known_runs((row.flow_run for row in rows if row.flow_run), found), within=within)


def fill_commands(coverage: Coverage, *, dag_id: str) -> list[str]:
    """The `airflow backfill create` commands that make DAG runs for exactly what is missing or has failed."""
    groups = ([each for span in group if (each := _of_dag(span, dag_id))] for group in gaps(coverage))
    return [_command(group, dag_id=dag_id) for group in groups if group]


def _of_dag(span: Span, dag_id: str) -> Asked | None:
    return next((each for each in span.asked if each.dag_id == dag_id and each.date), None)


def _command(group: Sequence[Asked], *, dag_id: str) -> str:
    dates = [each.date for each in group if each.date]
    parts = [
        "airflow backfill create",
        f"--dag-id {shlex.quote(dag_id)}",
        f"--from-date {_date_text(min(dates))}",
        f"--to-date {_date_text(max(dates))}",
    ]
    states = {each.dag_run_state for each in group if each.dag_run_id}
    if states:
        parts.append(f"--reprocess-behavior {'completed' if states - {'failed'} else 'failed'}")
    return " ".join(parts)


def _date_text(date: datetime) -> str:
    return date.astimezone(timezone.utc).isoformat()


def _asked(row: TaskRow, plan: Plan, offset: timedelta | None) -> Asked | None:
    """The window that a task instance asks for: the one that it pushed, else the one that it would take."""
    window = window_of_summary(row.flow_run) if row.flow_run else None
    if window is None:
        window = _window_before_it_ran(row, plan, offset)
    if window is None:
        return None
    return Asked(
        window=window,
        dag_id=row.dag_id,
        dag_run_id=row.run_id,
        dag_run_state=row.run_state,
        task_id=row.task_id,
        map_index=row.map_index,
        date=_backfill_date(row.dates) if row.run_type in _OF_THE_SCHEDULE else None,
        task_state=row.state,
        readable=row.readable,
    )


def _window_before_it_ran(row: TaskRow, plan: Plan, offset: timedelta | None) -> IngestionWindow | None:
    try:
        if named := named_window(row.conf, where="conf"):
            return named
        return _window(plan.timetable, row.dates, offset)
    except WindowError:
        return None


def _scheduled(
    plan: Plan, *, within: IngestionWindow, now: datetime, offset: timedelta | None, made: Collection[datetime | None]
) -> Iterator[Asked]:
    """The windows that a schedule has there and that are over.

    :param made: the dates of DAG runs that ask themselves for what their tasks took.
    """
    if plan.timetable is None or not plan.timetable.periodic:
        return
    shift = offset or timedelta(0)
    partitioned = getattr(plan.timetable, "partitioned", False)
    dates = _runs.dates_between(
        plan.timetable,
        earliest=within.start - shift,
        latest=within.end - shift if partitioned else None,
    )
    for each in islice(dates, MOST_WINDOWS):
        if _backfill_date(each) in made:
            continue
        try:
            window = _window(plan.timetable, each, offset)
        except WindowError:
            continue
        if window.start >= within.end or window.end > now:
            return
        yield Asked(window=window, dag_id=plan.dag_id, date=_backfill_date(each))


def _offset_shown(rows: Iterable[TaskRow], plan: Plan) -> timedelta | None:
    """By how much earlier windows of the schedule's own runs were moved: the API server has no `window_offset`."""
    shifts: Counter[timedelta] = Counter()
    for row in rows:
        window = window_of_summary(row.flow_run) if row.flow_run and row.run_type in _OF_THE_SCHEDULE else None
        if window is None:
            continue
        try:
            shifts[window.end - _window(plan.timetable, row.dates, None).end] += 1
        except WindowError:
            continue
        if shifts.total() >= _ENOUGH:
            break
    return shifts.most_common(1)[0][0] if shifts else None


def _window(timetable: Any, dates: RunDates, offset: timedelta | None) -> IngestionWindow:
    return _windows.window_of_run(timetable=timetable, dates=dates, offset=offset)


def _backfill_date(dates: RunDates) -> datetime | None:
    return dates.partition_date or dates.logical_date
