"""A schedule and a DAG run's dates become its window.

In Airflow 3 most runs have an empty data interval (`schedule="@daily"` makes a `CronTriggerTimetable`).
Their window is the schedule's own period that ends at the run's date, so it depends on the date alone:
runs in any order, scheduled or backfilled, have the same windows, and the windows tile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.window import IngestionWindow


class Schedule(Protocol):
    """Gives a sequence of run dates; all datetimes are aware, results in UTC."""

    def previous(self, moment: datetime) -> datetime:
        """The last run date before the moment."""

    def floor(self, moment: datetime) -> datetime:
        """The last run date at or before the moment."""

    def next(self, moment: datetime) -> datetime:
        """The first run date after the moment."""


@dataclass(frozen=True, kw_only=True)
class DeltaSchedule:
    """Runs one delta after another.

    :param delta: `timedelta` or `dateutil.relativedelta`, positive.
    """

    delta: Any

    def previous(self, moment: datetime) -> datetime:
        """One delta before the moment."""
        previous: datetime = _utc(moment) - self.delta
        return previous

    def next(self, moment: datetime) -> datetime:
        """One delta after the moment."""
        following: datetime = _utc(moment) + self.delta
        return following

    def floor(self, moment: datetime) -> datetime:
        """The moment itself: a delta has no dates of its own, it counts from run to run."""
        return _utc(moment)


@dataclass(frozen=True, kw_only=True)
class EventSchedule:
    """Runs at listed moments (`EventsTimetable`).

    :param dates: aware datetimes in any order; the same one twice counts once.
    """

    dates: tuple[datetime, ...]

    def previous(self, moment: datetime) -> datetime:
        """The last listed date before the moment.

        :raises WindowError: it is the first one.
        """
        return self._last(date for date in self.dates if date < moment)

    def floor(self, moment: datetime) -> datetime:
        """The last listed date at or before the moment.

        :raises WindowError: there is none.
        """
        return self._last(date for date in self.dates if date <= moment)

    def next(self, moment: datetime) -> datetime:
        """The first listed date after the moment.

        :raises WindowError: there is none.
        """
        return self._or_none(min((date for date in self.dates if date > moment), default=None))

    def _last(self, dates: Iterable[datetime]) -> datetime:
        return self._or_none(max(dates, default=None))

    @staticmethod
    def _or_none(date: datetime | None) -> datetime:
        if date is not None:
            return _utc(date)
        raise WindowError(
            "the schedule lists no other event on that side, so this run has no period",
            remedy="begin the list with an event that opens the first period, or pass window_start and window_end",
        )


@dataclass(frozen=True, kw_only=True)
class RunDates:
    """What Airflow says of a DAG run; aware datetimes or None.

    :param run_after: the earliest moment at which the run may start; always there.
    :param manual: somebody triggered it, so its date need not be one of the schedule's.
    """

    run_after: datetime
    logical_date: datetime | None = None
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    partition_date: datetime | None = None
    manual: bool = False

    @property
    def own_window(self) -> IngestionWindow | None:
        """The data interval, unless it is empty or missing."""
        start, end = self.data_interval_start, self.data_interval_end
        if start is None or end is None or start == end:
            return None
        return IngestionWindow(start, end)

    @property
    def date(self) -> datetime:
        """The moment that the run is for."""
        return self.data_interval_end or self.logical_date or self.run_after


@dataclass(frozen=True, kw_only=True)
class Period:
    """A window that a schedule gives, and in words why it is this one."""

    window: IngestionWindow
    source: str


def window_of(
    *, dates: RunDates, schedule: Schedule | None, interval: timedelta | Any | None = None
) -> IngestionWindow:
    """The window that a DAG run owns; as `period_of`."""
    return period_of(dates=dates, schedule=schedule, interval=interval).window


def period_of(
    *, dates: RunDates, schedule: Schedule | None, interval: timedelta | Any | None = None, name: str | None = None
) -> Period:
    """The window that a DAG run owns.

    A partitioned run owns the period that begins at its partition date. A data interval that is not empty
    is taken as it is. An empty one, or none, gives the schedule's period that ends at the run's date. A
    manual run takes the last complete period before its date.

    :param schedule: None for schedules that have no period (`None`, `@once`, assets).
    :param interval: the data interval that the schedule gives its runs (`CronTriggerTimetable(interval=)`).
    :param name: of the timetable, for messages.
    :raises WindowError: the run has no interval and the schedule no period.
    """
    if dates.partition_date is not None and schedule is not None:
        begin = dates.partition_date
        return Period(window=IngestionWindow(begin, schedule.next(begin)), source="the period of the run's partition")
    if dates.manual and schedule is not None and (interval or not dates.own_window):
        end = schedule.floor(dates.date)
        begin = end - interval if interval else schedule.previous(end)
        return Period(window=IngestionWindow(begin, end), source="the last complete period before a manual run's date")
    if window := dates.own_window:
        return Period(window=window, source="the run's data interval")
    if schedule is None:
        raise WindowError(
            f"this DAG run has no data interval, and the DAG's schedule{f' ({name})' if name else ''} has no period to "
            "take instead",
            remedy=(
                "trigger the run with window_start and window_end in its conf, or pass them to the task (templates "
                "work), or give the DAG a cron or timedelta schedule"
            ),
        )
    window = IngestionWindow(schedule.previous(dates.date), dates.date)
    return Period(window=window, source="the schedule's period that ends at the run's date")


def _utc(moment: datetime) -> datetime:
    """A plain datetime: pendulum's subclass loses its zone in arithmetic after `astimezone(timezone.utc)`."""
    utc = moment.astimezone(timezone.utc)
    return datetime.combine(utc.date(), utc.time(), tzinfo=timezone.utc)
