# SPDX-License-Identifier: Apache-2.0
"""Read the coverage of a dataflow from Airflow's database, within limits that suit one request to the API server."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import dag_runs, database, dataflow_ledger, history_start, timetables
from airflow_flowservice._airflow.backfill_commands import succeeded_tasks, tasks_run_again
from airflow_flowservice._airflow.dag_coverage import coverage_of, notices_of
from airflow_flowservice._airflow.dag_plan import plan_of
from airflow_flowservice._airflow.flow_rows import earlier_flows, rows_of_flow, tasks_of_flow
from airflow_flowservice.coverage.fill_plan import FillOptions, plan_fill
from airflow_flowservice.coverage.fleet_records import newest_name
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.plugins.error_responses import PageRequestError
from airflow_flowservice.windows.window import EPOCH, IngestionWindow, parse_instant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.database import DagSchedule, Feed, TaskSettings
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.coverage.cover import Coverage, State
    from airflow_flowservice.coverage.fill_plan import FillStep
    from airflow_flowservice.coverage.ledger_runs import LedgerRecords
    from airflow_flowservice.windows.chunks import ChunkLength

log = logging.getLogger(__name__)

# The server and the browser handle these numbers within a few seconds.
MAX_WINDOWS = 20_000
_MAX_ROWS = 60_000
# Some of Airflow's timetables need a quarter of a millisecond for the date of a window without a DAG run.
_MAX_COMPUTED = 6_000
# Maximum number of DAG runs, and of flow runs, that the response lists for one window.
MAX_ENTRIES = 20
_YEAR = timedelta(days=366)
_MAX_RANGE = 20 * _YEAR
_SAMPLED_RUNS = 300
_LEDGER_MARGIN = timedelta(days=31)
_SHORTER_RANGE = "choose a shorter range with from and to"


@dataclass(frozen=True, kw_only=True)
class RequestedRange:
    """Time range of a request.

    :param start: None for the start of the first known window.
    """

    start: datetime | None
    end: datetime

    @classmethod
    def parse(cls, start: str | None, end: str | None, *, now: datetime) -> RequestedRange:
        """Parse the parameters `from` and `to`.

        :raises PageRequestError: 400, a parameter is invalid; the error has a remedy.
        """
        try:
            last = parse_instant(end, name="to") if end else now
            first = parse_instant(start, name="from") if start else None
            if IngestionWindow(first or EPOCH, last).seconds > _MAX_RANGE.total_seconds() and first:
                raise PageRequestError(400, "The range is longer than 20 years", remedy=_SHORTER_RANGE)
        except WindowError as error:
            raise PageRequestError(400, _range_error_text(error), remedy=_remedy(error)) from error
        return cls(start=first, end=last)


@dataclass(frozen=True, kw_only=True)
class CoverageResult:
    """Coverage of a dataflow with the range and the DAGs it was read for.

    :param again: succeeded tasks that the fill commands would run again.
    :param notices: sentences about incomplete records.
    :param flow_name: name of the dataflow in the ledger's entries of the range; None if they have none.
    :param fillable: False if the records are too incomplete for commands that fill gaps.
    """

    coverage: Coverage
    within: IngestionWindow
    dag_ids: tuple[str, ...]
    again: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    flow_name: str | None = None
    fillable: bool = True


class CoverageReader:
    """Reader of a dataflow's windows in Airflow's database and in the ledger.

    Windows that DAGs without the user's permission ingested have their state, but no flow run, DAG or number.

    :param feeds: tasks that ingest into the dataflow, limited to DAGs that the user may read; no other DAG is read.
    :param requested: if it has no start, the range starts at the first known window, at most a year before its end.
    :raises PageRequestError: 400, the range has too many task instances or windows.
    """

    def __init__(
        self, session: Session, *, flow_id: str, feeds: Sequence[Feed], requested: RequestedRange, now: datetime
    ) -> None:
        self._now = now
        self._flow_id = flow_id
        self.dag_ids = tuple(sorted({feed.dag_id for feed in feeds}))
        since = requested.start or max(requested.end - _YEAR, EPOCH)
        rows = list(islice(database.task_rows(session, dag_ids=self.dag_ids, since=since), _MAX_ROWS + 1))
        if len(rows) > _MAX_ROWS:
            raise PageRequestError(
                400, f"Airflow has more than {_MAX_ROWS:,} task instances in this range", remedy=_SHORTER_RANGE
            )
        self._all_rows = rows
        schedules = {dag_id: database.dag_schedule_of(session, dag_id) for dag_id in self.dag_ids}
        tasks = _tasks_of_feeds(feeds, schedules)
        continues = earlier_flows(tasks, flow_id, feeds=feeds)
        self._records = _read_records(
            session,
            flow_id=flow_id,
            conn_ids=sorted({task.conn_id for task in tasks if task.conn_id is not None}),
            dag_ids=self.dag_ids,
            within=_around(since, requested.end),
            continues=continues,
        )
        self._rows = rows_of_flow(rows, flow_id=flow_id, feeds=feeds, records=self._records, continues=continues)
        planned = _planned_dags(feeds, schedules, flow_id=flow_id)
        creating_dags = sorted(planned | {row.dag_id for row in self._rows if row.creates})
        self._plans = [
            plan_of(schedules[each], dag_id=each, history=history_start.history_start(session, each))
            for each in creating_dags
        ]
        self.within = self._within(requested, since=since)

    def coverage(self, found: Iterable[FlowRun] = ()) -> CoverageResult:
        """Compute the coverage from the database and from the runs that Flow Service returned, if it was queried."""
        coverage = coverage_of(
            self._rows,
            plans=self._plans,
            within=self.within,
            now=self._now,
            found=found,
            most_entries=MAX_ENTRIES,
            records=self._records,
            conceals=lambda owner: owner.partition("/")[0] not in self.dag_ids,
        )
        is_read = self._records.error is None
        return CoverageResult(
            coverage=coverage,
            within=self.within,
            dag_ids=self.dag_ids,
            again=tuple(tasks_run_again(coverage, self._all_rows)) if is_read else (),
            notices=tuple(notices_of(coverage, plans=self._plans, records=self._records)),
            flow_name=newest_name(self._records.entries),
            fillable=is_read,
        )

    def fill_steps(
        self,
        coverage: Coverage,
        *,
        dag_id: str,
        within: IngestionWindow,
        states: frozenset[State],
        chunk: ChunkLength | None = None,
        restate: bool = False,
    ) -> list[FillStep]:
        """Return the steps that fill windows of a DAG.

        :param coverage: of the reader's range, which contains `within`.
        :param within: as in `FillOptions`; `states`, `chunk` and `restate` likewise.
        """
        zones = [timetables.zone_of(plan.timetable) for plan in self._plans if plan.dag_id == dag_id]
        options = FillOptions(
            states=states,
            within=within,
            succeeded=succeeded_tasks(self._all_rows, dag_id=dag_id, any_state=restate),
            chunk=chunk,
            zone=zones[0] if zones else timezone.utc,
            restate=restate,
            flow_id=self._flow_id,
        )
        return plan_fill(coverage, dag_id=dag_id, options=options)

    def _within(self, requested: RequestedRange, *, since: datetime) -> IngestionWindow:
        start = requested.start or self._first_start(since, requested.end)
        rate = sum(_YEAR / _typical_length(plan.timetable, since=start) for plan in self._plans) or 1.0
        length = _YEAR / rate
        most = min(MAX_WINDOWS, _MAX_COMPUTED + len(self._rows))
        if (requested.end - start) / length <= most:
            return IngestionWindow(start, requested.end)
        if requested.start is None:
            return IngestionWindow(max(start, requested.end - most * length), requested.end)
        raise PageRequestError(
            400,
            f"The range has more than {most:,} windows, more than the page can show",
            remedy=f"{_SHORTER_RANGE}: {(most * length).days} days at most for this schedule",
        )

    def _first_start(self, since: datetime, end: datetime) -> datetime:
        starts = [row.flow_run.window.start for row in self._rows if row.flow_run and row.flow_run.window]
        first = min((*starts, *(entry.window.start for entry in self._records.entries)), default=since)
        return first if since < first < end else since


def _around(since: datetime, end: datetime) -> IngestionWindow:
    """Return the range of the ledger's entries; earlier ones show since when the ledger is used."""
    return IngestionWindow(max(since - _LEDGER_MARGIN, EPOCH), end)


def _tasks_of_feeds(feeds: Iterable[Feed], schedules: Mapping[str, DagSchedule | None]) -> list[TaskSettings]:
    """Return the settings of the tasks that ingest into the dataflow."""
    task_ids = {(feed.dag_id, feed.task_id) for feed in feeds}
    return [
        task
        for dag_id, schedule in schedules.items()
        for task in (schedule.tasks if schedule else ())
        if (dag_id, task.task_id) in task_ids
    ]


def _read_records(
    session: Session,
    *,
    flow_id: str,
    conn_ids: Collection[str],
    dag_ids: Collection[str],
    within: IngestionWindow,
    continues: Iterable[str],
) -> LedgerRecords:
    """Read the ledger. An error names only its class, because users may not see the ledger's connection."""
    records = dataflow_ledger.read_records(
        session, flow_id=flow_id, conn_ids=conn_ids, dag_ids=dag_ids, within=within, continues=continues
    )
    if records.error is None:
        return records
    log.warning("The ledger of dataflow %s cannot be read: %s", flow_id, records.error)
    return replace(records, error="see the API server's log")


def _planned_dags(feeds: Sequence[Feed], schedules: Mapping[str, DagSchedule | None], *, flow_id: str) -> set[str]:
    """Return the DAGs that have a task now that creates the dataflow's flow runs, also without a task instance."""
    return {
        feed.dag_id
        for feed in feeds
        for task in tasks_of_flow(getattr(schedules[feed.dag_id], "tasks", ()), flow_id)
        if task.task_id == feed.task_id
    }


def _typical_length(timetable: Any, *, since: datetime) -> timedelta:
    """Return the mean time between runs, sampled over the first `_SAMPLED_RUNS` runs."""
    if timetable is None or not timetable.periodic:
        return _YEAR
    dates = list(islice(dag_runs.dates_between(timetable, earliest=since, latest=since + _YEAR), _SAMPLED_RUNS))
    if len(dates) < 2 or dates[-1].run_after <= dates[0].run_after:
        return _YEAR
    return timedelta(seconds=(dates[-1].run_after - dates[0].run_after).total_seconds() / (len(dates) - 1))


def _range_error_text(error: WindowError) -> str:
    return error.message.replace("the window is", "the range is")


def _remedy(error: WindowError) -> str:
    return (error.remedy or "").replace("window_start", "from").replace("window_end", "to")
