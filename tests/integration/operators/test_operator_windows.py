# SPDX-License-Identifier: Apache-2.0
"""Tests of the window that a task ingests: the DAG run's window, for all schedules, or the task's arguments."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pendulum
import pytest
from airflow.sdk import DAG, Asset
from airflow.timetables.events import EventsTimetable as CoreEventsTimetable
from airflow_versions import (
    VERSION,
    AssetOrTimeSchedule,
    BaseTimetable,
    CronDataIntervalTimetable,
    CronPartitionTimetable,
    CronTriggerTimetable,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
    EventsTimetable,
    MultipleCronTriggerTimetable,
)

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)


class CustomTimetable(BaseTimetable):
    """A custom timetable."""


class WithoutHolidays(CronTriggerTimetable):
    """A custom timetable that changes the DAG runs of Airflow's class."""

    def next_dagrun_info(self, **dates):
        raise NotImplementedError


class WithDescription(CronTriggerTimetable):
    """A custom timetable with the DAG runs of Airflow's class."""

    description = "daily"


MATCHES = EventsTimetable([pendulum.datetime(2026, 1, day, 20) for day in (9, 3, 6, 3)])


@pytest.fixture
def task_of(worker):
    """Return a function that creates a task which ingests."""

    def make(**arguments):
        return worker.task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", **arguments)

    return make


@pytest.fixture
def window_of(task_of, window_of_task):
    """Return a function that returns the window of the flow run of a task with these arguments."""
    return lambda **arguments: window_of_task(task_of(**arguments))


@pytest.fixture
def window_of_task(runs_of):
    """Return a function that runs a task and returns the window of its flow run."""

    def ingest(task):
        ended = task.run()
        if ended.error is not None:
            raise ended.error
        [run] = runs_of()
        return run["window_start"], run["window_end"]

    return ingest


SCHEDULED = [
    pytest.param("@daily", {"date": utc(2026, 1, 10)}, "2026-01-09T00:00", "2026-01-10T00:00", id="@daily"),
    pytest.param("@hourly", {"date": utc(2026, 1, 10, 3)}, "2026-01-10T02:00", "2026-01-10T03:00", id="@hourly"),
    pytest.param("30 6 * * 1", {"date": utc(2026, 1, 12, 6, 30)}, "2026-01-05T06:30", "2026-01-12T06:30", id="weekly"),
    pytest.param(
        timedelta(hours=6), {"date": utc(2026, 1, 10, 6)}, "2026-01-10T00:00", "2026-01-10T06:00", id="timedelta"
    ),
    pytest.param(
        DeltaTriggerTimetable(timedelta(minutes=15)),
        {"date": utc(2026, 1, 10, 6)},
        "2026-01-10T05:45",
        "2026-01-10T06:00",
        id="DeltaTriggerTimetable",
    ),
    pytest.param(
        DeltaDataIntervalTimetable(timedelta(hours=1)),
        {"date": utc(2026, 1, 10, 6), "interval": (utc(2026, 1, 10, 6), utc(2026, 1, 10, 7))},
        "2026-01-10T06:00",
        "2026-01-10T07:00",
        id="DeltaDataIntervalTimetable",
    ),
    pytest.param(
        CronTriggerTimetable("0 0 * * *", timezone="Europe/Zurich"),
        {"date": utc(2026, 3, 29, 22)},
        "2026-03-28T23:00",
        "2026-03-29T22:00",
        id="cron, on a day of 23 hours",
    ),
    pytest.param(
        CronTriggerTimetable("0 0 * * *", timezone="America/New_York"),
        {"date": utc(2025, 11, 3, 5)},
        "2025-11-02T04:00",
        "2025-11-03T05:00",
        id="cron, on a day of 25 hours",
    ),
    pytest.param(
        CronDataIntervalTimetable("0 0 * * *", timezone="Europe/Zurich"),
        {"date": utc(2026, 1, 8, 23), "interval": (utc(2026, 1, 8, 23), utc(2026, 1, 9, 23))},
        "2026-01-08T23:00",
        "2026-01-09T23:00",
        id="CronDataIntervalTimetable",
    ),
    pytest.param(
        CronTriggerTimetable("0 2 * * *", timezone="UTC", interval=timedelta(days=1)),
        {"date": utc(2026, 1, 9, 2), "interval": (utc(2026, 1, 9, 2), utc(2026, 1, 10, 2))},
        "2026-01-09T02:00",
        "2026-01-10T02:00",
        id="CronTriggerTimetable with an interval",
    ),
    pytest.param(MATCHES, {"date": utc(2026, 1, 9, 20)}, "2026-01-06T20:00", "2026-01-09T20:00", id="EventsTimetable"),
    pytest.param(
        AssetOrTimeSchedule(timetable=CronTriggerTimetable("0 0 * * *", timezone="UTC"), assets=[Asset("orders")]),
        {"date": utc(2026, 1, 10)},
        "2026-01-09T00:00",
        "2026-01-10T00:00",
        id="AssetOrTimeSchedule",
    ),
    pytest.param(
        MultipleCronTriggerTimetable("0 6 * * *", "30 18 * * *", timezone="Europe/Zurich"),
        {"date": utc(2026, 1, 10, 5)},
        "2026-01-09T17:30",
        "2026-01-10T05:00",
        id="MultipleCronTriggerTimetable",
    ),
    pytest.param(
        CronPartitionTimetable("0 0 * * *", timezone="Europe/Zurich", run_offset=-1),
        {"date": None, "run_after": utc(2026, 3, 29, 22), "partition_date": utc(2026, 3, 28, 23)},
        "2026-03-28T23:00",
        "2026-03-29T22:00",
        id="CronPartitionTimetable",
        marks=pytest.mark.needs_airflow(3, 2, "partitions"),
    ),
    pytest.param(
        "@continuous",
        {
            "date": utc(2026, 1, 9, 1, 2, 3),
            "interval": (utc(2026, 1, 9, 1, 2, 3), utc(2026, 1, 9, 4, 5, 6)),
            "dag_settings": {"max_active_runs": 1},
        },
        "2026-01-09T01:02:03",
        "2026-01-09T04:05:06",
        id="@continuous",
    ),
    pytest.param(
        CustomTimetable(),
        {"date": utc(2026, 1, 9), "interval": (utc(2026, 1, 9), utc(2026, 1, 9, 5))},
        "2026-01-09T00:00",
        "2026-01-09T05:00",
        id="a custom timetable",
    ),
]


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
@pytest.mark.parametrize(("schedule", "run", "start", "end"), SCHEDULED)
def test_scheduled_run_has_its_period(window_of, schedule, run, start, end, run_type):
    """A scheduled and a backfilled run of the same date have the same window."""
    start, end = (f"{edge}:00Z"[:19].rstrip("Z") + "Z" for edge in (start, end))
    assert (start, end) == window_of(schedule=schedule, run_type=run_type, **run)


@pytest.mark.parametrize(
    ("schedule", "on", "run"),
    [
        ("@daily", False, {"date": utc(2026, 1, 10)}),
        ("@daily", True, {"interval": (utc(2026, 1, 9), utc(2026, 1, 10))}),
        (timedelta(days=1), False, {"date": utc(2026, 1, 10)}),
        (timedelta(days=1), True, {"interval": (utc(2026, 1, 9), utc(2026, 1, 10))}),
    ],
)
def test_window_does_not_depend_on_airflows_setting_for_data_intervals(
    task_of, window_of_task, monkeypatch, schedule, on, run
):
    """The setting changes the timetable and the logical date of the schedule, but not the window."""
    for kind in ("CRON", "DELTA"):  # Airflow 3.3.2 reads only the setting for crons
        monkeypatch.setenv(f"AIRFLOW__SCHEDULER__CREATE_{kind}_DATA_INTERVALS", str(on))
    date = run["interval"][0] if on else run["date"]
    task = task_of(schedule=schedule, **{"date": date, **run})
    assert ("DataInterval" if on else "Trigger") in type(task.operator.dag.timetable).__name__
    assert ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z") == window_of_task(task)


@pytest.mark.parametrize(
    ("schedule", "run", "start", "end"),
    [
        pytest.param("@daily", {"date": utc(2026, 1, 10, 15, 30)}, "2026-01-09T00:00", "2026-01-10T00:00", id="cron"),
        pytest.param(
            "@daily",
            {"date": None, "run_after": utc(2026, 1, 10, 15, 30)},
            "2026-01-09T00:00",
            "2026-01-10T00:00",
            id="no date",
        ),
        pytest.param(
            timedelta(hours=6), {"date": utc(2026, 1, 10, 15)}, "2026-01-10T09:00", "2026-01-10T15:00", id="timedelta"
        ),
        pytest.param(
            CronTriggerTimetable("0 2 * * *", timezone="UTC", interval=timedelta(days=1)),
            {"date": utc(2026, 1, 10, 15), "interval": (utc(2026, 1, 9, 15), utc(2026, 1, 10, 15))},
            "2026-01-09T02:00",
            "2026-01-10T02:00",
            id="an interval",
        ),
        pytest.param(
            CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
            {"date": utc(2026, 1, 10, 15), "interval": (utc(2026, 1, 9), utc(2026, 1, 10))},
            "2026-01-09T00:00",
            "2026-01-10T00:00",
            id="CronDataIntervalTimetable",
        ),
        pytest.param(
            MATCHES, {"date": utc(2026, 1, 8, 15)}, "2026-01-03T20:00", "2026-01-06T20:00", id="EventsTimetable"
        ),
        pytest.param(
            AssetOrTimeSchedule(timetable=CronTriggerTimetable("0 0 * * *", timezone="UTC"), assets=[Asset("orders")]),
            {"date": utc(2026, 1, 10, 15)},
            "2026-01-09T00:00",
            "2026-01-10T00:00",
            id="AssetOrTimeSchedule",
        ),
    ],
)
def test_manual_run_has_the_last_complete_period(window_of, schedule, run, start, end):
    """The window of a manual run is the window of a scheduled run."""
    assert (f"{start}:00Z", f"{end}:00Z") == window_of(schedule=schedule, run_type="manual", **run)


DAILY_INTERVAL = CronDataIntervalTimetable("0 0 * * *", timezone="UTC")
NOW = utc(2026, 7, 20, 9, 30, 15, 123456)
# Airflow 3.3.2 cannot serialize the SDK's class.
CORE_MATCHES = CoreEventsTimetable([pendulum.datetime(2026, 1, day, 20) for day in (9, 3, 6, 3)])
INFERRED = [
    pytest.param("@daily", "2026-01-09T00:00", "2026-01-10T00:00", id="cron"),
    pytest.param("0 6 * * 1", "2025-12-29T06:00", "2026-01-05T06:00", id="weekly"),
    pytest.param(DAILY_INTERVAL, "2026-01-09T00:00", "2026-01-10T00:00", id="CronDataIntervalTimetable"),
    pytest.param(
        CronTriggerTimetable("0 2 * * *", timezone="UTC", interval=timedelta(days=1)),
        "2026-01-08T02:00",
        "2026-01-09T02:00",
        id="an interval",
    ),
    pytest.param(timedelta(hours=6), "2026-01-09T18:00", "2026-01-10T00:00", id="timedelta"),
    pytest.param(
        DeltaDataIntervalTimetable(timedelta(hours=6)), "2026-01-09T18:00", "2026-01-10T00:00", id="delta interval"
    ),
    pytest.param(
        MultipleCronTriggerTimetable("0 6 * * *", "0 18 * * *", timezone="UTC"),
        "2026-01-09T06:00",
        "2026-01-09T18:00",
        id="several crons",
    ),
    pytest.param(
        MultipleCronTriggerTimetable("0 6 * * *", "0 18 * * *", timezone="UTC", interval=timedelta(hours=12)),
        "2026-01-09T06:00",
        "2026-01-09T18:00",
        id="several crons with an interval",
    ),
    pytest.param(CORE_MATCHES, "2026-01-06T20:00", "2026-01-09T20:00", id="EventsTimetable"),
    pytest.param(
        CoreEventsTimetable(CORE_MATCHES.event_dates, restrict_to_events=True),
        "2026-01-06T20:00",
        "2026-01-09T20:00",
        id="EventsTimetable, restricted",
    ),
    pytest.param(
        AssetOrTimeSchedule(timetable=DAILY_INTERVAL, assets=[Asset("orders")]),
        "2026-01-09T00:00",
        "2026-01-10T00:00",
        id="AssetOrTimeSchedule",
    ),
]


@pytest.mark.parametrize("run_type", ["manual", "operator_triggered"])
@pytest.mark.parametrize("inferred_from", ["logical date", "time of the trigger"])
@pytest.mark.parametrize(("schedule", "start", "end"), INFERRED)
def test_manual_run_with_a_logical_date_has_its_period(window_of, schedule, start, end, inferred_from, run_type):
    """REST infers the data interval from the logical date, CLI and TriggerDagRunOperator from the time of the trigger.

    Airflow's own timetable infers it here. The window is the same.
    """
    if run_type == "operator_triggered" and VERSION < (3, 2):
        run_type = "manual"
    date = utc(2026, 1, 10)
    core = versions.core_timetable(DAG("d", schedule=schedule).timetable)
    instant = pendulum.instance(date if inferred_from == "logical date" else NOW)
    interval = core.infer_manual_data_interval(run_after=instant)
    given = {"date": date, "run_after": NOW, "interval": (interval.start, interval.end)}
    assert (f"{start}:00Z", f"{end}:00Z") == window_of(schedule=schedule, run_type=run_type, **given)


@pytest.mark.parametrize("interval", [(utc(2026, 7, 1), utc(2026, 7, 3)), (utc(2026, 7, 20), NOW)], ids=str)
@pytest.mark.parametrize(
    "schedule",
    ["@daily", DAILY_INTERVAL, None, "@once", [Asset("orders")]],
    # Before Airflow 3.2, the text of a timetable has its address, which differs between processes.
    ids=["@daily", "data intervals", "None", "@once", "asset"],
)
def test_manual_run_keeps_a_given_data_interval(window_of, schedule, interval):
    """The REST API accepts a data interval, which Airflow did not infer."""
    start, end = (f"{edge:%Y-%m-%dT%H:%M:%SZ}" for edge in interval)
    given = {"date": utc(2026, 1, 10), "run_after": NOW, "interval": interval}
    assert (start, end) == window_of(schedule=schedule, run_type="manual", **given)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_data_interval_of_a_scheduled_run_is_not_inferred_again(window_of, run_type):
    """Only manual runs have a logical date that a user chose."""
    given = {"date": utc(2026, 1, 10), "run_after": utc(2026, 1, 11), "interval": (utc(2026, 1, 10), utc(2026, 1, 11))}
    window = ("2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z")
    assert window == window_of(schedule=DAILY_INTERVAL, run_type=run_type, **given)


@pytest.mark.parametrize(
    ("schedule", "date", "names"),
    [
        (DAILY_INTERVAL, utc(2026, 7, 19), ", which names the period 2026-07-18T00:00:00Z/2026-07-19T00:00:00Z,"),
        (CustomTimetable(), utc(2026, 1, 10), ", but"),
    ],
    ids=["the interval begins at the logical date", "a custom timetable"],
)
def test_conflict_of_data_interval_and_logical_date_is_an_error(window_of, emulator, schedule, date, names):
    """Airflow may have inferred the interval, or the REST API received it: the error has both dates."""
    interval = (utc(2026, 7, 19), utc(2026, 7, 20))
    with pytest.raises(WindowError) as caught:
        window_of(schedule=schedule, run_type="manual", date=date, run_after=NOW, interval=interval)
    assert f"the logical date of this manual run is {date:%Y-%m-%d}T00:00:00Z{names}" in caught.value.message
    assert "its data interval is 2026-07-19T00:00:00Z/2026-07-20T00:00:00Z" in caught.value.message
    assert "the time of the trigger, 2026-07-20T09:30:15Z" in caught.value.message
    assert "window_start and window_end in its conf" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]


class InferringTimetable(BaseTimetable):
    """A custom timetable that infers the day before an instant, as Airflow's example of workdays."""

    def infer_manual_data_interval(self, *, run_after):
        end = run_after.start_of("day")
        return SimpleNamespace(start=end.subtract(days=1), end=end)


def test_custom_timetable_infers_the_period_of_the_logical_date(window_of):
    """If the timetable can infer the data interval, the window is that of the logical date."""
    interval = (utc(2026, 7, 18), utc(2026, 7, 19))
    given = {"date": utc(2026, 1, 10), "run_after": utc(2026, 7, 19, 9), "interval": interval}
    window = ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z")
    assert window == window_of(schedule=InferringTimetable(), run_type="manual", **given)


def test_custom_timetable_keeps_the_data_interval_of_the_logical_date(window_of):
    """An interval near the logical date, as REST infers it, does not contradict it."""
    given = {"date": utc(2026, 1, 12), "run_after": NOW, "interval": (utc(2026, 1, 9), utc(2026, 1, 10))}
    window = ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z")
    assert window == window_of(schedule=CustomTimetable(), run_type="manual", **given)


@pytest.mark.parametrize(
    ("schedule", "run_type", "message"),
    [
        (None, "manual", "the DAG's schedule (NullTimetable) has no period"),
        ("@once", "scheduled", "the DAG's schedule (OnceTimetable) has no period"),
        ("@continuous", "manual", "the DAG's schedule (ContinuousTimetable) has no period"),
        (CustomTimetable(), "scheduled", "the DAG's schedule (CustomTimetable) has no period"),
        ([Asset("orders")], "asset_triggered", "none of their events contains a window"),
        ([Asset("orders")], "manual", "the DAG's schedule (AssetTriggeredTimetable) has no period"),
    ],
    ids=["none", "@once", "@continuous, manual", "a custom timetable", "an asset", "an asset, manual"],
)
def test_error_for_a_run_without_a_period_states_the_remedy(window_of, emulator, schedule, run_type, message):
    """The run has no data interval, and its schedule has no period."""
    with pytest.raises(WindowError) as caught:
        window_of(
            schedule=schedule,
            run_type=run_type,
            date=None,
            run_after=utc(2026, 1, 10),
            dag_settings={"max_active_runs": 1},
        )
    assert FLOW == caught.value.flow_id
    assert message in caught.value.message
    assert "window_start and window_end" in caught.value.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_timetable_that_plans_other_runs_than_its_base_has_no_period(window_of, emulator, run_type):
    """The previous date of the cron may have no DAG run, so a window from there could leave a gap."""
    with pytest.raises(WindowError, match=r"schedule \(WithoutHolidays\) has no period"):
        window_of(schedule=WithoutHolidays("0 0 * * *", timezone="UTC"), run_type=run_type)
    assert {} == emulator.ledger()["requests"]


def test_data_interval_of_a_timetable_that_plans_other_runs_is_the_window(window_of):
    """A custom timetable defines its windows as data intervals."""
    interval = (utc(2026, 1, 6), utc(2026, 1, 9))
    window = window_of(schedule=WithoutHolidays("0 0 * * *", timezone="UTC"), interval=interval)
    assert ("2026-01-06T00:00:00Z", "2026-01-09T00:00:00Z") == window


def test_timetable_with_the_runs_of_its_base_has_its_period(window_of):
    """Other changes of a subclass have no effect on the window."""
    window = window_of(schedule=WithDescription("0 0 * * *", timezone="UTC"))
    assert ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z") == window


FORMS = [
    pytest.param(utc(2026, 1, 2), utc(2026, 1, 3), id="aware datetimes"),
    pytest.param(
        datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(2026, 1, 2, 19, tzinfo=timezone(timedelta(hours=-5))),
        id="other zones",
    ),
    pytest.param(
        pendulum.datetime(2026, 1, 2, 1, tz="Europe/Zurich"),
        pendulum.datetime(2026, 1, 3, 1, tz="Europe/Zurich"),
        id="pendulum",
    ),
    pytest.param("2026-01-02T00:00:00Z", "2026-01-03T00:00:00+00:00", id="ISO 8601"),
    pytest.param("2026-01-02T01:00:00+01:00", "2026-01-03 00:00:00+00:00", id="ISO 8601 with offsets"),
    pytest.param(1767312000, 1767398400, id="epoch seconds"),
    pytest.param("1767312000", "1767398400", id="epoch seconds as text"),
    pytest.param("{{ logical_date - macros.timedelta(days=8) }}", "{{ ds }}T00:00:00Z", id="templates"),
    pytest.param(
        "{{ (data_interval_end - macros.timedelta(days=8)).isoformat() }}",
        "{{ (logical_date.timestamp() - 7 * 86400) | int }}",
        id="templates of both kinds",
    ),
]


@pytest.mark.parametrize(("start", "end"), FORMS)
def test_window_arguments_accept_all_forms(window_of, start, end, request):
    """Instants are aware datetimes, ISO 8601 with an offset, or epoch seconds."""
    last = "2026-01-10T00:00:00Z" if request.node.callspec.id == "templates" else "2026-01-03T00:00:00Z"
    assert ("2026-01-02T00:00:00Z", last) == window_of(window_start=start, window_end=end)


def test_window_arguments_may_render_to_native_objects(window_of):
    """With `render_template_as_native_obj`, a template renders to a datetime."""
    given = {"window_start": "{{ logical_date - macros.timedelta(hours=1) }}", "window_end": "{{ logical_date }}"}
    assert ("2026-01-09T23:00:00Z", "2026-01-10T00:00:00Z") == window_of(native=True, **given)


def test_window_arguments_need_no_schedule(window_of):
    """A DAG without a schedule can use a window in its conf."""
    assert ("2026-01-02T00:00:00Z", "2026-01-02T06:00:00Z") == window_of(
        schedule=None,
        run_type="manual",
        date=None,
        conf={"start": "2026-01-02T00:00:00Z", "end": "2026-01-02T06:00:00Z"},
        window_start="{{ dag_run.conf['start'] }}",
        window_end="{{ dag_run.conf['end'] }}",
    )


def test_first_of_listed_events_has_no_period(window_of):
    """No event precedes it, and the error states the remedy."""
    with pytest.raises(WindowError, match="lists no earlier event") as caught:
        window_of(schedule=MATCHES, date=utc(2026, 1, 3, 20))
    assert "begin the list with an event that opens the first period" in caught.value.remedy
