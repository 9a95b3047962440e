# SPDX-License-Identifier: Apache-2.0
"""Compute the run dates of cron expressions exactly as Airflow's scheduler does.

The arithmetic is that of `airflow/timetables/_cron.py`: it uses the wall clock in the schedule's time zone. Only crons
that run every hour count elapsed time, so that a repeated hour is not lost.

The scheduler steps forward from run to run. This module finds the last run date before any instant in a few steps. It
steps back once by the wall clock, then forward to confirm the date. Near a clock change, the step back can find a date
at which the scheduler creates no DAG run.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar

from airflow_flowservice.exceptions import WindowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from croniter import croniter

_Found = TypeVar("_Found")

_SECOND = timedelta(seconds=1)
# The largest clock change: Samoa skipped a day in 2011. No clock change moves a run by more.
_DAY = timedelta(days=1)
_NEVER = datetime.max.replace(tzinfo=timezone.utc)


@dataclass(frozen=True, kw_only=True)
class CronSchedule:
    """Schedule with the run dates of a cron expression, in the wall clock of a time zone.

    :param expression: five or six fields, or a preset such as `@daily`.
    :param zone: the schedule's time zone.
    """

    expression: str
    zone: tzinfo

    def next(self, instant: datetime) -> datetime:
        """Return the first run date after an instant.

        :raises WindowError: there is none, because the expression has years.
        """
        instant = _whole_second_utc(instant)
        wall_clock = _wall_clock(instant, zone=self.zone)
        with self._no_date("later"):
            reading: datetime = self._cron(wall_clock).get_next(datetime)
        if self.covers_every_hour:
            return instant + (reading - wall_clock)
        return self._instants_of(reading)[1]

    def previous(self, instant: datetime) -> datetime:
        """Return the last run date before an instant."""
        return MultipleCronSchedule(schedules=(self,)).previous(instant)

    def floor(self, instant: datetime) -> datetime:
        """Return the last run date at or before an instant."""
        return MultipleCronSchedule(schedules=(self,)).floor(instant)

    def last_reading(self, instant: datetime) -> tuple[datetime, datetime]:
        """Return the last wall clock reading up to an instant that the expression matches, and its instant in UTC.

        :raises WindowError: there is none, because the expression has years.
        """
        with self._no_date("earlier"):
            reading: datetime = self._cron(_wall_clock(instant, zone=self.zone) + _SECOND).get_prev(datetime)
        first, second = self._instants_of(reading)
        if second <= instant or (change := _clock_change(instant, second, zone=self.zone)) is None:
            return reading, second
        if self.covers_every_hour:
            return reading, first
        # The clock shows this reading again after the instant, and the run is then. Search before the repeated hour.
        return self.last_reading(change - (second - first) - _SECOND)

    def has_one_offset(self, *instants: datetime) -> bool:
        """Return whether the UTC offset of the time zone is the same at all instants."""
        return len({instant.astimezone(self.zone).utcoffset() for instant in instants}) == 1

    @property
    def covers_every_hour(self) -> bool:
        """Return whether the expression runs every hour; the scheduler then counts elapsed time."""
        return bool(_parsed(self.expression).expanded[1] == ["*"])

    @property
    def may_miss_dates(self) -> bool:
        """Return whether a step forward over days without runs may miss readings far from any clock change.

        There are two causes. Elapsed time includes the clock changes on all these days. Croniter before 6.2 may step
        from the end of February over 1 March.
        """
        days = _parsed(self.expression).expanded[2:5]
        return bool((self.covers_every_hour and days != [["*"]] * 3) or not {29, 30, 31}.isdisjoint(days[0]))

    @contextmanager
    def _no_date(self, side: Literal["earlier", "later"]) -> Iterator[None]:
        from croniter import CroniterBadDateError

        try:
            yield
        except CroniterBadDateError as error:
            raise WindowError(
                f"the cron {self.expression!r} has no {side} run date, so this run has no period",
                remedy="pass window_start and window_end for this run, for instance in the conf of a manual run",
            ) from error

    def _cron(self, start: datetime) -> croniter:
        cron = copy(_parsed(self.expression))
        cron.set_current(start, force=True)
        return cron

    def _instants_of(self, reading: datetime) -> list[datetime]:
        """Return the first and the second instant at which the clock shows a reading; they are usually equal.

        As in Airflow's `make_aware`, the second one counts. A reading that the clock skips is moved later by the
        length of the change.
        """
        return sorted(reading.replace(tzinfo=self.zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1))


@dataclass(frozen=True, kw_only=True)
class MultipleCronSchedule:
    """A schedule of several crons in one time zone, with all their run dates (`MultipleCronTriggerTimetable`)."""

    schedules: tuple[CronSchedule, ...]

    def next(self, instant: datetime) -> datetime:
        """Return the first run date of any cron after an instant.

        :raises WindowError: there is none, because the expressions have years.
        """
        dates = [date for schedule in self.schedules if (date := _optional(schedule.next, instant))]
        return min(dates) if dates else self.schedules[0].next(instant)  # raises

    def previous(self, instant: datetime) -> datetime:
        """Return the last run date of any cron before an instant."""
        return self.floor(_utc(instant) - timedelta.resolution)

    def floor(self, instant: datetime) -> datetime:
        """Return the last run date of any cron at or before an instant."""
        return self._surrounding(_whole_second_utc(instant))[0]

    def has_one_offset(self, *instants: datetime) -> bool:
        """Return whether the UTC offset of the time zone is the same at all instants."""
        return self.schedules[0].has_one_offset(*instants)

    def _surrounding(self, instant: datetime) -> tuple[datetime, datetime]:
        """Return the last run date up to an instant, and the first one after it."""
        date, following = self._estimate(instant)
        while following <= instant:
            date, following = following, self._next_or_never(following)
        return date, following

    def _estimate(self, instant: datetime) -> tuple[datetime, datetime]:
        """Return a run date up to the instant, usually the last one, and the run date that follows it."""
        reading, date = self._last_reading(instant)
        reliable = self._last_reliable_instant(date, instant)
        if reliable and (found := _optional(self._surrounding, reliable)):
            before, after = found
            # A clock change moves only the first run date after it. Later readings are run dates again.
            if after > instant or reading <= _wall_clock(after, zone=self._zone):
                return before, after
        return date, self._next_or_never(date)

    def _last_reliable_instant(self, date: datetime, instant: datetime) -> datetime | None:
        """Return an instant from which steps forward find all run dates; None if the date of a reading is reliable.

        A reading is usually reliable. A clock change, or a date that a step forward may miss, makes it unreliable.
        """
        counts_elapsed = any(schedule.covers_every_hour for schedule in self.schedules)
        change = _clock_change(date, instant, zone=self._zone) if counts_elapsed else None
        if change := change or _clock_change(date - _DAY, date, zone=self._zone):
            return change - _SECOND
        if not any(schedule.may_miss_dates for schedule in self.schedules):
            return None
        earlier = _optional(self._last_reading, date - _DAY)
        return earlier[1] if earlier and self._next_or_never(earlier[1]) > date else None

    def _next_or_never(self, instant: datetime) -> datetime:
        return _optional(self.next, instant) or _NEVER

    @property
    def _zone(self) -> tzinfo:
        return self.schedules[0].zone

    def _last_reading(self, instant: datetime) -> tuple[datetime, datetime]:
        readings = [found for schedule in self.schedules if (found := _optional(schedule.last_reading, instant))]
        return max(readings) if readings else self.schedules[0].last_reading(instant)  # raises


def _optional(step: Callable[[datetime], _Found], instant: datetime) -> _Found | None:
    """Return the result of a step from an instant; None if there is no run date."""
    try:
        return step(instant)
    except WindowError:
        return None


@lru_cache(maxsize=256)
def _parsed(expression: str) -> croniter:
    """Return a parsed expression. Threads share it, so callers step only copies of it."""
    from croniter import croniter

    return croniter(expression)


def _clock_change(since: datetime, until: datetime, *, zone: tzinfo) -> datetime | None:
    """Return the instant of a clock change between two instants; None if the UTC offset is the same at both."""

    def is_changed(seconds: int) -> bool:
        return (since + seconds * _SECOND).astimezone(zone).utcoffset() != offset

    offset = since.astimezone(zone).utcoffset()
    seconds = (until - since) // _SECOND
    if not is_changed(seconds):
        return None
    return since + bisect_left(range(seconds), True, key=is_changed) * _SECOND


def _wall_clock(instant: datetime, *, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _utc(instant: datetime) -> datetime:
    """Return a plain datetime in UTC.

    Pendulum's subclass of datetime loses its zone in arithmetic after `astimezone(timezone.utc)`.
    """
    utc = instant.astimezone(timezone.utc)
    return datetime.combine(utc.date(), utc.time(), tzinfo=timezone.utc)


def _whole_second_utc(instant: datetime) -> datetime:
    return _utc(instant).replace(microsecond=0)
