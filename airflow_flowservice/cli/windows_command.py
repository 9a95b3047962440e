"""`airflow flowservice windows`: which window each DAG run ingests, before it does."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice.cli.errors import CommandError
from airflow_flowservice.cli.output import quiet_stdout, remark

if TYPE_CHECKING:
    import argparse
    from datetime import tzinfo

    from airflow_flowservice.cli.rows import Row


def windows(arguments: argparse.Namespace) -> NoReturn:
    """Print the windows, and exit: 0 if they tile, 1 if they do not, 2 if there is nothing to show."""
    try:
        with quiet_stdout():
            rows, zone = _rows(arguments)
    except CommandError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
    _print(rows, zone=zone, as_json=arguments.as_json)
    sys.exit(1 if any(row.faults for row in rows) else 0)


def _rows(arguments: argparse.Namespace) -> tuple[list[Row], tzinfo]:
    from airflow_flowservice._airflow import choose_window, versions
    from airflow_flowservice.cli.dag_file import read_dag
    from airflow_flowservice.cli.planned_runs import runs_between, timetable_of
    from airflow_flowservice.cli.rows import rows_of
    from airflow_flowservice.cli.task import WindowSettings, settings_of

    dag = read_dag(arguments.dag_id, path=arguments.dagfile_path, bundle_names=arguments.bundle_name)
    timetable = timetable_of(dag)
    settings = settings_of(dag, task_id=arguments.task_id)
    runs = runs_between(timetable, earliest=arguments.from_date, latest=arguments.to_date)
    if settings is None:
        remark(f"DAG {dag.dag_id!r} has no OnDemandFlowRunOperator; these are the windows that one would have")
    settings = settings or WindowSettings()
    if settings.since_last_success:
        remark(
            "with window='since_last_success' a window reaches back to where the last success ended, and backfills are "
            "refused"
        )
    if remedy := choose_window.future_window_remedy(timetable, offset=settings.offset):
        remark(f"runs come before their windows are over, and are refused until then: {remedy}")
    zone = _zone(dag, timetable)
    return rows_of(runs, timetable=timetable, zone=zone, now=versions.utc_now(), offset=settings.offset), zone


def _zone(dag: Any, timetable: Any) -> tzinfo:
    from airflow_flowservice._airflow import timetables

    schedule, _ = timetables.parse_timetable(timetable)
    crons = getattr(schedule, "schedules", (schedule,))
    zone: tzinfo = getattr(crons[0], "zone", None) or dag.timezone
    return zone


def _print(rows: list[Row], *, zone: tzinfo, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(f"{json.dumps([row.to_dict() for row in rows], indent=2)}\n")
        return
    from rich.console import Console

    from airflow_flowservice.cli.table import show

    show(Console(), rows, zone=zone)
