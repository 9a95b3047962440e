"""What dates make of a DAG's schedule, or why they make nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import dag_runs, versions
from airflow_flowservice.cli.errors import CommandError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_flowservice.windows.schedule import RunDates


def timetable_of(dag: Any) -> Any:
    """The DAG's timetable as the scheduler has it.

    :raises CommandError: no dates make its runs (`None`, `@once`, assets).
    """
    try:
        timetable = versions.core_timetable(dag.timetable)
    except Exception as error:
        name = type(dag.timetable).__name__
        raise CommandError(f"the scheduler cannot read the {name} of DAG {dag.dag_id!r}: {error!r}") from error
    if timetable.periodic:
        return timetable
    raise CommandError(
        f"DAG {dag.dag_id!r} has no time schedule ({timetable.summary}), so dates make no runs of it. Give it a cron "
        "or timedelta schedule, or pass window_start and window_end to its tasks or runs"
    )


def runs_between(timetable: Any, *, earliest: datetime, latest: datetime) -> list[RunDates]:
    """The runs that a backfill over these dates makes, and those that it would make once they are over.

    :raises CommandError: there are none.
    """
    if earliest > latest:
        raise CommandError(f"--from ({earliest.isoformat()}) is after --to ({latest.isoformat()})")
    try:
        runs = list(dag_runs.dates_between(timetable, earliest=earliest, latest=latest))
    except Exception as error:
        raise CommandError(f"the {type(timetable).__name__} gives no run dates: {error!r}") from error
    if runs:
        return runs
    raise CommandError(
        f"the schedule ({timetable.summary}) makes no run from {earliest.isoformat()} to {latest.isoformat()}. Move "
        "--from or --to to a run's date; both are inclusive"
    )
