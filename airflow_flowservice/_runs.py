"""The DAG runs that a schedule or a backfill makes, as the scheduler's own timetable counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow_flowservice.ingestion.schedule import RunDates


def core_timetable(timetable: Any) -> Any:
    """A DAG file's timetable as the scheduler has it."""
    try:
        from airflow.serialization.encoders import coerce_to_core_timetable
    except ImportError:  # before 3.2, a DAG file's timetable is the scheduler's
        return timetable
    return coerce_to_core_timetable(timetable)


def dates_between(timetable: Any, *, earliest: datetime, latest: datetime | None) -> Iterator[RunDates]:
    """The dates of the runs that a backfill between these makes, and of those that it would make once they are over.

    :param timetable: the core's.
    :param earliest: aware; as `--from-date` of `airflow backfill create`, inclusive.
    :param latest: aware; as `--to-date`, inclusive. None goes on for ever, where the timetable is not partitioned.
    """
    import pendulum

    edges = {"earliest": pendulum.instance(earliest), "latest": pendulum.instance(latest) if latest else None}
    for info in _infos(timetable, **edges):
        yield _dates(info)


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
