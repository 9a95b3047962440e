"""The DAG runs that a schedule or a backfill makes, as Airflow's own timetable counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_flowservice.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow_flowservice.ingestion.schedule import RunDates


def timetable_of(dag: Any) -> Any:
    """The DAG's timetable as the scheduler has it.

    :raises CommandError: no dates make its runs (`None`, `@once`, assets).
    """
    try:
        timetable = _core(dag.timetable)
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
        runs = [_dates(info) for info in _infos(timetable, earliest=earliest, latest=latest)]
    except Exception as error:
        raise CommandError(f"the {type(timetable).__name__} gives no run dates: {error!r}") from error
    if runs:
        return runs
    raise CommandError(
        f"the schedule ({timetable.summary}) makes no run from {earliest.isoformat()} to {latest.isoformat()}. Move "
        "--from or --to to a run's date; both are inclusive"
    )


def _core(timetable: Any) -> Any:
    try:
        from airflow.serialization.encoders import coerce_to_core_timetable
    except ImportError:  # before 3.2, a DAG file's timetable is the scheduler's
        return timetable
    return coerce_to_core_timetable(timetable)


def _dates(info: Any) -> RunDates:
    from airflow_flowservice.ingestion.schedule import RunDates

    interval = info.data_interval
    return RunDates(
        run_after=info.run_after,
        logical_date=info.logical_date,
        data_interval_start=interval.start if interval else None,
        data_interval_end=interval.end if interval else None,
        partition_date=getattr(info, "partition_date", None),
    )


def _infos(timetable: Any, *, earliest: Any, latest: Any) -> Iterator[Any]:
    """As `iter_dagrun_infos_between` of Airflow's DAG, which would hide a timetable's errors."""
    from airflow.timetables.base import TimeRestriction

    if getattr(timetable, "partitioned", False):
        yield from timetable.iter_partition_dagrun_infos(earliest=earliest, latest=latest)
        return
    restriction = TimeRestriction(earliest, latest, catchup=True)
    last = None
    while info := _next(timetable, last, restriction):
        yield info
        last = info


def _next(timetable: Any, last: Any, restriction: Any) -> Any:
    if hasattr(timetable, "next_dagrun_info_v2"):
        return timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
    interval = last.data_interval if last else None
    return timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
