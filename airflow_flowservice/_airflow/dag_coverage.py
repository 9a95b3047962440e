# SPDX-License-Identifier: Apache-2.0
"""Compute the coverage of a dataflow from Airflow's database, the schedules of its DAGs and Flow Service.

The command line and the page use it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import dag_runs, timetables, versions
from airflow_flowservice._airflow.dag_plan import MOST_WINDOWS, Plan
from airflow_flowservice._airflow.pages import ExperiencePages
from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, KnownRun, cover, cover_all, known_runs
from airflow_flowservice.coverage.ledger_runs import (
    NO_RECORDS,
    LedgerRecords,
    claimed_windows,
    recorded_runs,
    split_restated,
)
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.requested import requested_window
from airflow_flowservice.windows.schedule import DeltaSchedule
from airflow_flowservice.windows.window import IngestionWindow, iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_flowservice._airflow.database import TaskRow
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ledger.entry import LedgerEntry
    from airflow_flowservice.windows.schedule import RunDates

_OFFSET_SAMPLES = 20
_SCHEDULE_RUN_TYPES = ("scheduled", "backfill")

BEFORE_HISTORY = "before Airflow's history"
OUTPUT_DELETED = "the task's XCom may have been deleted"
LEDGER_UNREADABLE = "the ledger cannot be read"


def coverage_of(
    rows: Iterable[TaskRow],
    *,
    plans: Iterable[Plan],
    within: IngestionWindow,
    now: datetime,
    found: Iterable[FlowRun] = (),
    most_entries: int | None = None,
    records: LedgerRecords = NO_RECORDS,
    conceals: Callable[[str], bool] = lambda owner: False,
    ingested: Sequence[KnownRun] = (),
) -> Coverage:
    """Return the coverage of a dataflow within a range.

    :param rows: of the tasks that ingest into the dataflow.
    :param plans: one for each DAG of the rows. A window of a schedule without a DAG run is missing.
    :param now: aware; windows that end later are not expected yet.
    :param found: flow runs of the dataflow at Flow Service, if it was queried.
    :param most_entries: as in `cover`.
    :param records: the ledger's records of the dataflow. A window that it has as ingested is never missing.
    :param conceals: return whether the flow runs of an owner in the ledger are concealed.
    :param ingested: further successful runs. Windows of a schedule that one of them contains are not computed.
    """
    rows, plans = list(rows), list(plans)
    covered = sorted(run.window for run in ingested if run.window)
    expected = list(claimed_windows(records, now=now))
    for plan in plans:
        dag_rows = [_with_task_partition(row, plan) for row in rows if row.dag_id == plan.dag_id]
        offset = plan.offset if plan.offset is not None else _observed_offset(dag_rows, plan)
        of_dag_runs = [each for row in dag_rows if row.creates and (each := _expected_window(row, plan, offset))]
        expected += of_dag_runs
        scheduled = _scheduled(
            plan, dag_rows, within=within, now=now, offset=offset, of_dag_runs=of_dag_runs, covered=covered
        )
        expected += _bounded(scheduled, most=plan.most_windows, within=within, now=now)
    recorded = records.recorded
    expected = [_with_records(each, recorded=recorded, is_readable=records.error is None) for each in expected]
    of_ledger = recorded_runs(records.entries, url_of=_url_of, conceals=conceals)
    runs = known_runs(filter(None, (row.flow_run for row in rows)), found, recorded=(*of_ledger, *ingested))
    parts = split_restated(runs, entries=records.entries, conceals=conceals)
    coverage = cover(expected, parts, within=within, most_entries=most_entries)
    return replace(coverage, ordered=frozenset(plan.dag_id for plan in plans if plan.ordered))


def coverage_without_dag(
    found: Iterable[FlowRun], *, within: IngestionWindow, now: datetime, records: LedgerRecords
) -> Coverage:
    """Return the coverage of a dataflow by Flow Service and the ledger, if the whole range up to now is expected.

    :param now: aware.
    :param records: the ledger's records of the dataflow. A window that it has as ingested is never missing.
    """
    return cover_all(
        found,
        within=within,
        now=now,
        recorded=recorded_runs(records.entries, url_of=_url_of),
        split=partial(split_restated, entries=records.entries),
        claimed=claimed_windows(records, now=now),
        reason=None if records.error is None else LEDGER_UNREADABLE,
    )


def _with_records(expected: ExpectedWindow, *, recorded: IngestionWindow | None, is_readable: bool) -> ExpectedWindow:
    """Return an expected window with the reason why it may be ingested without a record, if there is one.

    :param recorded: as `LedgerRecords.recorded`. The ledger would have a window in it if it were ingested.
    """
    if not is_readable:
        return replace(expected, reason=LEDGER_UNREADABLE)
    if recorded is None or expected.reason not in (BEFORE_HISTORY, OUTPUT_DELETED):
        return expected
    window = expected.window
    is_recorded = recorded.start <= window.start and window.end <= recorded.end
    return replace(expected, reason=None) if is_recorded else expected


def notices_of(coverage: Coverage, *, plans: Iterable[Plan], records: LedgerRecords) -> list[str]:
    """Return a sentence for each record that is incomplete, so that windows are unknown or not shown."""
    notices = []
    if records.error is not None:
        notices.append(
            "The ledger of ingested windows cannot be read. Windows without another record are unknown, and there are "
            f"no commands that fill gaps. Reason: {records.error}"
        )
    reasons = {(each.dag_id, each.reason) for span in coverage.spans for each in span.expected}
    for plan in plans:
        if not plan.is_decoded:
            notices.append(
                f"The schedule of DAG {plan.dag_id} cannot be decoded here, so windows without a DAG run are not shown."
                " Install the plugin with its timetable here."
            )
        if plan.history is None:
            continue
        if (plan.dag_id, BEFORE_HISTORY) in reasons:
            notices.append(
                f"Airflow's history of DAG {plan.dag_id} begins at {iso(plan.history.tasks)}. Earlier DAG runs may "
                "have been deleted, so earlier windows that the ledger does not have either are unknown."
            )
        if (plan.dag_id, OUTPUT_DELETED) in reasons and plan.history.outputs:
            notices.append(
                f"The XComs of DAG {plan.dag_id} begin at {iso(plan.history.outputs)}. Earlier XComs may have been "
                "deleted, so the windows of earlier tasks that the ledger does not have are unknown."
            )
    return notices


def _url_of(entry: LedgerEntry, flow_run_id: str) -> str:
    dataflow = entry.dataflow
    pages = ExperiencePages(organization=dataflow.organization, sandbox=dataflow.sandbox)
    return pages.flow_run(dataflow.flow_id, flow_run_id)


def _with_task_partition(row: TaskRow, plan: Plan) -> TaskRow:
    """Return a row with the partition date that its task uses, which can differ from the one in the database."""
    if row.dates.partition_date is None or row.dates.manual:
        return row
    date = versions.partition_date_of(row.dates, plan.timetable)
    return replace(row, dates=replace(row.dates, partition_date=date))


def _expected_window(row: TaskRow, plan: Plan, offset: timedelta | None) -> ExpectedWindow | None:
    """Return the window in a task instance's XCom, or else the window that the task instance would choose."""
    window = _pushed_window(row)
    if window is None:
        window = _window_from_dag_run(row, plan, offset)
    if window is None:
        return None
    return ExpectedWindow(
        window=window,
        dag_id=row.dag_id,
        dag_run_id=row.run_id,
        dag_run_state=row.run_state,
        task_id=row.task_id,
        map_index=row.map_index,
        date=_backfill_date(row.dates, plan.timetable) if row.run_type in _SCHEDULE_RUN_TYPES else None,
        task_state=row.state,
        readable=row.readable,
        reason=OUTPUT_DELETED if _lost_output(row, plan) else None,
    )


def _pushed_window(row: TaskRow) -> IngestionWindow | None:
    """Return the task's window by its XCom; its flow run may have ingested only a part."""
    return (row.flow_run.part_of or row.flow_run.window) if row.flow_run else None


def _lost_output(row: TaskRow, plan: Plan) -> bool:
    """Return whether a succeeded task has no XCom, and its DAG run is before the first XCom of the DAG."""
    outputs = plan.history.outputs if plan.history else None
    is_without_output = row.state == "success" and row.flow_run is None
    return is_without_output and outputs is not None and row.dates.run_after < outputs


def _window_from_dag_run(row: TaskRow, plan: Plan, offset: timedelta | None) -> IngestionWindow | None:
    try:
        if named := requested_window(row.conf, where="conf"):
            return named
        return plan.dates.window(plan.timetable, row.dates, offset)
    except WindowError:
        return None


def _scheduled(
    plan: Plan,
    rows: Sequence[TaskRow],
    *,
    within: IngestionWindow,
    now: datetime,
    offset: timedelta | None,
    of_dag_runs: Sequence[ExpectedWindow],
    covered: Sequence[IngestionWindow],
) -> Iterator[ExpectedWindow]:
    """Yield the windows of a schedule within the range that are over and that no DAG run expects.

    :param of_dag_runs: windows that the tasks of DAG runs expect.
    :param covered: sorted; windows that one of them contains are not expected.
    """
    if plan.timetable is None or not plan.timetable.periodic:
        return
    shift = offset or timedelta(0)
    partitioned = versions.backfills_by_partition(plan.timetable)
    first = first_date(plan, rows, _schedule_begin(plan, within.start - shift))
    dates = _uncovered_dates(
        plan,
        earliest=backfill_argument(first, plan.timetable),
        latest=backfill_argument(within.end - shift, plan.timetable) if partitioned else None,
        contiguous=_contiguous_dates(of_dag_runs),
        offset=offset,
        covered=covered,
    )
    taken = {each.date for each in of_dag_runs}
    for each, window in islice(dates, MOST_WINDOWS):
        date = (each.partition_date if partitioned else None) or each.logical_date or each.run_after
        if plan.end and date > plan.end:
            return
        if window and (window.start >= within.end or window.end > now):
            return
        is_early = plan.start is not None and date < plan.start
        if window is None or is_early or _backfill_date(each, plan.timetable) in taken:
            continue
        yield ExpectedWindow(
            window=window,
            dag_id=plan.dag_id,
            date=_backfill_date(each, plan.timetable),
            reason=_reason_of_history(each, plan),
        )


def _bounded(
    expected: Iterable[ExpectedWindow], *, most: int, within: IngestionWindow, now: datetime
) -> Iterator[ExpectedWindow]:
    """Yield at most this number of windows in the range; the last one has all the remaining time."""
    count = 0
    for each in expected:
        count += each.window.overlaps(within)
        if count < most:
            yield each
            continue
        rest = IngestionWindow(each.window.start, max(each.window.end, min(now, within.end)))
        yield replace(each, window=rest, date=None)
        return


def _uncovered_dates(
    plan: Plan,
    *,
    earliest: datetime,
    latest: datetime | None,
    contiguous: Mapping[datetime, datetime],
    offset: timedelta | None,
    covered: Sequence[IngestionWindow],
) -> Iterator[tuple[RunDates, IngestionWindow | None]]:
    """Yield a schedule's dates with their windows, except those whose windows are covered; None for no window."""
    begin: datetime | None = earliest
    while begin is not None:
        dates, begin = _schedule_dates(plan, earliest=begin, latest=latest, contiguous=contiguous), None
        for each in dates:
            try:
                window = plan.dates.window(plan.timetable, each, offset)
            except WindowError:
                yield each, None
                continue
            cover_end = _cover_end(window, covered)
            if cover_end is None:
                yield each, window
            elif begin := _later_date(each, plan, window=window, cover_end=cover_end):
                break


def _cover_end(window: IngestionWindow, covered: Sequence[IngestionWindow]) -> datetime | None:
    """Return the end of the covered span that contains the window; None if there is none."""
    index = bisect_right(covered, window.start, key=attrgetter("start")) - 1
    return covered[index].end if index >= 0 and covered[index].contains(window) else None


def _later_date(dates: RunDates, plan: Plan, *, window: IngestionWindow, cover_end: datetime) -> datetime | None:
    """Return an argument from which the dates continue a few windows before the end of the covered span.

    Return None if the next date is not much earlier, or if the schedule cannot begin at any date.
    """
    date = _backfill_date(dates, plan.timetable)
    schedule = plan.dates.schedule(plan.timetable)
    if date is None or schedule is None:
        return None
    margin = 3 * (window.end - window.start) + timedelta(hours=2)
    if versions.backfills_by_partition(plan.timetable):
        margin += timedelta(days=1)  # the argument is a clock time
    later = cover_end - window.end - margin
    if isinstance(schedule, DeltaSchedule):
        if not isinstance(schedule.delta, timedelta):
            return None
        later = later // schedule.delta * schedule.delta
        return date + later if later > timedelta(0) else None
    if later <= timedelta(0):
        return None
    begin = date + later
    # The periods of a cron differ in length, so the last window of the span may begin long before its end.
    try:
        begin = plan.dates.previous(plan.timetable, schedule, plan.dates.previous(plan.timetable, schedule, begin))
    except WindowError:  # the schedule has no earlier date
        return None
    return begin if begin > date else None


def _reason_of_history(dates: RunDates, plan: Plan) -> str | None:
    """Return the reason why the window is unknown: its DAG run may have been deleted from Airflow's history."""
    is_before = plan.history is not None and dates.run_after < plan.history.tasks
    return BEFORE_HISTORY if is_before else None


def _schedule_begin(plan: Plan, begin: datetime) -> datetime:
    """Return the later of the range's begin and the DAG's start, before which there are no dates to compute."""
    return max(begin, plan.start) if plan.start else begin


def _schedule_dates(
    plan: Plan, *, earliest: datetime, latest: datetime | None, contiguous: Mapping[datetime, datetime]
) -> Iterator[RunDates]:
    """Yield a schedule's dates, except those inside a contiguous series of DAG runs.

    Skipping them saves most of the time, because Airflow's timetables compute dates slowly.

    :param contiguous: first and last date of each series.
    """
    last_dates = dict(contiguous)
    begin: datetime | None = earliest
    while begin is not None:
        remaining, begin = plan.dates.between(plan.timetable, earliest=begin, latest=latest), None
        for each in remaining:
            begin = last_dates.pop(_backfill_date(each, plan.timetable) or each.run_after, None)
            if begin is not None:
                break
            yield each


def _contiguous_dates(of_dag_runs: Iterable[ExpectedWindow]) -> dict[datetime, datetime]:
    """Return the first and last date of each series of DAG runs whose windows are contiguous.

    No window of the schedule is missing in between.
    """
    windows: dict[datetime, IngestionWindow | None] = {}
    for each in of_dag_runs:
        if each.date:  # None marks a date with several windows, as of mapped tasks
            windows[each.date] = each.window if windows.get(each.date, each.window) == each.window else None
    last_dates: dict[datetime, datetime] = {}
    first = None
    for date, next_date in pairwise(sorted(windows)):
        window, next_window = windows[date], windows[next_date]
        first = (first or date) if window and next_window and window.end == next_window.start else None
        if first:
            last_dates[first] = next_date
    return last_dates


def first_date(plan: Plan, rows: Iterable[TaskRow], begin: datetime) -> datetime:
    """Return a date one period before the range, so that a window across the start of the range is included."""
    schedule = plan.dates.schedule(plan.timetable)
    if schedule is None:
        return dag_runs.interval_start(plan.timetable, begin)
    try:
        if isinstance(schedule, DeltaSchedule):
            return schedule.previous(_aligned_begin(plan, rows, begin, schedule))
        return plan.dates.previous(plan.timetable, schedule, begin)
    except WindowError:
        return begin


def _aligned_begin(plan: Plan, rows: Iterable[TaskRow], begin: datetime, schedule: DeltaSchedule) -> datetime:
    """Return an instant, at or before the begin, from which a delta counts to the dates of the DAG's runs."""
    dates = [row.dates.logical_date for row in rows if row.run_type in _SCHEDULE_RUN_TYPES and row.dates.logical_date]
    earlier = [date for date in dates if date <= begin]
    aligned = max(earlier) if earlier else min(dates, default=plan.start or begin)
    if isinstance(schedule.delta, timedelta):
        # Timestamps, because a DAG's start is pendulum's, and pendulum cannot divide by a timedelta.
        periods = (begin.timestamp() - aligned.timestamp()) // schedule.delta.total_seconds()
        return aligned + int(periods) * schedule.delta
    while aligned > begin:
        aligned = schedule.previous(aligned)
    while (following := schedule.next(aligned)) <= begin:
        aligned = following
    return aligned


def _observed_offset(rows: Iterable[TaskRow], plan: Plan) -> timedelta | None:
    """Return the most frequent offset of the schedule's earlier windows; None if there are none.

    The API server does not have the task's `window_offset`.
    """
    shifts: Counter[timedelta] = Counter()
    for row in rows:
        window = _pushed_window(row) if row.run_type in _SCHEDULE_RUN_TYPES else None
        if window is None:
            continue
        try:
            shifts[window.end - plan.dates.window(plan.timetable, row.dates, None).end] += 1
        except WindowError:
            continue
        if shifts.total() >= _OFFSET_SAMPLES:
            break
    return shifts.most_common(1)[0][0] if shifts else None


def _backfill_date(dates: RunDates, timetable: Any) -> datetime | None:
    """Return the date by which `airflow backfill create` selects the DAG run."""
    if dates.partition_date is None:
        return dates.logical_date
    if not versions.backfills_by_partition(timetable):
        return dates.run_after
    return backfill_argument(dates.partition_date, timetable)


def backfill_argument(date: datetime, timetable: Any) -> datetime:
    """Return a date as an argument of `airflow backfill create`.

    For partitions, Airflow reads the argument's clock time in the schedule's time zone, and ignores the offset.
    """
    if not versions.backfills_by_partition(timetable):
        return date
    schedule, _ = timetables.parse_timetable(timetable)
    zone = getattr(schedule, "zone", timezone.utc)
    return date.astimezone(zone).replace(tzinfo=timezone.utc)
