"""A schedule and a DAG run's dates become its window.

In Airflow 3 most runs have an empty data interval (`schedule="@daily"` makes a `CronTriggerTimetable`).
Their window is the schedule's own period that ends at the run's date, so it depends on the date alone:
runs in any order, scheduled or backfilled, have the same windows, and the windows tile.

Cron arithmetic is the scheduler's (`airflow/timetables/_cron.py`): wall clock in the schedule's time
zone, except that crons which cover every hour count elapsed time, so that a repeated hour is not lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any, Protocol

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.ingestion.window import IngestionWindow

if TYPE_CHECKING:
    from croniter import croniter

_SECOND = timedelta(seconds=1)
# Clocks are changed by two hours at most, except where a whole day was left out (Samoa, 2011).
_CLOCK_CHANGE = timedelta(hours=3)
_DAY_SKIPPED = timedelta(hours=26)


class Schedule(Protocol):
    """Gives a sequence of run dates; all datetimes are aware, results in UTC."""

    def previous(self, moment: datetime) -> datetime:
        """The last run date before the moment."""

    def floor(self, moment: datetime) -> datetime:
        """The last run date at or before the moment."""

    def next(self, moment: datetime) -> datetime:
        """The first run date after the moment."""


@dataclass(frozen=True, kw_only=True)
class CronSchedule:
    """Runs at the moments of a cron expression, in the wall clock of a time zone.

    :param expression: five or six fields, or a preset such as `@daily`.
    :param zone: the schedule's time zone.
    """

    expression: str
    zone: tzinfo

    def next(self, moment: datetime) -> datetime:
        """The first run date after the moment."""
        naive = self._wall_clock(moment)
        cron = self._cron(naive)
        scheduled: datetime = cron.get_next(datetime)
        if _covers_every_hour(cron):
            return _whole_second_utc(moment) + (scheduled - naive)
        return self._to_utc(scheduled)

    def previous(self, moment: datetime) -> datetime:
        """The last run date before the moment."""
        return _last_before(moment, start=self.anchor(moment), schedule=self)

    def floor(self, moment: datetime) -> datetime:
        """The last run date at or before the moment."""
        return self.previous(_whole_second_utc(moment) + _SECOND)

    def anchor(self, moment: datetime) -> datetime:
        """A run date before the moment, and mostly the last: one that every way of stepping forward comes by.

        Stepping back alone is not enough: beside a change of the clock, `croniter` finds dates that
        stepping forward, as the scheduler does it, never makes.
        """
        cron = self._cron(self._wall_clock(moment) + _SECOND)
        while True:
            scheduled: datetime = cron.get_prev(datetime)
            date = self._to_utc(scheduled)
            if date < moment and self._is_settled(date, scheduled, cron):
                return date

    def _is_settled(self, date: datetime, scheduled: datetime, cron: croniter) -> bool:
        """Whether no change of the clock can have moved this run date, or the way to it."""
        if self._shift(date - _CLOCK_CHANGE, date) or abs(self._shift(date - _DAY_SKIPPED, date)) > _CLOCK_CHANGE:
            return False
        if not _covers_every_hour(cron) or _covers_every_day(cron):
            return True
        # Elapsed time counts from one day of runs to the next, so that the first hours of a day can be missed.
        midnight = scheduled.replace(hour=0, minute=0, second=0)
        before = self._to_utc(self._cron(midnight).get_prev(datetime))
        return scheduled - midnight >= _CLOCK_CHANGE and abs(self._shift(before, date)) <= _CLOCK_CHANGE

    def _shift(self, earlier: datetime, later: datetime) -> timedelta:
        """By how much the clock has been changed between two moments."""
        offsets = [moment.astimezone(self.zone).utcoffset() or timedelta(0) for moment in (earlier, later)]
        return offsets[1] - offsets[0]

    def _cron(self, start: datetime) -> croniter:
        from croniter import croniter

        return croniter(self.expression, start_time=start)

    def _wall_clock(self, moment: datetime) -> datetime:
        local = moment.astimezone(self.zone)
        return datetime(local.year, local.month, local.day, local.hour, local.minute, local.second)  # noqa: DTZ001

    def _to_utc(self, naive: datetime) -> datetime:
        import pendulum

        # As Airflow's make_aware: of a wall clock reading that comes twice, the second.
        local = pendulum.instance(naive.replace(fold=1), tz=self.zone)
        return datetime.fromtimestamp(local.timestamp(), tz=timezone.utc)


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
class AnyOfSchedule:
    """Runs whenever one of several schedules does (`MultipleCronTriggerTimetable`)."""

    schedules: tuple[CronSchedule, ...]

    def previous(self, moment: datetime) -> datetime:
        """The last run date of any before the moment."""
        start = max(schedule.anchor(moment) for schedule in self.schedules)
        return _last_before(moment, start=start, schedule=self)

    def floor(self, moment: datetime) -> datetime:
        """The last run date of any at or before the moment."""
        return self.previous(_whole_second_utc(moment) + _SECOND)

    def next(self, moment: datetime) -> datetime:
        """The first run date of any after the moment."""
        return min(schedule.next(moment) for schedule in self.schedules)


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


def window_of(
    *, dates: RunDates, schedule: Schedule | None, interval: timedelta | Any | None = None
) -> IngestionWindow:
    """The window that a DAG run owns.

    A partitioned run owns the period that begins at its partition date. A data interval that is not empty
    is taken as it is. An empty one, or none, gives the schedule's period that ends at the run's date. A
    manual run takes the last complete period before its date.

    :param schedule: None for schedules that have no period (`None`, `@once`, assets).
    :param interval: the data interval that the schedule gives its runs (`CronTriggerTimetable(interval=)`).
    :raises WindowError: the run has no interval and the schedule no period.
    """
    if dates.partition_date is not None and schedule is not None:
        return IngestionWindow(dates.partition_date, schedule.next(dates.partition_date))
    if dates.manual and schedule is not None and (interval or not dates.own_window):
        end = schedule.floor(dates.date)
        return IngestionWindow(end - interval if interval else schedule.previous(end), end)
    if window := dates.own_window:
        return window
    if schedule is None:
        raise WindowError(
            "this DAG run has no data interval, and the DAG's schedule has no period to take instead",
            remedy=(
                "pass window_start and window_end to the task (templates work, for instance from the run's conf), "
                "or give the DAG a cron or timedelta schedule"
            ),
        )
    return IngestionWindow(schedule.previous(dates.date), dates.date)


def _last_before(moment: datetime, *, start: datetime, schedule: Schedule) -> datetime:
    while (following := schedule.next(start)) < moment:
        start = following
    return start


def _covers_every_hour(cron: croniter) -> bool:
    return bool(cron.expanded[1] == ["*"])


def _covers_every_day(cron: croniter) -> bool:
    return bool(cron.expanded[2:5] == [["*"]] * 3)


def _utc(moment: datetime) -> datetime:
    """A plain datetime: pendulum's subclass loses its zone in arithmetic after `astimezone(timezone.utc)`."""
    utc = moment.astimezone(timezone.utc)
    return datetime.combine(utc.date(), utc.time(), tzinfo=timezone.utc)


def _whole_second_utc(moment: datetime) -> datetime:
    return _utc(moment).replace(microsecond=0)
