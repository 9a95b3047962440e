# SPDX-License-Identifier: Apache-2.0
"""Compute the dates of the DAG runs that a schedule or a backfill creates, from the scheduler's timetable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import timetables, versions
from airflow_flowservice.exceptions import WindowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow_flowservice.windows.cron import CronSchedule, MultipleCronSchedule
    from airflow_flowservice.windows.schedule import RunDates

_YEAR = timedelta(days=366)
_DAY = timedelta(days=1)


def dates_between(timetable: Any, *, earliest: datetime, latest: datetime | None) -> Iterator[RunDates]:
    """Yield the dates of the DAG runs that a backfill between these dates creates, including those in the future.

    :param timetable: of Airflow core.
    :param earliest: aware; as `--from-date` of `airflow backfill create`, inclusive.
    :param latest: aware; as `--to-date`, inclusive. None means no limit, and is invalid for partitioned timetables.
    """
    import pendulum

    edges = {"earliest": pendulum.instance(earliest), "latest": pendulum.instance(latest) if latest else None}
    dates = (_run_dates(info, timetable) for info in versions.run_infos(timetable, **edges))
    first = list(islice(dates, 2))
    yield from first
    step = _CronStep.of(timetable, first) if latest is None else None
    yield from dates if step is None else step.later(first[1])


@dataclass(frozen=True, kw_only=True)
class _CronStep:
    """Step from one DAG run of a cron to the next one, in a third of the time of Airflow's timetables.

    Near a clock change, Airflow's timetable steps itself, since some of its steps depend on the earlier ones there.

    :param timetable: of Airflow core.
    :param interval: length of the data interval; None if it begins at the run date before.
    """

    timetable: Any
    schedule: CronSchedule | MultipleCronSchedule
    interval: timedelta | None

    @classmethod
    def of(cls, timetable: Any, first: list[RunDates]) -> _CronStep | None:
        """Return the step of a timetable; None if only the timetable can step.

        :param first: dates of the first DAG runs, as the timetable has them.
        """
        from airflow_flowservice.windows.cron import CronSchedule, MultipleCronSchedule

        schedule, interval = timetables.parse_timetable(timetable)
        if not isinstance(schedule, CronSchedule | MultipleCronSchedule) or not isinstance(interval, timedelta | None):
            return None
        if len(first) < 2 or first[0].partition_date is not None:
            return None
        step = cls(timetable=timetable, schedule=schedule, interval=interval)
        return step if step._next(first[0]) == first[1] else None

    def later(self, dates: RunDates) -> Iterator[RunDates]:
        """Yield the dates of all later DAG runs."""
        while following := self._next(dates):
            yield following
            dates = following

    def _next(self, dates: RunDates) -> RunDates | None:
        """Return the dates of the next DAG run; None if there is none."""
        from airflow_flowservice.windows.schedule import RunDates

        try:
            date = self.schedule.next(dates.run_after)
        except WindowError:  # the expression has years
            return self._next_of_airflow(dates)
        if not self.schedule.has_one_offset(dates.run_after - _DAY, date, date + _DAY):
            return self._next_of_airflow(dates)
        start = dates.run_after if self.interval is None else date - self.interval
        return RunDates(
            run_after=date,
            logical_date=start,
            data_interval_start=start,
            data_interval_end=date,
            preceding=dates.run_after,
        )

    def _next_of_airflow(self, dates: RunDates) -> RunDates | None:
        import pendulum

        start, end = (pendulum.instance(each) for each in (dates.data_interval_start, dates.run_after) if each)
        info = versions.next_run_info(self.timetable, start=start, end=end)
        return _run_dates(info, self.timetable) if info else None


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
