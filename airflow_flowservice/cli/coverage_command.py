"""`airflow flowservice coverage`: which windows are in, which are missing, failed or in twice."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice.cli.errors import CommandError
from airflow_flowservice.cli.output import first_line, quiet_retries, quiet_stdout, remark

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from airflow_flowservice._airflow.database import TaskRow
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.cli.report import Report
    from airflow_flowservice.windows.window import IngestionWindow

# A DAG run for an earlier date can have a window that reaches into the time that is looked at: partitions, offsets.
_EARLIER = timedelta(days=31)
_SKEW = timedelta(days=1)
_WIDE = 1000


def coverage(arguments: argparse.Namespace) -> NoReturn:
    """Print the coverage, and exit: 0 if nothing is missing, failed or in twice, 1 if something is, else 2."""
    try:
        with quiet_stdout(), quiet_retries():
            report = _report(arguments)
    except CommandError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
    _print(report, as_json=arguments.as_json)
    sys.exit(0 if report.coverage.whole else 1)


def _report(arguments: argparse.Namespace) -> Report:
    within = _within(arguments.from_date, arguments.to_date)
    if arguments.dag_id is None:
        if not (arguments.flow_id and arguments.conn_id):
            raise CommandError("give --dag-id, or --flow-id and --conn-id to ask Flow Service alone")
        return _of_flow_service(arguments.flow_id, conn_id=arguments.conn_id, within=within)
    return _of_dag(arguments, within=within)


def _within(begin: datetime, end: datetime) -> IngestionWindow:
    from airflow_flowservice.exceptions import WindowError
    from airflow_flowservice.windows.window import IngestionWindow

    try:
        return IngestionWindow(begin, end)
    except WindowError as error:
        raise CommandError(f"--from and --to do not give a span of time: {error.message}") from error


def _of_dag(arguments: argparse.Namespace, *, within: IngestionWindow) -> Report:
    from airflow_flowservice._airflow import backfill_commands, dag_coverage, database, versions
    from airflow_flowservice.cli.report import Report

    dag_id = arguments.dag_id
    with _session() as session:
        dag = database.schedule_of(session, dag_id)
        since = within.start - _EARLIER
        all_rows = list(database.task_rows(session, dag_ids=[dag_id], since=since))
        feeds = database.feeds(session, dag_ids=[dag_id])
    rows = [row for row in all_rows if arguments.task_id in (None, row.task_id)]
    if dag is None and not rows:
        raise CommandError(
            f"Airflow's database has no DAG {dag_id!r}. Check the id (`airflow dags list`), and that this command has "
            "the scheduler's configuration"
        )
    flow_id = arguments.flow_id or _only_flow(rows, dag_id=dag_id)
    if flow_id is not None:
        rows = dag_coverage.rows_of_flow(rows, flow_id=flow_id, feeds=feeds, silent=True)
    found, asked = _found(flow_id, conn_id=arguments.conn_id, within=within)
    plan = dag_coverage.plan_of(dag, dag_id=dag_id)
    coverage = dag_coverage.coverage_of(rows, plans=[plan], within=within, now=versions.utc_now(), found=found)
    if not coverage.spans and not coverage.unplaced:
        raise CommandError(
            f"DAG {dag_id!r} has no window in {within}: it has no DAG run there, and its schedule no run that is over. "
            "Move --from or --to"
        )
    return Report(
        within=within,
        coverage=coverage,
        dag_id=dag_id,
        flow_id=flow_id,
        asked_flow_service=asked,
        fill=tuple(backfill_commands.fill_commands(coverage, dag_id=dag_id)),
        trigger=tuple(backfill_commands.trigger_commands(coverage, dag_id=dag_id)),
        again=tuple(backfill_commands.tasks_run_again(coverage, all_rows)),
    )


def _of_flow_service(flow_id: str, *, conn_id: str, within: IngestionWindow) -> Report:
    from airflow_flowservice._airflow import versions
    from airflow_flowservice.cli.report import Report
    from airflow_flowservice.coverage.cover import cover_all
    from airflow_flowservice.exceptions import FlowServiceError

    try:
        runs = _runs_at_flow_service(flow_id, conn_id=conn_id, within=within)
    except FlowServiceError as error:
        raise CommandError(str(error)) from error
    coverage = cover_all(runs, within=within, now=versions.utc_now())
    return Report(within=within, coverage=coverage, flow_id=flow_id, asked_flow_service=True)


def _found(flow_id: str | None, *, conn_id: str | None, within: IngestionWindow) -> tuple[list[FlowRun], bool]:
    """What Flow Service has, and whether it could be asked."""
    from airflow_flowservice.exceptions import FlowServiceError

    if conn_id is None:
        remark(
            "Flow Service was not asked, so flow runs that were made elsewhere, or that a clear has replaced, are not "
            "seen; give --conn-id to ask it"
        )
        return [], False
    if flow_id is None:
        remark("Flow Service was not asked, because no task has told which dataflow it feeds; give --flow-id")
        return [], False
    try:
        return _runs_at_flow_service(flow_id, conn_id=conn_id, within=within), True
    except FlowServiceError as error:
        remark(f"Flow Service could not be asked, so this is what Airflow knows alone: {error}")
        return [], False


def _runs_at_flow_service(flow_id: str, *, conn_id: str, within: IngestionWindow) -> list[FlowRun]:
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.hooks import client_of

    with client_of(connections.stored_connection(conn_id)) as client:
        # Windows are created when they are over, however late; clocks may differ.
        return list(client.list_runs(flow_id=flow_id, created_since=within.start - _SKEW))


def _only_flow(rows: Sequence[TaskRow], *, dag_id: str) -> str | None:
    """The dataflow that the tasks feed; None if none has told yet.

    :raises CommandError: there are several.
    """
    from airflow_flowservice._airflow.dag_coverage import flow_of

    fed = {flow_id: row.task_id for row in rows if (flow_id := flow_of(row))}
    if len(fed) > 1:
        listed = "".join(f"\n  {flow_id}, of task {task_id}" for flow_id, task_id in sorted(fed.items()))
        raise CommandError(f"DAG {dag_id!r} feeds several dataflows, so choose one with --flow-id:{listed}")
    return next(iter(fed), None)


@contextmanager
def _session() -> Iterator[Any]:
    """A session of the metadata database.

    :raises CommandError: it cannot be read.
    """
    from airflow.utils.session import create_session
    from sqlalchemy.exc import DBAPIError

    try:
        with create_session() as session:
            yield session
    except DBAPIError as error:
        raise CommandError(
            f"Airflow's metadata database cannot be read ({type(error).__name__}: {first_line(error.orig)}). "
            "Run this with the scheduler's configuration, or give --flow-id and --conn-id without --dag-id"
        ) from error


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(f"{json.dumps(report.to_dict(), indent=2)}\n")
        return
    from rich.console import Console

    from airflow_flowservice.cli.timeline import show

    # In a file or a pipe, ids stay whole.
    show(Console(width=None if sys.stdout.isatty() else _WIDE), report)
