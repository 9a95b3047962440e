# SPDX-License-Identifier: Apache-2.0
"""Compute the window of a DAG run from its schedule and its dates.

In Airflow 3, most DAG runs have an empty data interval (`schedule="@daily"` makes a `CronTriggerTimetable`). The window
of such a run is the schedule's period that ends at the run date. It depends only on this date. Therefore, DAG runs have
the same windows in any order, scheduled or backfilled, and the windows are contiguous.

A run date is an instant at which a schedule creates a DAG run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, Protocol

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.window import IngestionWindow, iso


class Schedule(Protocol):
    """A sequence of run dates. All datetimes are aware, results are in UTC."""

    def previous(self, instant: datetime) -> datetime:
        """Return the last run date before an instant."""

    def floor(self, instant: datetime) -> datetime:
        """Return the last run date at or before an instant."""

    def next(self, instant: datetime) -> datetime:
        """Return the first run date after an instant."""


@dataclass(frozen=True, kw_only=True)
class DeltaSchedule:
    """A schedule with a fixed length of time between two run dates.

    :param delta: `timedelta` or `dateutil.relativedelta`, positive.
    """

    delta: Any

    def previous(self, instant: datetime) -> datetime:
        """Return the instant minus one delta."""
        previous: datetime = _utc(instant) - self.delta
        return previous

    def next(self, instant: datetime) -> datetime:
        """Return the instant plus one delta."""
        following: datetime = _utc(instant) + self.delta
        return following

    def floor(self, instant: datetime) -> datetime:
        """Return the instant itself: a delta has no fixed run dates, it counts from run to run."""
        return _utc(instant)


@dataclass(frozen=True, kw_only=True)
class EventSchedule:
    """A schedule with listed run dates (`EventsTimetable`).

    :param dates: aware datetimes in any order; duplicates are allowed.
    """

    dates: tuple[datetime, ...]

    def previous(self, instant: datetime) -> datetime:
        """Return the last listed date before an instant.

        :raises WindowError: no such date is listed.
        """
        return self._last(date for date in self.dates if date < instant)

    def floor(self, instant: datetime) -> datetime:
        """Return the last listed date at or before an instant.

        :raises WindowError: no such date is listed.
        """
        return self._last(date for date in self.dates if date <= instant)

    def next(self, instant: datetime) -> datetime:
        """Return the first listed date after an instant.

        :raises WindowError: no such date is listed.
        """
        return self._require(min((date for date in self.dates if date > instant), default=None), side="later")

    def _last(self, dates: Iterable[datetime]) -> datetime:
        return self._require(max(dates, default=None), side="earlier")

    @staticmethod
    def _require(date: datetime | None, *, side: Literal["earlier", "later"]) -> datetime:
        if date is not None:
            return _utc(date)
        raise WindowError(
            f"the schedule lists no {side} event, so this run has no period",
            remedy="begin the list with an event that opens the first period, or pass window_start and window_end",
        )


@dataclass(frozen=True, kw_only=True)
class RunDates:
    """Dates of a DAG run, as Airflow reports them; aware datetimes or None.

    :param run_after: the earliest time at which the DAG run may start; always set.
    :param manual: the schedule did not create the DAG run, so its date need not be one of the schedule's run dates.
    :param preceding: the schedule's run date before `run_after`, if it is known already.
    """

    run_after: datetime
    logical_date: datetime | None = None
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    partition_date: datetime | None = None
    manual: bool = False
    preceding: datetime | None = field(default=None, compare=False)

    @property
    def data_interval(self) -> IngestionWindow | None:
        """Return the data interval, or None if it is empty or missing."""
        start, end = self.data_interval_start, self.data_interval_end
        if start is None or end is None or start == end:
            return None
        return IngestionWindow(start, end)

    @property
    def date(self) -> datetime:
        """Return the first that is set: the end of the data interval, the logical date, or `run_after`."""
        return self.data_interval_end or self.logical_date or self.run_after


def with_named_interval(dates: RunDates, *, infer: Callable[[datetime], tuple[datetime, datetime] | None]) -> RunDates:
    """Return the dates of a manual run with the data interval that its logical date names.

    For a run with a logical date, Airflow's REST API and UI infer the data interval from this date. The CLI and
    `TriggerDagRunOperator` infer it from `run_after`, the time of the trigger (`airflow/api/common/trigger_dag.py`).
    An interval that the REST API received is neither, and stays.

    :param infer: returns the data interval that the timetable infers from an instant; None if this is unknown.
    :raises WindowError: it cannot be decided whether the data interval or the logical date is the intended one.
    """
    named, start, end = dates.logical_date, dates.data_interval_start, dates.data_interval_end
    if not dates.manual or named is None or start is None or end is None:
        return dates
    given = _seconds(start, end)
    expected, by_trigger = infer(named), infer(dates.run_after)
    if expected is None or by_trigger is None:
        if dates.data_interval and _is_nearer(given, dates.run_after, than=named):
            raise _conflict(dates)
        return dates
    if given == _seconds(*expected) or given != _seconds(*by_trigger):
        return dates
    if start != end and given[0] == _seconds(named)[0]:
        raise _conflict(dates, expected=expected)
    return replace(dates, data_interval_start=expected[0], data_interval_end=expected[1])


def _is_nearer(interval: tuple[datetime, ...], instant: datetime, *, than: datetime) -> bool:
    """Return whether an interval does not contain an instant (`than`), and is not farther from another one."""

    def distance(date: datetime) -> timedelta:
        return max(interval[0] - date, date - interval[1], timedelta(0))

    (one,), (other,) = _seconds(instant), _seconds(than)
    return distance(other) > timedelta(0) and distance(one) <= distance(other)


def _conflict(dates: RunDates, *, expected: tuple[datetime, datetime] | None = None) -> WindowError:
    logical_date = f"the logical date of this manual run is {_text(dates.logical_date)}"
    names = f", which names the period {_text(expected[0])}/{_text(expected[1])}" if expected else ""
    interval = f"{_text(dates.data_interval_start)}/{_text(dates.data_interval_end)}"
    return WindowError(
        f"{logical_date}{names}, but its data interval is {interval}, which belongs to the time of the trigger, "
        f"{_text(dates.run_after)}",
        remedy="trigger the run with window_start and window_end in its conf",
    )


def _seconds(*instants: datetime) -> tuple[datetime, ...]:
    return tuple(_utc(instant).replace(microsecond=0) for instant in instants)


def _text(instant: datetime | None) -> str:
    return "none" if instant is None else iso(instant)


@dataclass(frozen=True, kw_only=True)
class Period:
    """Window of a schedule.

    :param source: the rule that gives this window, as text for the log.
    """

    window: IngestionWindow
    source: str


def period_of(
    *, dates: RunDates, schedule: Schedule | None, interval: timedelta | Any | None = None, name: str | None = None
) -> Period:
    """Return the period of a DAG run.

    The first rule that applies gives the window:

    - A partitioned run has the period that begins at its partition date.
    - A manual run without a data interval, or with `interval`, has the last complete period before its date.
    - A run with a data interval that is not empty has its data interval.
    - Any other run has the schedule's period that ends at the run's date.

    :param schedule: None for schedules that have no period (`None`, `@once`, assets).
    :param interval: the data interval that the schedule gives its DAG runs (`CronTriggerTimetable(interval=)`).
    :param name: name of the timetable, for error messages.
    :raises WindowError: the DAG run has no data interval, and the schedule has no period.
    """
    if dates.partition_date is not None and schedule is not None:
        begin = dates.partition_date
        return Period(window=IngestionWindow(begin, schedule.next(begin)), source="the period of the run's partition")
    if dates.manual and schedule is not None and (interval or not dates.data_interval):
        end = schedule.floor(dates.date)
        begin = end - interval if interval else schedule.previous(end)
        return Period(window=IngestionWindow(begin, end), source="the last complete period before a manual run's date")
    if window := dates.data_interval:
        return Period(window=window, source="the run's data interval")
    if schedule is None:
        raise WindowError(
            f"this DAG run has no data interval, and the DAG's schedule{f' ({name})' if name else ''} has no period to "
            "use instead",
            remedy=(
                "trigger the run with window_start and window_end in its conf, or pass them to the task (templates "
                "work), or give the DAG a cron or timedelta schedule"
            ),
        )
    window = IngestionWindow(dates.preceding or schedule.previous(dates.date), dates.date)
    return Period(window=window, source="the schedule's period that ends at the run's date")


def _utc(instant: datetime) -> datetime:
    """Return a plain datetime in UTC.

    Pendulum's subclass of datetime loses its zone in arithmetic after `astimezone(timezone.utc)`.
    """
    utc = instant.astimezone(timezone.utc)
    return datetime.combine(utc.date(), utc.time(), tzinfo=timezone.utc)
