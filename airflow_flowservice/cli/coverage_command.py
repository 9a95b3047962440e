# SPDX-License-Identifier: Apache-2.0
"""Command `airflow flowservice coverage`: show the state of each window."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from airflow_flowservice.cli.metadata_session import metadata_session
from airflow_flowservice.cli.output import (
    CommandError,
    airflow_console,
    output_format,
    quiet_retries,
    quiet_stdout,
    write_document,
    write_error,
    write_note,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from airflow_flowservice._airflow.dag_plan import Plan
    from airflow_flowservice._airflow.database import TaskRow, TaskSettings
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.cli.coverage_report import CoverageReport
    from airflow_flowservice.coverage.cover import Coverage
    from airflow_flowservice.coverage.ledger_runs import LedgerRecords
    from airflow_flowservice.windows.window import IngestionWindow

# With partitions or offsets, a DAG run for an earlier date can have a window within the range.
_MARGIN = timedelta(days=31)
_CLOCK_SKEW = timedelta(days=1)
_WITHOUT_DATABASE = ", or give --flow-id and --conn-id without --dag-id"


def coverage(arguments: argparse.Namespace) -> NoReturn:
    """Print the coverage and exit: 0 if it is complete, 1 if not, 2 if there is nothing to show.

    A complete coverage has no missing, failed or duplicated window. If the ledger cannot be read, exit with 2.
    """
    if arguments.all:
        from airflow_flowservice.cli.fleet_command import show_all

        show_all(arguments)
    try:
        with quiet_stdout(), quiet_retries():
            report = _report(arguments)
    except CommandError as error:
        write_error(error)
        sys.exit(2)
    output = output_format(arguments)
    if output in ("json", "yaml"):
        write_document(report.to_dict(), output=output)
    else:
        from airflow_flowservice.cli.timeline import print_coverage

        print_coverage(airflow_console(), report, output=output)
    if not report.ledger_read and report.ledger_required:
        write_note("the ledger could not be read, so the coverage is incomplete; the exit status is 2")
        sys.exit(2)
    sys.exit(0 if report.coverage.whole else 1)


def _report(arguments: argparse.Namespace) -> CoverageReport:
    if arguments.tag:
        raise CommandError("--tag selects dataflows of --all")
    if arguments.metrics:
        raise CommandError("--metrics sets the gauges of --all")
    within = _within(arguments)
    if arguments.dag_id is None:
        if not (arguments.flow_id and arguments.conn_id):
            raise CommandError("give --dag-id, or --flow-id and --conn-id to query Flow Service and the ledger")
        return _of_flow_service(arguments.flow_id, conn_id=arguments.conn_id, within=within)
    return _of_dag(arguments, within=within)


def _within(arguments: argparse.Namespace) -> IngestionWindow:
    """Return the range of `--from` and `--to`, or that of `--since`.

    :raises CommandError: neither is given, or both, or the range is invalid.
    """
    from airflow_flowservice._airflow import versions
    from airflow_flowservice.cli.time_length import length_of

    edges = (arguments.from_date, arguments.to_date)
    if arguments.since is not None:
        if edges != (None, None):
            raise CommandError("--since is a range up to now: omit --from and --to, or give them without --since")
        now = versions.utc_now()
        edges = (now - length_of(arguments.since, name="since"), now)
    elif None in edges:
        raise CommandError("give --from and --to, or --since, or --all for a summary of all dataflows")
    return coverage_range(*edges)


def coverage_range(begin: datetime, end: datetime) -> IngestionWindow:
    """Return the range of `--from` and `--to`.

    :raises CommandError: the range is invalid.
    """
    from airflow_flowservice.exceptions import WindowError
    from airflow_flowservice.windows.window import IngestionWindow

    try:
        return IngestionWindow(begin, end)
    except WindowError as error:
        raise CommandError(f"--from and --to are no valid range: {error.message}") from error


def _of_dag(arguments: argparse.Namespace, *, within: IngestionWindow) -> CoverageReport:
    from airflow_flowservice._airflow import dag_coverage, versions

    dag_id = arguments.dag_id
    history = read_history(arguments, within=within)
    found, queried = found_runs(history.flow_id, conn_id=arguments.conn_id, within=within)
    coverage = dag_coverage.coverage_of(
        history.rows,
        plans=[history.plan],
        within=within,
        now=versions.utc_now(),
        found=found,
        records=history.records,
    )
    if not coverage.spans and not coverage.unplaced and history.records.error is None:
        raise CommandError(
            f"DAG {dag_id!r} has no window in {within}: it has no DAG run there, and its schedule has no DAG run that "
            "is over. Move --from or --to"
        )
    return _report_of(history, coverage, within=within, queried=queried)


@dataclass(frozen=True, kw_only=True)
class DagRecords:
    """Records of a DAG in Airflow's database and in the ledger.

    :param all_rows: of all dataflows of the DAG.
    :param rows: of the dataflow.
    """

    plan: Plan
    flow_id: str | None
    all_rows: list[TaskRow]
    rows: list[TaskRow]
    records: LedgerRecords


def read_history(arguments: argparse.Namespace, *, within: IngestionWindow) -> DagRecords:
    """Read the DAG's rows and the ledger's entries.

    :raises CommandError: there is no such DAG and no entry of it, or it has several dataflows.
    """
    from airflow_flowservice._airflow import dag_plan, database, dataflow_ledger, flow_rows, history_start
    from airflow_flowservice.coverage.ledger_runs import NO_RECORDS
    from airflow_flowservice.windows.window import EPOCH, IngestionWindow

    dag_id, task_id = arguments.dag_id, arguments.task_id
    since = max(within.start - _MARGIN, EPOCH)
    around = IngestionWindow(since, within.end)
    with metadata_session(alternative=_WITHOUT_DATABASE) as session:
        schedule = database.dag_schedule_of(session, dag_id)
        all_rows = list(database.task_rows(session, dag_ids=[dag_id], since=since))
        feeds = database.feeds(session, dag_ids=[dag_id])
        history = history_start.history_start(session, dag_id)
        tasks = [task for task in (schedule.tasks if schedule else ()) if task_id in (None, task.task_id)]
        conn_ids = _conn_ids(arguments.conn_id, tasks)
        rows = [row for row in all_rows if task_id in (None, row.task_id)]
        flow_id = arguments.flow_id or _only_flow(
            rows,
            tasks,
            dag_id=dag_id,
            recorded=lambda: dataflow_ledger.flows_of_dag(
                session, conn_ids=conn_ids, dag_id=dag_id, task_id=task_id, within=around
            ),
        )
        records, continues = NO_RECORDS, flow_rows.earlier_flows(tasks, flow_id or "", feeds=feeds)
        if flow_id is not None:
            # A connection of another dataflow's task does not have to be readable.
            conn_ids = _conn_ids(arguments.conn_id, flow_rows.tasks_of_flow(tasks, flow_id)) or conn_ids
            records = dataflow_ledger.read_records(
                session, flow_id=flow_id, conn_ids=conn_ids, dag_ids=[dag_id], within=around, continues=continues
            )
    _require_known(dag_id, is_known=bool(schedule or rows or records.entries))
    if flow_id is not None:
        rows = flow_rows.rows_of_flow(
            rows, flow_id=flow_id, feeds=feeds, include_unknown=True, records=records, continues=continues
        )
    plan = dag_plan.plan_of(schedule, dag_id=dag_id, history=history)
    return DagRecords(plan=plan, flow_id=flow_id, all_rows=all_rows, rows=rows, records=records)


def _require_known(dag_id: str, *, is_known: bool) -> None:
    if not is_known:
        raise CommandError(
            f"Airflow's database has no DAG {dag_id!r}. Check the id (`airflow dags list`), and run this command "
            "with the scheduler's configuration"
        )


def _conn_ids(conn_id: str | None, tasks: Iterable[TaskSettings]) -> list[str]:
    """Return the connections that define the ledger and the sandbox."""
    if conn_id is not None:
        return [conn_id]
    return sorted({task.conn_id for task in tasks if task.conn_id is not None})


def _report_of(history: DagRecords, coverage: Coverage, *, within: IngestionWindow, queried: bool) -> CoverageReport:
    from airflow_flowservice._airflow import backfill_commands, dag_coverage, versions
    from airflow_flowservice.cli.coverage_report import CoverageReport

    plan, is_read = history.plan, history.records.error is None
    report = CoverageReport(
        within=within,
        coverage=coverage,
        dag_id=plan.dag_id,
        flow_id=history.flow_id,
        flow_service_queried=queried,
        history_begin=plan.history.tasks if plan.history else None,
        notices=tuple(dag_coverage.notices_of(coverage, plans=[plan], records=history.records)),
        ledger_read=is_read,
    )
    if not is_read:
        return report
    fill = tuple(backfill_commands.fill_commands(coverage, dag_id=plan.dag_id))
    trigger = tuple(backfill_commands.trigger_commands(coverage, dag_id=plan.dag_id))
    again = tuple(backfill_commands.tasks_run_again(coverage, history.all_rows))
    command = backfill_commands.fill_command(
        program=versions.command_program(), dag_id=plan.dag_id, flow_id=history.flow_id, within=within
    )
    requests = backfill_commands.fill_rest_requests(coverage, dag_id=plan.dag_id, now=versions.utc_now())
    return replace(
        report,
        fill=fill,
        trigger=trigger,
        again=again,
        fill_command=command if again or len(fill) + len(trigger) > 1 else None,
        requests=tuple(map(str, requests)),
    )


def _of_flow_service(flow_id: str, *, conn_id: str, within: IngestionWindow) -> CoverageReport:
    from airflow_flowservice._airflow import dag_coverage, dataflow_ledger, versions
    from airflow_flowservice.cli.coverage_report import CoverageReport
    from airflow_flowservice.coverage.ledger_runs import NO_RECORDS
    from airflow_flowservice.exceptions import FlowServiceError

    try:
        runs = _runs_at_flow_service(flow_id, conn_id=conn_id, within=within)
    except FlowServiceError as error:
        raise CommandError(str(error)) from error
    # The session connects only to read Variables: a SQL ledger needs no metadata database.
    with metadata_session() as session:
        records = dataflow_ledger.read_records(session, flow_id=flow_id, conn_ids=[conn_id], dag_ids=(), within=within)
    used = NO_RECORDS if records.lacks_database else records
    coverage = dag_coverage.coverage_without_dag(runs, within=within, now=versions.utc_now(), records=used)
    if records.lacks_database:
        notices = [f"Only Flow Service was queried, and not the ledger in Airflow's Variables: {records.error}."]
    else:
        notices = dag_coverage.notices_of(coverage, plans=(), records=records)
    return CoverageReport(
        within=within,
        coverage=coverage,
        flow_id=flow_id,
        flow_service_queried=True,
        notices=tuple(notices),
        ledger_read=records.error is None,
        ledger_required=used.error is not None,
        from_ledger=bool(records.entries or records.unreadable),
    )


def found_runs(flow_id: str | None, *, conn_id: str | None, within: IngestionWindow) -> tuple[list[FlowRun], bool]:
    """Return the flow runs of Flow Service, and whether it was queried."""
    from airflow_flowservice.exceptions import FlowServiceError

    if conn_id is None:
        write_note(
            "Flow Service was not queried, so flow runs that were created outside the DAG, or replaced by a clear, are "
            "not shown; give --conn-id to query it"
        )
        return [], False
    if flow_id is None:
        write_note("Flow Service was not queried, because no task has reported its dataflow yet; give --flow-id")
        return [], False
    try:
        return _runs_at_flow_service(flow_id, conn_id=conn_id, within=within), True
    except FlowServiceError as error:
        write_note(f"Flow Service could not be queried, so only Airflow's records are shown: {error}")
        return [], False


def _runs_at_flow_service(flow_id: str, *, conn_id: str, within: IngestionWindow) -> list[FlowRun]:
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.hooks import client_of

    with client_of(connections.stored_connection(conn_id)) as client:
        # A flow run is created after the end of its window. The margin allows for clock differences.
        return list(client.list_runs(flow_id=flow_id, created_since=within.start - _CLOCK_SKEW))


def _only_flow(
    rows: Sequence[TaskRow], tasks: Iterable[TaskSettings], *, dag_id: str, recorded: Callable[[], Iterable[str]]
) -> str | None:
    """Return the dataflow of the tasks; None if it is not known yet.

    It is that of XComs and of the ledger's entries. If there are none, it is the argument of the DAG's tasks. An
    earlier dataflow without a task is not counted beside the one that continues it.

    :param recorded: return the dataflows of the DAG's entries in the ledger; called if the XComs name at most one.
    :raises CommandError: there are several dataflows.
    """
    from airflow_flowservice._airflow.flow_rows import flow_of

    tasks = list(tasks)
    task_ids = {flow_id: f", of task {row.task_id}" for row in rows if (flow_id := flow_of(row))}
    if len(task_ids) < 2:
        task_ids = {**dict.fromkeys(recorded(), ", of the ledger"), **task_ids}
    if not task_ids:
        task_ids = {task.flow_id: f", of task {task.task_id}" for task in tasks if task.flow_id is not None}
    earlier = {flow_id for task in tasks for flow_id in task.continues} - {task.flow_id for task in tasks}
    if earlier & task_ids.keys():
        current = {task.flow_id: f", of task {task.task_id}" for task in tasks if task.continues and task.flow_id}
        task_ids = {
            **current,
            **{flow_id: source for flow_id, source in task_ids.items() if flow_id not in earlier},
        } or task_ids
    if len(task_ids) > 1:
        listed = "".join(f"\n  {flow_id}{source}" for flow_id, source in sorted(task_ids.items()))
        raise CommandError(f"DAG {dag_id!r} has several dataflows. Choose one with --flow-id:{listed}")
    return next(iter(task_ids), None)
