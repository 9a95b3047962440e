# SPDX-License-Identifier: Apache-2.0
"""Tests of the partitions of a dataflow's asset: which events name them, and which window a DAG run of them has."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.sdk import Asset
from airflow_versions import CronPartitionTimetable

from airflow_flowservice._airflow import versions
from airflow_flowservice.assets import flow_asset
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
YESTERDAY = ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z")
NO_WHOLE_DAY = "contains no whole day" if versions.version() >= (3, 3) else "because partitions need Airflow 3.3"
WAITS = {"wait_for_completion": True, "poll_interval": 0.1}
PARTITIONED = flow_asset(FLOW, partitions="hour")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)


@pytest.fixture
def task_of(worker):
    """Return a function that creates a task which ingests."""

    def make(**arguments):
        return worker.task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", **arguments)

    return make


@pytest.mark.needs_airflow(3, 3, "partitions at run time")
@pytest.mark.parametrize("deferrable", [True, False])
def test_each_ingested_hour_is_a_partition(task_of, deferrable):
    """A DAG that needs all hours of a day starts only then."""
    ended = task_of(outlets=[PARTITIONED], deferrable=deferrable, **WAITS).run()
    events = {event["partition_key"]: event["extra"] for event in ended.message.outlet_events}
    assert [f"{YESTERDAY[0][:11]}{hour:02}:00:00" for hour in range(24)] == sorted(events)
    assert {("hour", *YESTERDAY)} == {
        (extra["partitions"], extra["window_start"], extra["window_end"]) for extra in events.values()
    }


@pytest.mark.parametrize(
    ("arguments", "log_text"),
    [
        pytest.param({}, None, id="only created"),
        pytest.param(
            {"window_start": "2026-01-01T00:10:00Z", "window_end": "2026-01-01T01:50:00Z", **WAITS},
            "contains no whole hour",
            id="parts of hours",
        ),
        pytest.param(
            {"window_start": "2025-01-01T00:00:00Z", "window_end": "2026-01-01T00:00:00Z", **WAITS},
            "contains 8760",
            id="too many",
        ),
    ],
)
@pytest.mark.needs_airflow(3, 3, "partitions at run time")
def test_event_has_no_partition_that_is_not_known_to_be_ingested(task_of, log, arguments, log_text):
    """The event nevertheless has the window, and the log states the reason."""
    [event] = task_of(outlets=[PARTITIONED], **arguments).run().message.outlet_events
    assert (False, FLOW) == ("partition_key" in event, event["extra"]["flow_id"])
    assert "partitions" not in event["extra"]
    assert (log_text is not None) == any("has no partitions" in line for line in log())
    assert log_text is None or any(log_text in line for line in log())


def test_earlier_airflow_ingests_without_partitions(task_of, log, monkeypatch):
    """The log names the version, and the event has the window."""
    if versions.version() >= (3, 3):
        from airflow.sdk.execution_time.context import OutletEventAccessor

        monkeypatch.delattr(OutletEventAccessor, "add_partitions")
    ended = task_of(outlets=[PARTITIONED], **WAITS).run()
    [event] = ended.message.outlet_events
    assert ("success", YESTERDAY[0]) == (ended.state, event["extra"]["window_start"])
    assert any("partitions need Airflow 3.3" in line for line in log())


@pytest.mark.needs_airflow(3, 3, "partitions at run time")
def test_partitions_of_the_asset_replace_that_of_the_dag_run(task_of):
    """A daily DAG run that hours have started has a key of another form, which a DAG of months could not read."""
    day = utc(2026, 1, 9)
    arguments = {"date": None, "run_after": day + timedelta(days=1), "partition_date": day}
    daily = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1)
    outlets = [flow_asset(FLOW, partitions="day")]
    [event] = task_of(schedule=daily, outlets=outlets, **arguments, **WAITS).run().message.outlet_events
    assert ("2026-01-09T00:00:00", YESTERDAY[0]) == (event["partition_key"], event["extra"]["window_start"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param({}, "does not wait for its flow run", id="only created"),
        pytest.param({"window_offset": timedelta(minutes=10), **WAITS}, NO_WHOLE_DAY, id="parts of days"),
    ],
)
@pytest.mark.needs_airflow(3, 2, "partitions")
def test_partition_of_the_dag_run_is_refused_if_it_is_not_ingested(task_of, runs_of, arguments, reason):
    """Otherwise a DAG that waits for whole days would start before the day is ingested."""
    day = utc(2026, 1, 9)
    dates = {"date": None, "run_after": day + timedelta(days=1), "partition_date": day}
    daily = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1)
    ended = task_of(schedule=daily, outlets=[flow_asset(FLOW, partitions="day")], **dates, **arguments).run()
    assert ("failed", []) == (ended.state, runs_of())
    assert reason in str(ended.error)
    assert f"the event of asset 'aep://prod/dataflows/{FLOW}' would have the partition" in str(ended.error)


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_sensor_gives_no_event_with_a_partition_that_is_not_ingested(worker, create_run):
    """The sensor knows the window when the flow run has ended, so it fails instead of marking the DAG run's day."""
    day = utc(2026, 1, 9)
    run_id = create_run(window_start="2026-01-09T06:00:00Z", window_end="2026-01-09T12:00:00Z")
    ended = worker.task(
        FlowRunSensor,
        flow_run_id=run_id,
        deferrable=False,
        poke_interval=0.05,
        schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1),
        outlets=[flow_asset(FLOW, partitions="day")],
        date=None,
        run_after=day + timedelta(days=1),
        partition_date=day,
    ).run()
    assert "failed" == ended.state
    assert NO_WHOLE_DAY in str(ended.error)


@pytest.mark.needs_airflow(3, 3, "partition keys of events")
def test_events_of_partitions_have_the_windows_of_the_partitions(task_of, runs_of):
    """One flow run may have ingested several days, of which this DAG run needs only one."""
    of_flow_run = {"partitions": "hour", "window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-04T00:00:00Z"}
    events = [("hours", of_flow_run, f"2026-01-02T{hour:02}:00:00") for hour in range(24)]
    assert (
        "success"
        == task_of(schedule=[Asset("hours")], run_type="asset_triggered", date=None, events=events).run().state
    )
    [run] = runs_of()
    assert ("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z") == (run["window_start"], run["window_end"])
