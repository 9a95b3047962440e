"""A dataflow's coverage, from what Airflow's database, a schedule and Flow Service say; for command line and page."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import choose_window, dag_runs, timetables, versions
from airflow_flowservice.coverage.cover import Asked, Coverage, cover, known_runs
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.requested import named_window
from airflow_flowservice.windows.schedule import DeltaSchedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_flowservice._airflow.database import DagSchedule, Feed, TaskRow
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.windows.schedule import RunDates
    from airflow_flowservice.windows.window import IngestionWindow

_ENOUGH = 20
_OF_THE_SCHEDULE = ("scheduled", "backfill")
# A year of five-minute windows; more is neither drawn nor read.
MOST_WINDOWS = 110_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a DAG's schedule asks for.

    :param timetable: the core's; None if nobody knows it.
    :param offset: the task's `window_offset`; None takes the one that its earlier windows show.
    :param start: the DAG's `start_date`; the schedule makes no run for an earlier date.
    :param end: its `end_date`.
    """

    dag_id: str
    timetable: Any = None
    offset: timedelta | None = None
    start: datetime | None = None
    end: datetime | None = None


def plan_of(schedule: DagSchedule | None, *, dag_id: str) -> Plan:
    """What a DAG's schedule asks for, as the metadata database has it; nothing if it has none."""
    if schedule is None:
        return Plan(dag_id=dag_id)
    return Plan(dag_id=dag_id, timetable=schedule.timetable, start=schedule.start, end=schedule.end)


def rows_of_flow(
    rows: Sequence[TaskRow], *, flow_id: str, feeds: Iterable[Feed], silent: bool = False
) -> list[TaskRow]:
    """The rows that are about one dataflow.

    What pushed a flow run says it. Of what pushed none, the same task's newest flow run says it, of the same map
    index where there is one.

    :param rows: by the time of their DAG runs.
    :param feeds: what each task fed last.
    :param silent: take tasks that have fed nothing yet as well.
    """
    fed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for feed in feeds:
        fed[feed.dag_id, feed.task_id].add(feed.flow_id)
    newest = {_place(row): flow_of(row) for row in rows if row.flow_run}

    def is_about_it(row: TaskRow) -> bool:
        if row.flow_run:
            return flow_of(row) == flow_id
        if _place(row) in newest:
            return newest[_place(row)] == flow_id
        of_task = fed.get((row.dag_id, row.task_id))
        return flow_id in of_task if of_task else silent

    return [row for row in rows if is_about_it(row)]


def flow_of(row: TaskRow) -> str | None:
    """The dataflow that a task instance fed, as it pushed it; None if it did not."""
    return row.flow_run.flow_id if row.flow_run else None


def _place(row: TaskRow) -> tuple[str, str, int]:
    return row.dag_id, row.task_id, row.map_index


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
        own = [_as_its_task_counts(row, plan) for row in rows if row.dag_id == plan.dag_id]
        offset = plan.offset if plan.offset is not None else _offset_shown(own, plan)
        made = [each for row in own if row.creates and (each := _asked(row, plan, offset))]
        asked += made
        asked += _scheduled(plan, own, within=within, now=now, offset=offset, made=made)
    return cover(asked, known_runs((row.flow_run for row in rows if row.flow_run), found), within=within)


def _as_its_task_counts(row: TaskRow, plan: Plan) -> TaskRow:
    """A row with the partition that its task takes, which is not always the one that the database has."""
    if row.dates.partition_date is None or row.dates.manual:
        return row
    date = versions.partition_date_of(row.dates, plan.timetable)
    return replace(row, dates=replace(row.dates, partition_date=date))


def _asked(row: TaskRow, plan: Plan, offset: timedelta | None) -> Asked | None:
    """The window that a task instance asks for: the one that it pushed, else the one that it would take."""
    window = row.flow_run.window if row.flow_run else None
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
        date=_backfill_date(row.dates, plan.timetable) if row.run_type in _OF_THE_SCHEDULE else None,
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
    plan: Plan,
    rows: Sequence[TaskRow],
    *,
    within: IngestionWindow,
    now: datetime,
    offset: timedelta | None,
    made: Sequence[Asked],
) -> Iterator[Asked]:
    """The windows that a schedule has there, that are over, and that no DAG run asks for.

    :param made: what the tasks of DAG runs ask for.
    """
    if plan.timetable is None or not plan.timetable.periodic:
        return
    shift = offset or timedelta(0)
    partitioned = versions.backfills_by_partition(plan.timetable)
    dates = _dates(
        plan.timetable,
        earliest=_as_backfill_takes(_first_date(plan, rows, within.start - shift), plan.timetable),
        latest=_as_backfill_takes(within.end - shift, plan.timetable) if partitioned else None,
        stretches=_stretches(made),
    )
    taken = {each.date for each in made}
    for each in islice(dates, MOST_WINDOWS):
        date = (each.partition_date if partitioned else None) or each.logical_date or each.run_after
        if plan.end and date > plan.end:
            return
        if (plan.start and date < plan.start) or _backfill_date(each, plan.timetable) in taken:
            continue
        try:
            window = _window(plan.timetable, each, offset)
        except WindowError:
            continue
        if window.start >= within.end or window.end > now:
            return
        yield Asked(window=window, dag_id=plan.dag_id, date=_backfill_date(each, plan.timetable))


def _dates(
    timetable: Any, *, earliest: datetime, latest: datetime | None, stretches: Mapping[datetime, datetime]
) -> Iterator[RunDates]:
    """A schedule's dates but those inside of a stretch: the scheduler's counting is what takes most of the time."""
    ahead = dict(stretches)
    begin: datetime | None = earliest
    while begin is not None:
        counted, begin = dag_runs.dates_between(timetable, earliest=begin, latest=latest), None
        for each in counted:
            begin = ahead.pop(_backfill_date(each, timetable) or each.run_after, None)
            if begin is not None:
                break
            yield each


def _stretches(made: Iterable[Asked]) -> dict[datetime, datetime]:
    """Where DAG runs' windows follow each other without a gap: the first run's date, and the last one's.

    No window of their schedule is missing in between.
    """
    windows: dict[datetime, IngestionWindow | None] = {}
    for each in made:
        if each.date:  # mapped tasks may ask for several; then it is nobody's one window
            windows[each.date] = each.window if windows.get(each.date, each.window) == each.window else None
    stretches: dict[datetime, datetime] = {}
    first = None
    for one, other in pairwise(sorted(windows)):
        before, after = windows[one], windows[other]
        first = (first or one) if before and after and before.end == after.start else None
        if first:
            stretches[first] = other
    return stretches


def _first_date(plan: Plan, rows: Iterable[TaskRow], begin: datetime) -> datetime:
    """Where to begin counting: some period earlier, so that a window that sticks out is there."""
    schedule, _ = timetables.schedule_of(plan.timetable)
    if schedule is None:
        return begin
    try:
        if isinstance(schedule, DeltaSchedule):
            return schedule.previous(_on_the_runs_dates(plan, rows, begin, schedule))
        return schedule.previous(begin)
    except WindowError:
        return begin


def _on_the_runs_dates(plan: Plan, rows: Iterable[TaskRow], begin: datetime, schedule: DeltaSchedule) -> datetime:
    """A moment at or before the begin from which a delta counts to the dates that the DAG's runs have."""
    dates = [row.dates.logical_date for row in rows if row.run_type in _OF_THE_SCHEDULE and row.dates.logical_date]
    earlier = [date for date in dates if date <= begin]
    moment = max(earlier) if earlier else min(dates, default=plan.start or begin)
    if isinstance(schedule.delta, timedelta):
        # Not of datetimes: pendulum's, which a DAG's start is, cannot be divided by a timedelta.
        periods = (begin.timestamp() - moment.timestamp()) // schedule.delta.total_seconds()
        return moment + int(periods) * schedule.delta
    while moment > begin:
        moment = schedule.previous(moment)
    while (following := schedule.next(moment)) <= begin:
        moment = following
    return moment


def _offset_shown(rows: Iterable[TaskRow], plan: Plan) -> timedelta | None:
    """By how much earlier windows of the schedule's own runs were moved: the API server has no `window_offset`."""
    shifts: Counter[timedelta] = Counter()
    for row in rows:
        window = row.flow_run.window if row.flow_run and row.run_type in _OF_THE_SCHEDULE else None
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
    return choose_window.window_of_run(timetable=timetable, dates=dates, offset=offset)


def _backfill_date(dates: RunDates, timetable: Any) -> datetime | None:
    """The date by which `airflow backfill create` finds the run."""
    if dates.partition_date is None:
        return dates.logical_date
    if not versions.backfills_by_partition(timetable):
        return dates.run_after
    return _as_backfill_takes(dates.partition_date, timetable)


def _as_backfill_takes(moment: datetime, timetable: Any) -> datetime:
    """A moment as a backfill's date: for partitions Airflow reads the clock in the schedule's zone, not the offset."""
    if not versions.backfills_by_partition(timetable):
        return moment
    schedule, _ = timetables.schedule_of(timetable)
    zone = getattr(schedule, "zone", timezone.utc)
    return moment.astimezone(zone).replace(tzinfo=timezone.utc)
