# SPDX-License-Identifier: Apache-2.0
"""Read the summary of all dataflows from Airflow's metadata database and the ledgers.

A dataflow is known from the tasks of a serialized DAG, also of one that never ran, from the XComs of task instances, or
from the ledger, also after its DAG was renamed or deleted. Flow Service is not queried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from airflow_flowservice._airflow import dag_facts, database, dataflow_ledger, fleet_ledger, history_start
from airflow_flowservice._airflow.dag_coverage import coverage_of
from airflow_flowservice._airflow.dag_plan import ScheduleDates, plan_of
from airflow_flowservice._airflow.database import Feed
from airflow_flowservice._airflow.fleet_history import TaskKey, read_task_history
from airflow_flowservice._airflow.flow_rows import flow_of, rows_of_flow
from airflow_flowservice._airflow.history_start import HistoryStart
from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.coverage.cover import KnownRun
from airflow_flowservice.coverage.fleet import DagStatus, DataflowStatus, dataflow_status, merged_runs, worst_first
from airflow_flowservice.coverage.fleet_records import LATER_END, DataflowRecords
from airflow_flowservice.coverage.ledger_runs import LedgerRecords, restated_runs
from airflow_flowservice.exceptions import FlowServiceError
from airflow_flowservice.ledger.entry import DataflowKey
from airflow_flowservice.windows.window import EPOCH, IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.database import TaskRow
    from airflow_flowservice._airflow.dataflow_ledger import LedgerSource
    from airflow_flowservice.coverage.cover import Coverage

# As for one dataflow: with partitions or offsets, a DAG run for an earlier date can have a window within the range.
_MARGIN = timedelta(days=31)
# Some of Airflow's timetables need a quarter of a millisecond for a window without a DAG run.
_MOST_WINDOWS = 1000

# Of a DAG without a task that creates flow runs.
_NO_SCHEDULE = database.DagSchedule(timetable=())

OpenSession = Callable[[], AbstractContextManager["Session"]]

_Place = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Summaries of all dataflows.

    :param rows: worst first.
    :param within: range of the counts and the bars.
    :param error: sentence that states why a ledger cannot be read; None if all were read. Then no window is missing.
    :param warnings: sentences that state why ledgers cannot be read that only connections without a task select.
    """

    rows: tuple[DataflowStatus, ...]
    within: IngestionWindow
    error: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Dataflow:
    """Records of one dataflow.

    :param ingested: window of each successful flow run in Airflow's history; not changed in place.
    :param dag_ids: DAGs with a task that ingests or ingested into it.
    :param planned: DAGs with a task that ingests into it now.
    :param continues: earlier dataflows whose windows count as windows of this one.
    :param earlier_dags: DAGs that ingested into the earlier dataflows.
    :param has_task: a task of a serialized DAG ingests into it.
    """

    ingested: dict[str, IngestionWindow] = field(default_factory=dict)
    dag_ids: set[str] = field(default_factory=set)
    planned: set[str] = field(default_factory=set)
    continues: set[DataflowKey] = field(default_factory=set)
    earlier_dags: set[str] = field(default_factory=set)
    has_task: bool = False


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """Records from which the coverage of a dataflow is computed.

    :param rows: task instances that are not only counted by flow run.
    :param runs: successful flow runs of history and ledger.
    :param creating: DAGs with a task that creates flow runs of the dataflow, sorted.
    """

    key: DataflowKey
    dataflow: _Dataflow
    rows: list[TaskRow]
    runs: list[KnownRun]
    records: LedgerRecords
    creating: list[str]


def read_fleet(
    session: Session,
    *,
    now: datetime,
    since: datetime,
    conn_id: str | None = None,
    tag: str | None = None,
    flow_ids: Collection[str] | None = None,
    dag_ids: Collection[str] | None = None,
    open_session: OpenSession | None = None,
) -> Fleet:
    """Return the summaries of all dataflows.

    :param now: aware; end of the range.
    :param since: aware; start of the range.
    :param conn_id: only dataflows of the organization and sandbox of this connection, with its ledger.
    :param tag: only dataflows with a DAG that has this tag.
    :param flow_ids: only these dataflows; None means all.
    :param dag_ids: only DAGs that the user may read; None means all. A dataflow without such a DAG is omitted.
    :param open_session: open another session, in which a thread reads the history while this one reads the ledgers;
        None to read one after the other.
    :raises FlowServiceError: the connection `conn_id` cannot be read.
    """
    reader = _FleetReader(session, now=now, since=since, dag_ids=dag_ids)
    reader.read(conn_id, open_session=open_session)
    rows = [
        row
        for row in reader.statuses(conn_id, flow_ids=flow_ids)
        if (tag is None or tag in row.tags) and (dag_ids is None or row.dags)
    ]
    warnings = tuple(dict.fromkeys(reader.warnings))
    return Fleet(rows=tuple(worst_first(rows)), within=reader.within, error=reader.error, warnings=warnings)


class _FleetReader:
    def __init__(self, session: Session, *, now: datetime, since: datetime, dag_ids: Collection[str] | None) -> None:
        self._session = session
        self._now = now
        self._dag_ids = None if dag_ids is None else frozenset(dag_ids)
        self._since = max(since - _MARGIN, EPOCH)
        self.within = IngestionWindow(since, now)
        self.error: str | None = None
        self.warnings: list[str] = []
        self._dags = dag_facts.dag_statuses(session, dag_ids=dag_ids)
        self._schedules = dag_facts.dag_schedules(session, dag_ids=dag_ids)
        self._tasks = {
            (dag_id, task.task_id): task
            for dag_id, schedule in self._schedules.items()
            for task in (schedule.tasks if schedule else ())
        }
        self._dates = ScheduleDates()
        self._ledgers: set[str | None] = set()
        self._records: dict[DataflowKey, DataflowRecords] = {}
        self._places: dict[str, _Place | None] = {}
        self._by_flow: dict[str, list[DataflowKey]] = defaultdict(list)
        self._feeds: dict[str, list[Feed]] = defaultdict(list)
        self._task_starts: dict[str, datetime] = {}
        self._output_starts: dict[str, datetime] = {}

    def read(self, conn_id: str | None, *, open_session: OpenSession | None) -> None:
        """Read the ledgers and the history.

        :param open_session: as in `read_fleet`.
        :raises FlowServiceError: the connection `conn_id` cannot be read.
        """
        if open_session is None:
            self._read_all_ledgers(conn_id)
            self._read_history(self._session)
        else:
            with ThreadPoolExecutor(1, thread_name_prefix="flowservice-history") as threads:
                history = threads.submit(self._read_history_in, open_session)
                try:
                    self._read_all_ledgers(conn_id)
                finally:
                    # Release the connection: with a small pool, the thread may wait for it.
                    self._session.commit()
                history.result()
        for key in self._records:
            self._by_flow[key.flow_id].append(key)

    def _read_history_in(self, open_session: OpenSession) -> None:
        with open_session() as session:
            self._read_history(session)

    def _read_history(self, session: Session) -> None:
        """Read the dataflows of tasks, the task instances, and the begin of the history of DAGs with a schedule."""
        for feed in (*database.feeds(session, dag_ids=self._dag_ids), *self._arguments()):
            self._feeds[feed.dag_id].append(feed)
        self._task_starts = history_start.task_starts(session, sorted(self._schedules))
        self._history = read_task_history(session, dag_ids=self._dag_ids, since=self._since)
        rows = chain.from_iterable(self._history.rows.values())
        without_output = {row.dag_id for row in rows if row.state == "success" and row.flow_run is None}
        self._output_starts = history_start.output_starts(session, sorted(without_output))

    def _read_all_ledgers(self, conn_id: str | None) -> None:
        if conn_id is not None:
            self._places[conn_id] = dataflow_ledger.place_of(conn_id, required=True)
            self._read_ledgers(partial(dataflow_ledger.ledger_sources, [conn_id]))
            return
        named = sorted({task.conn_id for task in self._tasks.values() if task.conn_id})
        self._read_ledgers(partial(dataflow_ledger.ledger_sources, named))
        self._read_ledgers(lambda: [dataflow_ledger.configured_source()])
        # Of tasks whose connection is a template or cannot be read, and of DAGs that were deleted.
        is_readable = all(schedule and schedule.is_readable for schedule in self._schedules.values())
        is_used = not is_readable or any(task.conn_id is None for task in self._tasks.values())
        for each in sorted({dataflow_ledger.DEFAULT_CONN_ID, *dataflow_ledger.stored_conn_ids(self._session)}):
            self._read_ledgers(partial(dataflow_ledger.ledger_sources, [each]), is_used=is_used)

    def _read_ledgers(self, sources: Callable[[], Iterable[LedgerSource | None]], *, is_used: bool = True) -> None:
        """Add the entries of ledgers that were not read yet; keep the first error, or a warning if no task uses them.

        The entries of a dataflow are those of the first ledger that has any. A ledger that no task uses any more may
        have old states.
        """
        try:
            unread = [each for each in sources() if each is not None and each.ledger_conn_id not in self._ledgers]
            self._ledgers.update(each.ledger_conn_id for each in unread)
            found = fleet_ledger.read_ledgers(self._session, unread, since=self._since)
        except FlowServiceError as error:
            if is_used:
                self.error = self.error or str(error)
            else:
                self.warnings.append(str(error))
            return
        self._records = {**found, **self._records}

    def _arguments(self) -> Iterator[Feed]:
        """Yield the dataflows in the arguments of tasks."""
        for (dag_id, task_id), task in self._tasks.items():
            if task.flow_id is not None:
                yield Feed(flow_id=task.flow_id, dag_id=dag_id, task_id=task_id)

    def dataflows(self, conn_id: str | None, *, kept: Collection[str] = ()) -> list[tuple[DataflowKey, _Dataflow]]:
        """Return all dataflows; with `conn_id`, only those of its organization and sandbox.

        :param kept: ids of earlier dataflows to return although others continue them and no task ingests into them.
        """
        found: dict[DataflowKey, _Dataflow] = defaultdict(_Dataflow)
        for key, records in self._records.items():
            found[key].dag_ids |= records.dag_ids
        for (task, flow_id), ingested in self._history.ingested.items():
            dataflow = found[self._key(flow_id, task)]
            # Not a copy, since most dataflows have one task.
            dataflow.ingested = {**dataflow.ingested, **ingested} if dataflow.ingested else ingested
            dataflow.dag_ids.add(task[0])
        for row in chain.from_iterable(self._history.rows.values()):
            if pushed := flow_of(row):
                found[self._key(pushed, (row.dag_id, row.task_id))].dag_ids.add(row.dag_id)
        for feed in chain.from_iterable(self._feeds.values()):
            task = (feed.dag_id, feed.task_id)
            key = self._key(feed.flow_id, task)
            dataflow = found[key]
            dataflow.dag_ids.add(feed.dag_id)
            settings = self._tasks.get(task)
            if settings is None or settings.flow_id in (None, feed.flow_id):
                dataflow.planned.add(feed.dag_id)
            if settings is not None and settings.flow_id in (None, feed.flow_id):
                dataflow.has_task = True
                dataflow.continues |= {self._key(each, task) for each in settings.continues} - {key}
        place = self._places[conn_id] if conn_id else None
        _join_earlier(found, kept=kept)
        return [(key, each) for key, each in found.items() if place in (None, (key.organization, key.sandbox))]

    def statuses(self, conn_id: str | None, *, flow_ids: Collection[str] | None) -> Iterator[DataflowStatus]:
        """Yield the summaries of dataflows, in any order.

        :param conn_id: as in `dataflows`.
        :param flow_ids: only these dataflows; None means all.
        """
        for key, dataflow in self.dataflows(conn_id, kept=flow_ids or ()):
            if flow_ids is None or key.flow_id in flow_ids:
                yield self._status(self._inputs(key, dataflow))

    def _inputs(self, key: DataflowKey, dataflow: _Dataflow) -> _Inputs:
        records = self._records.get(key) or DataflowRecords(since=self._since)
        earlier = [self._records[each] for each in sorted(dataflow.continues) if each in self._records]
        if earlier:
            records = records.joined(earlier)
        of_ledger = replace(records.records(), error=self.error)
        rows = self._rows(key, dataflow, records=of_ledger)
        ingested = {**dataflow.ingested, **records.ingested}
        return _Inputs(
            key=key,
            dataflow=dataflow,
            rows=rows,
            runs=list(_runs(ingested, separate=_run_ids(rows, of_ledger))),
            records=of_ledger,
            creating=sorted({*dataflow.planned, *(row.dag_id for row in rows if row.creates)}),
        )

    def _status(self, inputs: _Inputs) -> DataflowStatus:
        coverage = self._coverage(inputs)
        records = self._records.get(inputs.key)
        known = inputs.dataflow.ingested.values()
        of_ledger = [records, *(self._records.get(each) for each in inputs.dataflow.continues)]
        before = [each.last for each in of_ledger if each and each.last]
        windows: list[IngestionWindow] = [*before, *known, *_ingested_windows(inputs.rows)]
        return dataflow_status(
            inputs.key,
            coverage,
            within=self.within,
            now=self._now,
            last=max(windows, key=LATER_END, default=None),
            dags=self._dag_statuses(inputs.dataflow),
            name=records.flow_name if records else None,
            has_more=_scheduled_windows(coverage) >= _MOST_WINDOWS,
        )

    def _coverage(self, inputs: _Inputs) -> Coverage:
        planned = inputs.dataflow.planned
        return coverage_of(
            inputs.rows,
            plans=[
                replace(
                    plan_of(
                        self._schedules.get(dag_id) if dag_id in planned else None,
                        dag_id=dag_id,
                        history=self._history_start(dag_id),
                    ),
                    most_windows=_MOST_WINDOWS,
                    dates=self._dates,
                )
                for dag_id in inputs.creating
            ],
            within=self.within,
            now=self._now,
            most_entries=1,
            records=inputs.records,
            ingested=inputs.runs,
        )

    def _history_start(self, dag_id: str) -> HistoryStart | None:
        outputs = self._output_starts.get(dag_id)
        # Without a schedule, the begin of the task instances has no effect.
        tasks = self._task_starts.get(dag_id, outputs)
        return None if tasks is None else HistoryStart(tasks=tasks, outputs=outputs)

    def _rows(self, key: DataflowKey, dataflow: _Dataflow, *, records: LedgerRecords) -> list[TaskRow]:
        of_dags = [row for dag_id in sorted(dataflow.dag_ids) for row in self._history.rows.get(dag_id, ())]
        of_earlier = chain.from_iterable(
            self._history.rows.get(dag_id, ()) for dag_id in sorted(dataflow.earlier_dags - dataflow.dag_ids)
        )
        of_dags += [row for row in of_earlier if row.flow_run and row.flow_run.succeeded]
        feeds = [feed for dag_id in dataflow.dag_ids for feed in self._feeds.get(dag_id, ())]
        newest = self._history.newest
        earlier = [each.flow_id for each in dataflow.continues]
        found = rows_of_flow(
            of_dags, flow_id=key.flow_id, feeds=feeds, records=records, newest=newest, continues=earlier
        )
        return [row for row in found if self._key(key.flow_id, (row.dag_id, row.task_id)) == key]

    def _dag_statuses(self, dataflow: _Dataflow) -> Iterator[DagStatus]:
        """Yield the states of the DAGs; a DAG that only the ledger has was deleted, or may not be read."""
        for dag_id in dataflow.dag_ids:
            if dag_id in self._dags:
                schedule = self._schedules.get(dag_id, _NO_SCHEDULE)
                yield replace(self._dags[dag_id], is_decoded=schedule is not None and schedule.timetable is not None)
            elif self._dag_ids is None:
                yield DagStatus(dag_id=dag_id, is_stale=True)

    def _key(self, flow_id: str, task: TaskKey) -> DataflowKey:
        """Return the dataflow of a task by its connection, or else by the only entries of the ledger that match."""
        settings = self._tasks.get(task)
        conn_id = settings.conn_id if settings else None
        place = self._place(conn_id) if conn_id else None
        if place is not None:
            return DataflowKey(*place, flow_id)
        keys = self._by_flow.get(flow_id, [])
        if len(keys) > 1:
            keys = [key for key in keys if task[0] in self._records[key].dag_ids]
        return keys[0] if len(keys) == 1 else DataflowKey("", "", flow_id)

    def _place(self, conn_id: str) -> _Place | None:
        if conn_id not in self._places:
            place = None
            with suppress(FlowServiceError):  # reading the ledgers reports it
                place = dataflow_ledger.place_of(conn_id)
            self._places[conn_id] = place
        return self._places[conn_id]


def _join_earlier(found: dict[DataflowKey, _Dataflow], *, kept: Collection[str]) -> None:
    """Count the windows of earlier dataflows for those that continue them, and remove earlier ones without a task.

    :param kept: ids that are not removed.
    """
    own = {key: each.ingested for key, each in found.items()}
    continued = {earlier for each in found.values() for earlier in each.continues}
    for each in found.values():
        for earlier in each.continues:
            each.ingested = {**own.get(earlier, {}), **each.ingested}
            each.earlier_dags |= found[earlier].dag_ids if earlier in found else set()
    for earlier in continued & found.keys():
        if not found[earlier].has_task and earlier.flow_id not in kept:
            del found[earlier]


def _ingested_windows(rows: Iterable[TaskRow]) -> Iterator[IngestionWindow]:
    for row in rows:
        if row.flow_run and row.flow_run.succeeded and row.flow_run.window:
            yield row.flow_run.window


def _run_ids(rows: Iterable[TaskRow], records: LedgerRecords) -> set[str]:
    """Return the flow runs of rows and entries. They are joined by id, so they must not be merged with others."""
    ids = {row.flow_run.id for row in rows if row.flow_run}
    for entry in records.entries:
        ids.update(run.flow_run_id for run in entry.earlier)
        ids.update(restated_runs(entry))
        if entry.flow_run_id is not None:
            ids.add(entry.flow_run_id)
    return ids


def _runs(ingested: Mapping[str, IngestionWindow], *, separate: Collection[str]) -> Iterator[KnownRun]:
    """Yield successful flow runs: merged ones, and those of `separate` with their ids."""
    yield from merged_runs(window for flow_run_id, window in ingested.items() if flow_run_id not in separate)
    for flow_run_id in separate:
        if flow_run_id in ingested:
            yield KnownRun(id=flow_run_id, window=ingested[flow_run_id], status=FlowRunStatus.SUCCESS)


def _scheduled_windows(coverage: Coverage) -> int:
    """Return the number of spans that only a schedule expects."""
    return sum(1 for span in coverage.spans for each in span.expected if each.dag_id and each.dag_run_id is None)
