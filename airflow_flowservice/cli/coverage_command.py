"""Command `airflow flowservice coverage`: show the state of each window."""

from __future__ import annotations

import sys
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
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_flowservice._airflow.database import TaskRow
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.cli.coverage_report import CoverageReport
    from airflow_flowservice.windows.window import IngestionWindow

# With partitions or offsets, a DAG run for an earlier date can have a window within the range.
_MARGIN = timedelta(days=31)
_CLOCK_SKEW = timedelta(days=1)
_WITHOUT_DATABASE = ", or give --flow-id and --conn-id without --dag-id"


def coverage(arguments: argparse.Namespace) -> NoReturn:
    """Print the coverage and exit: 0 if it is complete, 1 if not, 2 if there is nothing to show.

    A complete coverage has no missing, failed or duplicated window.
    """
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
    sys.exit(0 if report.coverage.whole else 1)


def _report(arguments: argparse.Namespace) -> CoverageReport:
    within = _within(arguments.from_date, arguments.to_date)
    if arguments.dag_id is None:
        if not (arguments.flow_id and arguments.conn_id):
            raise CommandError("give --dag-id, or --flow-id and --conn-id to query only Flow Service")
        return _of_flow_service(arguments.flow_id, conn_id=arguments.conn_id, within=within)
    return _of_dag(arguments, within=within)


def _within(begin: datetime, end: datetime) -> IngestionWindow:
    from airflow_flowservice.exceptions import WindowError
    from airflow_flowservice.windows.window import IngestionWindow

    try:
        return IngestionWindow(begin, end)
    except WindowError as error:
        raise CommandError(f"--from and --to are no valid range: {error.message}") from error


def _of_dag(arguments: argparse.Namespace, *, within: IngestionWindow) -> CoverageReport:
    from airflow_flowservice._airflow import backfill_commands, dag_coverage, database, versions
    from airflow_flowservice.cli.coverage_report import CoverageReport

    dag_id = arguments.dag_id
    with metadata_session(alternative=_WITHOUT_DATABASE) as session:
        schedule = database.dag_schedule_of(session, dag_id)
        since = within.start - _MARGIN
        all_rows = list(database.task_rows(session, dag_ids=[dag_id], since=since))
        feeds = database.feeds(session, dag_ids=[dag_id])
    rows = [row for row in all_rows if arguments.task_id in (None, row.task_id)]
    if schedule is None and not rows:
        raise CommandError(
            f"Airflow's database has no DAG {dag_id!r}. Check the id (`airflow dags list`), and run this command "
            "with the scheduler's configuration"
        )
    flow_id = arguments.flow_id or _only_flow(rows, dag_id=dag_id)
    if flow_id is not None:
        rows = dag_coverage.rows_of_flow(rows, flow_id=flow_id, feeds=feeds, include_unknown=True)
    found, queried = _found(flow_id, conn_id=arguments.conn_id, within=within)
    plan = dag_coverage.plan_of(schedule, dag_id=dag_id)
    coverage = dag_coverage.coverage_of(rows, plans=[plan], within=within, now=versions.utc_now(), found=found)
    if not coverage.spans and not coverage.unplaced:
        raise CommandError(
            f"DAG {dag_id!r} has no window in {within}: it has no DAG run there, and its schedule has no DAG run that "
            "is over. Move --from or --to"
        )
    return CoverageReport(
        within=within,
        coverage=coverage,
        dag_id=dag_id,
        flow_id=flow_id,
        flow_service_queried=queried,
        fill=tuple(backfill_commands.fill_commands(coverage, dag_id=dag_id)),
        trigger=tuple(backfill_commands.trigger_commands(coverage, dag_id=dag_id)),
        again=tuple(backfill_commands.tasks_run_again(coverage, all_rows)),
    )


def _of_flow_service(flow_id: str, *, conn_id: str, within: IngestionWindow) -> CoverageReport:
    from airflow_flowservice._airflow import versions
    from airflow_flowservice.cli.coverage_report import CoverageReport
    from airflow_flowservice.coverage.cover import cover_all
    from airflow_flowservice.exceptions import FlowServiceError

    try:
        runs = _runs_at_flow_service(flow_id, conn_id=conn_id, within=within)
    except FlowServiceError as error:
        raise CommandError(str(error)) from error
    coverage = cover_all(runs, within=within, now=versions.utc_now())
    return CoverageReport(within=within, coverage=coverage, flow_id=flow_id, flow_service_queried=True)


def _found(flow_id: str | None, *, conn_id: str | None, within: IngestionWindow) -> tuple[list[FlowRun], bool]:
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


def _only_flow(rows: Sequence[TaskRow], *, dag_id: str) -> str | None:
    """Return the dataflow of the tasks; None if no task has reported one yet.

    :raises CommandError: there are several dataflows.
    """
    from airflow_flowservice._airflow.dag_coverage import flow_of

    task_ids = {flow_id: row.task_id for row in rows if (flow_id := flow_of(row))}
    if len(task_ids) > 1:
        listed = "".join(f"\n  {flow_id}, of task {task_id}" for flow_id, task_id in sorted(task_ids.items()))
        raise CommandError(f"DAG {dag_id!r} has several dataflows. Choose one with --flow-id:{listed}")
    return next(iter(task_ids), None)
