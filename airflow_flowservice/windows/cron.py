"""The run dates of cron expressions, counted as Airflow's scheduler counts them.

The arithmetic is that of `airflow/timetables/_cron.py`: wall clock in the schedule's time zone, except
that crons which cover every hour count elapsed time, so that a repeated hour is not lost. The scheduler
steps from run to run. Here the last run before any moment is found in a few steps: back by the wall clock,
and forward to be sure, since beside a change of the clock stepping back finds dates that are no runs.
"""

from __future__ import annotations

from bisect import bisect_left
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from croniter import croniter

_SECOND = timedelta(seconds=1)
# No change of the clock is greater (Samoa left out a day in 2011), so none moves a run by more.
_DAY = timedelta(days=1)


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
        moment = _whole_second_utc(moment)
        wall_clock = _wall_clock(moment, zone=self.zone)
        reading: datetime = self._cron(wall_clock).get_next(datetime)
        if self.covers_every_hour:
            return moment + (reading - wall_clock)
        return self._moments(reading)[1]

    def previous(self, moment: datetime) -> datetime:
        """The last run date before the moment."""
        return AnyOfSchedule(schedules=(self,)).previous(moment)

    def floor(self, moment: datetime) -> datetime:
        """The last run date at or before the moment."""
        return AnyOfSchedule(schedules=(self,)).floor(moment)

    def last_reading(self, moment: datetime) -> tuple[datetime, datetime]:
        """The last reading of the wall clock that the expression names up to a moment, and when that is."""
        reading: datetime = self._cron(_wall_clock(moment, zone=self.zone) + _SECOND).get_prev(datetime)
        first, second = self._moments(reading)
        if second <= moment or (change := _change(moment, second, zone=self.zone)) is None:
            return reading, second
        if self.covers_every_hour:
            return reading, first
        # The clock shows this a second time, and the run comes then: look before what is shown twice.
        return self.last_reading(change - (second - first) - _SECOND)

    @property
    def covers_every_hour(self) -> bool:
        """Whether it counts elapsed time, as the scheduler then does."""
        return bool(_parsed(self.expression).expanded[1] == ["*"])

    @property
    def may_step_too_far(self) -> bool:
        """Whether stepping forward over days without runs may miss readings far from any change of the clock.

        Elapsed time counts over all those days, with the changes in them. And croniter before 6.2 may step from the
        end of February over the first of March.
        """
        days = _parsed(self.expression).expanded[2:5]
        return bool((self.covers_every_hour and days != [["*"]] * 3) or not {29, 30, 31}.isdisjoint(days[0]))

    def _cron(self, start: datetime) -> croniter:
        cron = copy(_parsed(self.expression))
        cron.set_current(start, force=True)
        return cron

    def _moments(self, reading: datetime) -> list[datetime]:
        """When the clock shows a reading: the first and the second time, mostly the same.

        As in Airflow's `make_aware`, the second counts, and a reading that is left out comes as much later.
        """
        return sorted(reading.replace(tzinfo=self.zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1))


@dataclass(frozen=True, kw_only=True)
class AnyOfSchedule:
    """Runs whenever one of several schedules does (`MultipleCronTriggerTimetable`); all in one time zone."""

    schedules: tuple[CronSchedule, ...]

    def next(self, moment: datetime) -> datetime:
        """The first run date of any after the moment."""
        return min(schedule.next(moment) for schedule in self.schedules)

    def previous(self, moment: datetime) -> datetime:
        """The last run date of any before the moment."""
        return self.floor(_utc(moment) - timedelta.resolution)

    def floor(self, moment: datetime) -> datetime:
        """The last run date of any at or before the moment."""
        return self._around(_whole_second_utc(moment))[0]

    def _around(self, moment: datetime) -> tuple[datetime, datetime]:
        """The last run date up to a moment, and the first after it."""
        date, following = self._around_some(moment)
        while following <= moment:
            date, following = following, self.next(following)
        return date, following

    def _around_some(self, moment: datetime) -> tuple[datetime, datetime]:
        """A run date up to the moment, mostly the last, and the run date that follows it."""
        reading, date = self._last_reading(moment)
        if undisturbed := self._before_disturbance(date, moment):
            before, after = self._around(undisturbed)
            # Only the first run after a disturbance is moved; from there on the readings are the runs again.
            if after > moment or reading <= _wall_clock(after, zone=self._zone):
                return before, after
        return date, self.next(date)

    def _before_disturbance(self, date: datetime, moment: datetime) -> datetime | None:
        """A moment before what may make stepping forward miss the date of a reading; mostly None, for nothing does."""
        counts_elapsed = any(schedule.covers_every_hour for schedule in self.schedules)
        change = _change(date, moment, zone=self._zone) if counts_elapsed else None
        if change := change or _change(date - _DAY, date, zone=self._zone):
            return change - _SECOND
        if not any(schedule.may_step_too_far for schedule in self.schedules):
            return None
        _, run = self._last_reading(date - _DAY)
        return run if self.next(run) > date else None

    @property
    def _zone(self) -> tzinfo:
        return self.schedules[0].zone

    def _last_reading(self, moment: datetime) -> tuple[datetime, datetime]:
        return max(schedule.last_reading(moment) for schedule in self.schedules)


@lru_cache(maxsize=256)
def _parsed(expression: str) -> croniter:
    """Threads share it, so it is never stepped; copies of it are."""
    from croniter import croniter

    return croniter(expression)


def _change(since: datetime, until: datetime, *, zone: tzinfo) -> datetime | None:
    """The moment at which the clock was changed; None if it goes the same at both."""

    def is_changed(seconds: int) -> bool:
        return (since + seconds * _SECOND).astimezone(zone).utcoffset() != offset

    offset = since.astimezone(zone).utcoffset()
    seconds = (until - since) // _SECOND
    if not is_changed(seconds):
        return None
    return since + bisect_left(range(seconds), True, key=is_changed) * _SECOND


def _wall_clock(moment: datetime, *, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _utc(moment: datetime) -> datetime:
    """A plain datetime: pendulum's subclass loses its zone in arithmetic after `astimezone(timezone.utc)`."""
    utc = moment.astimezone(timezone.utc)
    return datetime.combine(utc.date(), utc.time(), tzinfo=timezone.utc)


def _whole_second_utc(moment: datetime) -> datetime:
    return _utc(moment).replace(microsecond=0)
