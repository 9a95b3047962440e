# SPDX-License-Identifier: Apache-2.0
"""Compute the dates of the DAG runs that a schedule or a backfill creates, from the scheduler's timetable."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow_flowservice.windows.schedule import RunDates

_YEAR = timedelta(days=366)


def dates_between(timetable: Any, *, earliest: datetime, latest: datetime | None) -> Iterator[RunDates]:
    """Yield the dates of the DAG runs that a backfill between these dates creates, including those in the future.

    :param timetable: of Airflow core.
    :param earliest: aware; as `--from-date` of `airflow backfill create`, inclusive.
    :param latest: aware; as `--to-date`, inclusive. None means no limit, and is invalid for partitioned timetables.
    """
    import pendulum

    edges = {"earliest": pendulum.instance(earliest), "latest": pendulum.instance(latest) if latest else None}
    for info in versions.run_infos(timetable, **edges):
        yield _run_dates(info, timetable)


def interval_start(timetable: Any, instant: datetime) -> datetime:
    """Return the start of the last data interval that ends at or before an instant, as the timetable infers it.

    Return the instant itself if the timetable infers none, or one that is more than a year earlier.

    :param timetable: of Airflow core, also a custom one.
    :param instant: aware.
    """
    import pendulum

    try:
        start = timetable.infer_manual_data_interval(run_after=pendulum.instance(instant)).start
        return start if instant - _YEAR <= start <= instant else instant
    except Exception:  # of a custom timetable
        return instant


def _run_dates(info: Any, timetable: Any) -> RunDates:
    from airflow_flowservice.windows.schedule import RunDates

    interval = info.data_interval
    return RunDates(
        run_after=info.run_after,
        logical_date=info.logical_date,
        data_interval_start=interval.start if interval else None,
        data_interval_end=interval.end if interval else None,
        partition_date=versions.partition_date_of(info, timetable),
    )
