# SPDX-License-Identifier: Apache-2.0
"""Tests of the windows of schedules, compared with the timetables of Airflow's scheduler."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow import sdk
from airflow.timetables import events
from airflow.timetables import interval as core_interval
from airflow.timetables import trigger as core
from airflow.timetables.base import TimeRestriction
from croniter import croniter
from dateutil.relativedelta import relativedelta
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st

from airflow_flowservice._airflow.dag_runs import dates_between
from airflow_flowservice._airflow.timetables import parse_timetable
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.cron import CronSchedule
from airflow_flowservice.windows.schedule import DeltaSchedule, RunDates, period_of
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterator

UTC = timezone.utc
# The number of examples is that of the hypothesis profile; see tests/conftest.py.
thorough = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)

# In Airflow 3.0, workers have the scheduler's timetables, and partitions do not exist.
needs_values = pytest.mark.skipif(not hasattr(sdk, "CronTriggerTimetable"), reason="the SDK has no timetables")
needs_partitions = pytest.mark.skipif(
    not hasattr(core, "CronPartitionTimetable"), reason="this Airflow has no CronPartitionTimetable"
)

# Days of clock changes in both directions: by one hour, by half an hour, at midnight, for Ramadan, and by a whole day.
CHANGES = {
    "Europe/Zurich": ("2026-03-29", "2026-10-25"),
    "America/Sao_Paulo": ("2018-11-04", "2018-02-18"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"),
    "Asia/Kathmandu": ("2026-01-01", "1986-01-01"),
    "Africa/Casablanca": ("2025-02-23", "2025-04-06"),
    "Pacific/Apia": ("2011-12-30", "2012-04-01"),
    "UTC": ("2024-02-29", "2026-12-31"),
}
# Before 6.2, croniter steps back to a 1 March that it skips forward. The scheduler steps forward.
MISSES_MARCH = croniter("0 0 */10 * *", datetime(2019, 2, 21)).get_next(datetime) != datetime(2019, 3, 1)  # noqa: DTZ001
PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")


def both(name: str) -> pytest.MarkDecorator:
    """Parametrize a test with the scheduler's timetable of this name and with the SDK's, which workers have."""
    core_kind, value = getattr(core, name, None), getattr(sdk, name, None)
    kinds = [pytest.param(core_kind, id="core"), pytest.param(value, id="sdk", marks=needs_values)]
    return pytest.mark.parametrize("kind", kinds)


def lists(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.lists(st.integers(low, high), min_size=1, max_size=4, unique=True)
    return numbers.map(lambda chosen: ",".join(map(str, sorted(chosen))))


minutes = st.sampled_from(["0", "30", "*/30", "*/7", "*/20", "*", "5,35"]) | lists(0, 59)
hours = st.sampled_from(["*", "2", "0", "3", "*/2", "*/5", "1-3", "2,3"]) | lists(0, 23)
days = st.sampled_from(["*", "*", "*", "L", "1", "30", "31", "*/10", "1,15"])
months = st.sampled_from(["*", "*", "*", "2", "3,10", "*/3"])
weekdays = st.sampled_from(["*", "*", "*", "0", "1-5", "6,0"])
crons = (
    st.tuples(minutes, hours, days, months, weekdays)
    .map(" ".join)
    .filter(lambda cron: not (cron.split()[2] in ("30", "31") and cron.split()[3] == "2"))
    | st.sampled_from(PRESETS)
    | st.sampled_from(["0 0 29 2 *", "30 2 * * *", "*/30 2 * * *", "*/30 * * * *", "17 * * * *", "0 * 1 * *"])
)
places = st.sampled_from([(zone, change) for zone, changes in CHANGES.items() for change in changes])
distances = st.timedeltas(timedelta(hours=1), timedelta(days=4))


def run_dates_of(timetable: Any, earliest: datetime) -> Iterator[datetime]:
    """Yield the dates of the runs that the scheduler or a backfill creates from an instant on."""
    last = None
    restriction = TimeRestriction(pendulum.instance(earliest), None, catchup=True)
    while info := timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction):
        yield info.data_interval.end
        last = info.data_interval


def some_run_dates(timetable: Any, earliest: datetime) -> list[datetime]:
    dates = list(islice(run_dates_of(timetable, earliest), 25))
    return [date for date in dates if date - dates[0] < timedelta(days=5 * 366)]


def hourly_on_some_days(cron: str) -> bool:
    """Return whether a cron counts elapsed time between days with runs, also across a clock change."""
    return cron.split()[1:2] == ["*"] and cron.split()[2:] != ["*", "*", "*"]


def settled_start(timetable: Any, instant: datetime) -> datetime:
    """Return an earlier run date that does not depend on the start date.

    Near a clock change, the scheduler's first runs depend on its start date, so a date is not sufficient.
    """
    zone = timetable._timezone
    date = timetable._get_prev(pendulum.instance(instant))
    if not hourly_on_some_days(timetable._expression):
        return date
    while not 4 <= date.in_timezone(zone).hour < 22:
        date = timetable._get_prev(date)
    before = timetable._get_prev(date.in_timezone(zone).start_of("day"))
    shift = date.in_timezone(zone).utcoffset() - before.in_timezone(zone).utcoffset()
    return settled_start(timetable, before) if abs(shift) > timedelta(hours=3) else date


def near(change: str, distance: timedelta, zone: str) -> datetime:
    return datetime.fromisoformat(change).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - distance


def of_run(date: datetime) -> RunDates:
    """Return the dates of a scheduled run of a trigger timetable: its data interval is empty."""
    return RunDates(run_after=date, logical_date=date, data_interval_start=date, data_interval_end=date)


def windows_of(timetable: Any, dates: list[datetime]) -> list[IngestionWindow]:
    """Return the windows of runs in the order of the dates; they are computed in a random order."""
    schedule, interval = parse_timetable(timetable)
    shuffled = random.sample(dates, len(dates))
    windows = {date: period_of(dates=of_run(date), schedule=schedule, interval=interval).window for date in shuffled}
    return [windows[date] for date in dates]


def not_contiguous(windows: list[IngestionWindow]) -> list[tuple[str, str]]:
    """Return the pairs of consecutive windows that are not contiguous."""
    return [(str(one), str(other)) for one, other in pairwise(windows) if not one.meets(other)]


class TestCron:
    @thorough
    @given(cron=crons, place=places, distance=distances)
    @example(cron="*/30 2 * * *", place=("Europe/Zurich", "2026-03-29"), distance=timedelta(days=1))
    @example(cron="10,35 2 * * *", place=("Australia/Lord_Howe", "2026-10-04"), distance=timedelta(days=1))
    @example(cron="17 * * * *", place=("Australia/Lord_Howe", "2026-10-04"), distance=timedelta(hours=12))
    @example(cron="17 * * * *", place=("Australia/Lord_Howe", "2026-04-05"), distance=timedelta(hours=12))
    @example(cron="0 * 1 * *", place=("Europe/Zurich", "2026-03-29"), distance=timedelta(days=4))
    @example(cron="0 * 1 * *", place=("Pacific/Apia", "2011-12-30"), distance=timedelta(days=4))
    @example(cron="0 0 */10 * *", place=("America/Sao_Paulo", "2018-02-18"), distance=timedelta(days=1))
    def test_windows_are_contiguous(self, cron: str, place: tuple[str, str], distance: timedelta) -> None:
        """Each run's window begins at the scheduler's previous run date, in any order of the runs."""
        zone, change = place
        timetable = core.CronTriggerTimetable(cron, timezone=zone)
        dates = some_run_dates(timetable, settled_start(timetable, near(change, distance, zone)))
        windows = windows_of(timetable, dates)
        assert [window.end for window in windows] == dates
        assert not_contiguous(windows) == []

    @thorough
    @given(cron=crons, place=places, distance=distances)
    def test_periods_far_from_clock_changes_match_the_timetable(
        self, cron: str, place: tuple[str, str], distance: timedelta
    ) -> None:
        """If the UTC offset does not change, a window begins at the date to which the timetable steps back."""
        zone, change = place
        timetable = core.CronTriggerTimetable(cron, timezone=zone)
        schedule, _ = parse_timetable(timetable)
        assume(not hourly_on_some_days(timetable._expression))
        assume(not (MISSES_MARCH and "*/10" in cron.split()[2:3]))
        for date in islice(run_dates_of(timetable, near(change, distance, zone)), 10):
            before = timetable._get_prev(date)
            offsets = {instant.in_timezone(zone).utcoffset() for instant in (before.subtract(hours=50), before, date)}
            if len(offsets) == 1 and date - before < timedelta(days=32):
                assert schedule.previous(date) == before

    @needs_values
    @thorough
    @given(cron=crons, place=places, distance=distances)
    def test_worker_and_scheduler_timetables_agree(
        self, cron: str, place: tuple[str, str], distance: timedelta
    ) -> None:
        """The SDK's timetable, which workers have, gives the window of the scheduler's timetable."""
        zone, change = place
        instant = near(change, distance, zone)
        workers, _ = parse_timetable(sdk.CronTriggerTimetable(cron, timezone=zone))
        schedulers, _ = parse_timetable(core.CronTriggerTimetable(cron, timezone=zone))
        assert workers.previous(instant) == schedulers.previous(instant)

    @thorough
    @given(cron=crons, place=places, distance=distances, micros=st.integers(0, 999_999))
    def test_floor_is_the_last_date_up_to_an_instant(
        self, cron: str, place: tuple[str, str], distance: timedelta, micros: int
    ) -> None:
        """A run date is its own floor. The floor of any instant is a run date, and the next run date is later."""
        zone, change = place
        schedule, _ = parse_timetable(core.CronTriggerTimetable(cron, timezone=zone))
        instant = near(change, distance, zone) + timedelta(microseconds=micros)
        floor = schedule.floor(instant)
        assert floor <= instant < schedule.next(floor)
        assert schedule.floor(floor) == floor

    @pytest.mark.parametrize("cron", ["0 * * * *", "0 0 * * *"])
    @pytest.mark.parametrize("kind", [pendulum.instance, lambda instant: instant], ids=["pendulum", "plain"])
    def test_all_kinds_of_datetimes_are_accepted(self, cron: str, kind: Any) -> None:
        """Pendulum's datetimes, which Airflow passes, give plain aware datetimes."""
        schedule = CronSchedule(expression=cron, zone=ZoneInfo("Europe/Zurich"))
        instant = kind(datetime(2026, 1, 31, 23, tzinfo=UTC))
        results = [schedule.previous(instant), schedule.floor(instant), schedule.next(instant)]
        assert [(type(result), result.tzinfo) for result in results] == [(datetime, UTC)] * 3

    @pytest.mark.parametrize(
        ("run", "start"),
        [
            ("2026-03-30T00:30:00+00:00", "2026-03-29T01:30:00+00:00"),
            ("2026-03-29T01:30:00+00:00", "2026-03-28T01:30:00+00:00"),
            ("2026-10-25T01:30:00+00:00", "2026-10-24T00:30:00+00:00"),
        ],
        ids=["after the change: 23 hours", "the skipped 2:30", "the second 2:30: 25 hours"],
    )
    def test_daily_run_in_the_hour_of_a_clock_change(self, run: str, start: str) -> None:
        """`30 2 * * *` in Zurich runs at 3:30 if 2:30 is skipped, and at the second 2:30 if there are two."""
        schedule = CronSchedule(expression="30 2 * * *", zone=ZoneInfo("Europe/Zurich"))
        assert schedule.previous(datetime.fromisoformat(run)) == datetime.fromisoformat(start)


class TestSeveralCrons:
    @thorough
    @given(several=st.lists(crons, min_size=2, max_size=3), place=places, distance=distances)
    @example(several=["10 3 * * *", "30 2 * * *"], place=("Europe/Zurich", "2026-03-29"), distance=timedelta(days=3))
    @example(several=["45 * * * *", "30 2 * * *"], place=("Europe/Zurich", "2026-10-25"), distance=timedelta(hours=6))
    def test_windows_are_contiguous(self, several: list[str], place: tuple[str, str], distance: timedelta) -> None:
        """The window of a run begins at the previous run, of any expression."""
        zone, change = place
        timetable = core.MultipleCronTriggerTimetable(*several, timezone=zone)
        parts = timetable._timetables
        start = max(settled_start(part, near(change, distance, zone)) for part in parts)
        windows = windows_of(timetable, some_run_dates(timetable, start)[1:])
        assert not_contiguous(windows) == []

    @needs_values
    def test_worker_and_scheduler_timetables_agree(self) -> None:
        """The SDK's timetable and the scheduler's timetable give the same window."""
        several = ("0 6 * * *", "0 18 * * 1-5")
        workers, _ = parse_timetable(sdk.MultipleCronTriggerTimetable(*several, timezone="Europe/Zurich"))
        schedulers, _ = parse_timetable(core.MultipleCronTriggerTimetable(*several, timezone="Europe/Zurich"))
        instant = datetime(2026, 3, 29, 12, tzinfo=UTC)
        assert workers.previous(instant) == schedulers.previous(instant) == datetime(2026, 3, 29, 4, tzinfo=UTC)


@needs_partitions
class TestPartitions:
    @thorough
    @given(cron=crons, place=places, distance=distances)
    def test_windows_are_contiguous(self, cron: str, place: tuple[str, str], distance: timedelta) -> None:
        """A partitioned run has the period that begins at its partition date; a backfill's windows are contiguous."""
        zone, change = place
        timetable = core.CronPartitionTimetable(cron, timezone=zone, run_offset=-1)
        schedule, _ = parse_timetable(timetable)
        first = near(change, distance, zone)
        runs = dates_between(timetable, earliest=first, latest=first + timedelta(days=400))
        windows = [period_of(dates=dates, schedule=schedule).window for dates in islice(runs, 40)]
        assert not_contiguous(windows) == []

    @both("CronPartitionTimetable")
    def test_period_begins_at_the_partition_date(self, kind: Any) -> None:
        """With `run_offset=-1`, the run of 2 June has the window of 1 June, from midnight to midnight in its zone."""
        schedule, interval = parse_timetable(kind("0 0 * * *", timezone="Europe/Zurich", run_offset=-1))
        dates = RunDates(
            run_after=datetime(2026, 6, 1, 22, tzinfo=UTC), partition_date=datetime(2026, 5, 31, 22, tzinfo=UTC)
        )
        expected = IngestionWindow.parse("2026-05-31T22:00:00Z/2026-06-01T22:00:00Z")
        assert period_of(dates=dates, schedule=schedule, interval=interval).window == expected


class TestDataIntervals:
    @thorough
    @given(cron=crons, place=places, distance=distances)
    def test_data_interval_is_the_window(self, cron: str, place: tuple[str, str], distance: timedelta) -> None:
        """The window of a `CronDataIntervalTimetable`'s run is its data interval."""
        zone, change = place
        timetable = core_interval.CronDataIntervalTimetable(cron, zone)
        schedule, interval = parse_timetable(timetable)
        restriction = TimeRestriction(pendulum.instance(near(change, distance, zone)), None, catchup=True)
        info = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
        start, end = info.data_interval
        dates = RunDates(run_after=end, logical_date=start, data_interval_start=start, data_interval_end=end)
        window = period_of(dates=dates, schedule=schedule, interval=interval).window
        assert (window.start, window.end) == (start, end)

    @both("CronTriggerTimetable")
    def test_interval_of_a_trigger_timetable_is_the_window(self, kind: Any) -> None:
        """A scheduled run of `CronTriggerTimetable(interval=)` has that interval, not the schedule's period."""
        schedule, interval = parse_timetable(kind("0 0 * * *", timezone="UTC", interval=timedelta(hours=6)))
        end = datetime(2026, 1, 2, tzinfo=UTC)
        dates = RunDates(run_after=end, data_interval_start=end - timedelta(hours=6), data_interval_end=end)
        window = period_of(dates=dates, schedule=schedule, interval=interval).window
        assert str(window) == "2026-01-01T18:00:00Z/2026-01-02T00:00:00Z"

    def test_data_interval_without_a_schedule_is_the_window(self) -> None:
        """An unknown custom timetable works if it gives data intervals."""
        end = datetime(2026, 1, 2, tzinfo=UTC)
        dates = RunDates(run_after=end, data_interval_start=end - timedelta(hours=6), data_interval_end=end)
        assert period_of(dates=dates, schedule=None).window.seconds == 6 * 3600


class TestDelta:
    @pytest.mark.parametrize(
        "delta",
        [timedelta(hours=1), timedelta(days=1), timedelta(minutes=37), relativedelta(days=1), relativedelta(months=1)],
        ids=repr,
    )
    @pytest.mark.parametrize(
        "kind",
        [core.DeltaTriggerTimetable, core_interval.DeltaDataIntervalTimetable],
        ids=["trigger", "data interval"],
    )
    def test_windows_are_contiguous(self, delta: Any, kind: Any) -> None:
        """The SDK's timetable and the scheduler's timetable give the same contiguous windows."""
        timetable, of_worker = kind(delta), getattr(sdk, kind.__name__, kind)(delta)
        dates = list(islice(run_dates_of(timetable, datetime(2026, 1, 28, tzinfo=UTC)), 30))
        assert not_contiguous(windows_of(timetable, dates)) == []
        assert windows_of(of_worker, dates) == windows_of(timetable, dates)

    @thorough
    @given(seconds=st.integers(1, 10**7), first=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001
    def test_windows_of_any_delta_are_contiguous(self, seconds: int, first: datetime) -> None:
        """The delta is in whole seconds; the start is any time."""
        timetable = core.DeltaTriggerTimetable(timedelta(seconds=seconds))
        dates = list(islice(run_dates_of(timetable, first.replace(tzinfo=UTC)), 10))
        assert not_contiguous(windows_of(timetable, dates)) == []

    def test_pendulum_instant(self) -> None:
        """A delta can be subtracted from pendulum's datetimes."""
        schedule = DeltaSchedule(delta=timedelta(hours=1))
        assert schedule.previous(pendulum.datetime(2026, 1, 1)) == datetime(2025, 12, 31, 23, tzinfo=UTC)


class TestManualRuns:
    INSTANT = datetime(2026, 1, 31, 10, 17, 23, 500_000, tzinfo=UTC)

    def window(self, timetable: Any, **dates: Any) -> str:
        schedule, interval = parse_timetable(timetable)
        facts = RunDates(run_after=self.INSTANT, manual=True, **dates)
        return str(period_of(dates=facts, schedule=schedule, interval=interval).window)

    @both("CronTriggerTimetable")
    def test_manual_run_has_the_last_complete_period(self, kind: Any) -> None:
        """If an hourly DAG is triggered at 10:17, its window is 9:00 to 10:00."""
        timetable = kind("0 * * * *", timezone="UTC")
        assert self.window(timetable) == "2026-01-31T09:00:00Z/2026-01-31T10:00:00Z"

    def test_manual_run_for_a_run_date_has_the_period_that_ends_there(self) -> None:
        """A manual run for midnight has the window of the scheduled run for midnight."""
        midnight = datetime(2026, 1, 30, tzinfo=UTC)
        timetable = core.CronTriggerTimetable("0 0 * * *", timezone="UTC")
        assert self.window(timetable, logical_date=midnight) == "2026-01-29T00:00:00Z/2026-01-30T00:00:00Z"

    def test_inferred_data_interval_is_empty(self) -> None:
        """Airflow sets both edges to `run_after`; the window is the last complete period."""
        timetable = core.CronTriggerTimetable("0 0 * * *", timezone="UTC")
        start, end = timetable.infer_manual_data_interval(run_after=pendulum.instance(self.INSTANT))
        window = self.window(timetable, data_interval_start=start, data_interval_end=end)
        assert window == "2026-01-30T00:00:00Z/2026-01-31T00:00:00Z"

    def test_interval_of_a_manual_run_ends_at_the_last_run_date(self) -> None:
        """With `interval=`, the window has that length, and ends at the last scheduled run date."""
        timetable = core.CronTriggerTimetable("0 0 * * *", timezone="UTC", interval=timedelta(hours=6))
        start, end = timetable.infer_manual_data_interval(run_after=pendulum.instance(self.INSTANT))
        window = self.window(timetable, data_interval_start=start, data_interval_end=end)
        assert window == "2026-01-30T18:00:00Z/2026-01-31T00:00:00Z"

    def test_delta_of_a_manual_run_ends_at_its_date(self) -> None:
        """A delta has no fixed run dates, so the window ends at the run's date."""
        assert self.window(core.DeltaTriggerTimetable(timedelta(hours=1))) == (
            "2026-01-31T09:17:23Z/2026-01-31T10:17:23Z"
        )


class TestNoPeriod:
    @pytest.mark.parametrize("manual", [True, False], ids=["manual", "scheduled"])
    def test_run_without_period_is_refused(self, manual: bool) -> None:
        """Without data interval and schedule, there is no window; the error states how to give one."""
        with pytest.raises(WindowError) as caught:
            period_of(dates=RunDates(run_after=datetime(2026, 1, 1, tzinfo=UTC), manual=manual), schedule=None)
        assert caught.value.message == (
            "this DAG run has no data interval, and the DAG's schedule has no period to use instead"
        )
        assert str(caught.value.remedy).startswith(
            "trigger the run with window_start and window_end in its conf, or pass them"
        )

    @pytest.mark.parametrize("schedule", [None, "@once", "@continuous", [sdk.Asset("a")]], ids=str)
    def test_schedules_without_period(self, schedule: Any) -> None:
        """A timetable without fixed times gives neither a schedule nor an interval."""
        dag = sdk.DAG("d", schedule=schedule, start_date=datetime(2026, 1, 1, tzinfo=UTC), max_active_runs=1)
        assert parse_timetable(dag.timetable) == (None, None)


@pytest.mark.parametrize(
    ("schedule", "seconds"), [("@daily", 86_400), ("*/30 * * * *", 1800), (timedelta(hours=2), 7200)], ids=str
)
def test_schedules_as_text_or_timedelta(schedule: Any, seconds: int) -> None:
    """Text and timedeltas in a DAG give windows of their period, although their data intervals are empty."""
    dag = sdk.DAG("d", schedule=schedule, start_date=datetime(2026, 1, 1, tzinfo=UTC))
    (window,) = windows_of(dag.timetable, [datetime(2026, 6, 1, tzinfo=UTC)])
    assert (window.seconds, window.end) == (seconds, datetime(2026, 6, 1, tzinfo=UTC))


def to_scheduler_dag(dag: Any) -> Any:
    from airflow.serialization import serialized_objects

    serialization = getattr(serialized_objects, "DagSerialization", serialized_objects.SerializedDAG)  # before 3.2
    return serialization.deserialize_dag(serialization.serialize_dag(dag))


@pytest.mark.parametrize("name", ["Europe/Zurich", "Australia/Lord_Howe"])
@pytest.mark.parametrize("cron", ["@daily", "@hourly", "30 2 * * *"])
def test_backfill_over_both_clock_changes_is_contiguous(cron: str, name: str) -> None:
    """The windows of the runs that `airflow backfill create` creates are contiguous."""
    zone = pendulum.timezone(name)
    dag = sdk.DAG("d", schedule=cron, start_date=pendulum.datetime(2026, 1, 1, tz=zone))
    scheduler_dag = to_scheduler_dag(dag)
    edges = [(datetime(2026, 3, 25), datetime(2026, 4, 9)), (datetime(2026, 10, 1), datetime(2026, 10, 28))]  # noqa: DTZ001
    for edge in edges:
        earliest, latest = (instant.replace(tzinfo=UTC) for instant in edge)
        infos = list(scheduler_dag.iter_dagrun_infos_between(earliest, latest))
        assert len(infos) >= 15
        assert not_contiguous(windows_of(dag.timetable, [info.data_interval.end for info in infos])) == []


class TestEvents:
    """Tests of `EventsTimetable`: a window is the time from the previous event to the run's event."""

    @thorough
    @given(st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), min_size=2, max_size=12, unique=True))  # noqa: DTZ001
    def test_windows_are_contiguous(self, instants: list[datetime]) -> None:
        """Events may be listed in any order, and more than once."""
        dates = [pendulum.instance(instant.replace(microsecond=0), tz="UTC") for instant in instants]
        assume(len(set(dates)) > 1)
        timetable = events.EventsTimetable([*dates, dates[0]])
        runs = list(islice(run_dates_of(timetable, min(dates)), len(dates)))
        schedule, _ = parse_timetable(timetable)
        windows = [period_of(dates=of_run(date), schedule=schedule).window for date in runs[1:]]
        assert all(one.meets(other) for one, other in pairwise(windows))
        assert (min(dates), max(dates)) == (windows[0].start, windows[-1].end)

    def test_first_event_has_no_period(self) -> None:
        """No event precedes it."""
        schedule, _ = parse_timetable(
            events.EventsTimetable([pendulum.datetime(2026, 1, 3), pendulum.datetime(2026, 1, 9)])
        )
        with pytest.raises(WindowError, match="lists no earlier event"):
            period_of(dates=of_run(datetime(2026, 1, 3, tzinfo=UTC)), schedule=schedule)
