"""The days on which a fixed data interval does not fit its schedule: `CronTriggerTimetable(interval=...)`.

Pure arithmetic: a schedule and its time zone are arguments.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from functools import cached_property
from heapq import merge
from itertools import groupby, pairwise, product, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_flowservice.windows.cron import AnyOfSchedule, CronSchedule

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
# Clocks change four times a year at most, so more days than this are no matter of the clock.
_DAYS_AT_MOST = 10


@dataclass(frozen=True, kw_only=True)
class UnevenDays:
    """The local days of a year on which windows do not meet.

    :param days: in order. A break beside a change of the clock counts for the day of the change, any other
        for the day of the run date at which the earlier window ends.
    :param complete: whether these are all such days. If not, the interval does not fit the schedule
        wherever the clock stands, and these are only some, from the beginning of the year.
    """

    days: tuple[date, ...]
    complete: bool


def uneven_days(*, schedule: CronSchedule | AnyOfSchedule, interval: Any, year: int) -> UnevenDays:
    """The days of a year on which the windows `[date - interval, date]` of consecutive run dates do not meet.

    Every run date of a year is judged without finding each: away from changes of the clock, days on which the
    same crons run look the same. Only the days of a change are walked through.

    :param interval: `timedelta` or `dateutil.relativedelta`, positive.
    """
    several: Any = schedule
    crons: tuple[CronSchedule, ...] = getattr(several, "schedules", (several,))
    zone = crons[0].zone
    changes = {change.astimezone(zone).date(): change for change in _clock_changes(zone, year)}
    found = _Year(crons=tuple(map(_Cron, crons)), zone=zone, interval=interval, year=year, changes=changes)
    days: set[date] = set()
    for day in found.ordinary():
        days.add(day)
        if len(days - changes.keys()) == _DAYS_AT_MOST:
            return UnevenDays(days=tuple(sorted(days)), complete=False)
    days.update(found.around_changes(schedule))
    return UnevenDays(days=tuple(sorted(days)), complete=True)


@dataclass
class _Cron:
    """A cron expression's days and times of day."""

    schedule: CronSchedule

    @cached_property
    def _fields(self) -> list[list[Any]]:
        from croniter import croniter

        fields: list[list[Any]] = croniter(self.schedule.expression).expanded
        return fields

    @cached_property
    def times(self) -> frozenset[time]:
        """The times of a day on which it runs."""
        minutes, hours = self._fields[:2]
        seconds = self._fields[5] if len(self._fields) > 5 else [0]
        spans = (_numbers(hours, 24), _numbers(minutes, 60), _numbers(seconds, 60))
        return frozenset(time(*moment) for moment in product(*spans))

    def days(self, year: int) -> Iterator[date]:
        """The local days of a year on which it runs, and the first one after."""
        first = date(year, 1, 1)
        if self._fields[2:5] == [["*"]] * 3:
            yield from (first + days * _DAY for days in range((date(year + 1, 1, 1) - first).days + 1))
            return
        day = first - _DAY
        while day.year <= year:
            day = self._next_day(day)
            yield day

    def _next_day(self, day: date) -> date:
        zone = self.schedule.zone
        midnight = datetime.combine(day + _DAY, time(), tzinfo=zone)
        return self.schedule.next(midnight.astimezone(timezone.utc) - _SECOND).astimezone(zone).date()


@dataclass
class _Year:
    """Run dates of a year, as far as they must be looked at."""

    crons: tuple[_Cron, ...]
    zone: tzinfo
    interval: Any
    year: int
    changes: dict[date, datetime]
    _shapes: dict[frozenset[int], _Shape] = field(default_factory=dict)

    def ordinary(self) -> Iterator[date]:
        """Days away from the days of a change after which, or on which, windows do not meet."""
        for (day, one), (following, other) in pairwise(self._days()):
            if day in self.changes:
                continue
            if not self._shape(day, one).even:
                yield day
                continue
            if following in self.changes:
                continue
            earlier = self._utc(day, self._shape(day, one).last)
            later = self._utc(following, self._shape(following, other).first)
            if not self._meet(earlier, later):
                yield self._named(earlier, later)

    def around_changes(self, schedule: CronSchedule | AnyOfSchedule) -> Iterator[date]:
        """Days of which the run dates on the days of a change, and beside them, show that windows do not meet."""
        for day in self.changes:
            earlier = schedule.previous(self._utc(day, time()))
            while earlier < self._utc(day + _DAY, time()):
                later = schedule.next(earlier)
                if not self._meet(earlier, later):
                    yield self._named(earlier, later)
                earlier = later

    def _days(self) -> Iterator[tuple[date, frozenset[int]]]:
        """The days with runs up to the first one after the year, and which of the crons run on each."""
        each = (zip(cron.days(self.year), repeat(index)) for index, cron in enumerate(self.crons))
        for day, group in groupby(merge(*each), key=itemgetter(0)):
            yield day, frozenset(index for _, index in group)
            if day.year > self.year:
                return

    def _shape(self, day: date, which: frozenset[int]) -> _Shape:
        if which not in self._shapes:
            times = sorted(frozenset().union(*(self.crons[index].times for index in which)))
            moments = [self._utc(day, moment) for moment in times]
            even = all(self._meet(*pair) for pair in pairwise(moments))
            self._shapes[which] = _Shape(first=times[0], last=times[-1], even=even)
        return self._shapes[which]

    def _meet(self, earlier: datetime, later: datetime) -> bool:
        return bool(later - self.interval == earlier)

    def _named(self, earlier: datetime, later: datetime) -> date:
        between = (day for day, change in self.changes.items() if earlier < change <= later)
        return next(between, earlier.astimezone(self.zone).date())

    def _utc(self, day: date, moment: time) -> datetime:
        return datetime.combine(day, moment, tzinfo=self.zone).astimezone(timezone.utc)


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """The run dates of a day without a change of the clock: whether windows meet from the first to the last."""

    first: time
    last: time
    even: bool


def _numbers(values: list[Any], size: int) -> Iterable[int]:
    return range(size) if values == ["*"] else values


def _clock_changes(zone: tzinfo, year: int) -> Iterator[datetime]:
    """The moments of a local year at which the clock is changed."""
    first = datetime(year - 1, 12, 31, tzinfo=timezone.utc)
    moments = [first + days * _DAY for days in range(369)]
    for before, after in pairwise(moments):
        if _offset(before, zone) == _offset(after, zone):
            continue
        change = _change_after(before, zone)
        if change.astimezone(zone).year == year:
            yield change


def _change_after(moment: datetime, zone: tzinfo) -> datetime:
    """The change of the clock in the day after the moment, to the second."""
    offset = _offset(moment, zone)
    seconds = range(int(_DAY.total_seconds()))
    return moment + _SECOND * bisect_left(seconds, True, key=lambda n: _offset(moment + n * _SECOND, zone) != offset)


def _offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
