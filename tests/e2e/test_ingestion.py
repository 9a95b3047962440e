# SPDX-License-Identifier: Apache-2.0
"""Each window is ingested exactly once on a real Airflow. The emulator's ledger is the reference."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import requests
from instants import instant

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    Backfill = Callable[..., list[dict[str, Any]]]
    Verdict = Callable[[str, datetime, datetime], tuple[int, int]]

DAY = timedelta(days=1)


def utc(*parts: int) -> datetime:
    """Return an aware UTC datetime."""
    return datetime(*parts, tzinfo=timezone.utc)


def read_ingest_logs(airflow: LocalAirflow, dag_id: str) -> str:
    """Return the logs of all tries of a DAG's `ingest` tasks, concatenated."""
    # The logs are read from files: the API returns 404 for a try that was lost in a race of Airflow's executor.
    files = (airflow.home / "logs" / "tasks").glob(f"dag_id={dag_id}/*/task_id=ingest/*.log*")
    return "".join(file.read_text() for file in files)


def states(runs: list[dict[str, Any]]) -> set[str]:
    """Return the distinct states of DAG runs."""
    return {run["state"] for run in runs}


def test_daily_example_ingests_each_day_once(airflow: LocalAirflow, backfill: Backfill, verdict: Verdict) -> None:
    """The daily example ingests each day exactly once.

    Its XComs are plain values, and its buttons link to the flow run and the dataflow.
    """
    runs = backfill("flowservice_daily", first=utc(2026, 2, 2), last=utc(2026, 2, 8), count=7)

    assert {"success"} == states(runs)
    assert (0, 0) == verdict("flowservice_daily", utc(2026, 2, 1), utc(2026, 2, 8))
    for run in runs:
        dag_id, run_id = "flowservice_daily", run["dag_run_id"]
        flow_run = airflow.xcom(dag_id, run_id, "ingest", "flow_run")
        date = instant(run["logical_date"])
        expected = tuple(f"{day:%Y-%m-%dT%H:%M:%SZ}" for day in (date - DAY, date))
        assert expected == (flow_run["window_start"], flow_run["window_end"])
        assert ("success", 1440) == (flow_run["status"], flow_run["output_records"])
        assert flow_run["id"] == airflow.xcom(dag_id, run_id, "ingest", "return_value")
        links = airflow.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/ingest/links")
        assert {
            "Open in Experience Platform": flow_run["url"],
            "Open dataflow in Experience Platform": flow_run["url"].partition("/activity/")[0],
        } == links["extra_links"]


def test_task_without_outlets_needs_one_worker_process(airflow: LocalAirflow, backfill: Backfill) -> None:
    """The triggerer ends a deferred task without outlets, so the task needs no second worker process."""
    (run,) = backfill("e2e_triggerer", first=utc(2026, 2, 2), last=utc(2026, 2, 2), count=1)

    log = airflow.task_log("e2e_triggerer", run["dag_run_id"], "ingest")
    assert 1 == log.count("Window 2026-02-01T00:00:00Z/2026-02-02T00:00:00Z")
    assert 0 == log.count("execute_complete")
    assert 1 == log.count("ended as success")


def test_task_with_outlet_creates_asset_event_on_a_worker(
    airflow: LocalAirflow, backfill: Backfill, verdict: Verdict
) -> None:
    """A task with an outlet resumes on a worker, which creates the asset event.

    If Airflow starts the task twice, the window is still ingested exactly once.
    """
    runs = backfill("e2e_outlet", first=utc(2026, 2, 2), last=utc(2026, 2, 9), count=8, max_active_runs=8)

    assert {"success"} == states(runs)
    assert (0, 0) == verdict("e2e_outlet", utc(2026, 2, 1), utc(2026, 2, 9))
    events = airflow.api("GET", "/assets/events", params={"source_dag_id": "e2e_outlet", "limit": 100})
    assert {run["dag_run_id"] for run in runs} <= {event["source_run_id"] for event in events["asset_events"]}
    for run in runs:
        flow_run = airflow.xcom("e2e_outlet", run["dag_run_id"], "ingest", "flow_run")
        assert flow_run["id"] == airflow.xcom("e2e_outlet", run["dag_run_id"], "ingest", "return_value")
        assert "success" == flow_run["status"]


def test_waiting_on_a_worker(airflow: LocalAirflow, backfill: Backfill, verdict: Verdict) -> None:
    """Without deferral, the task waits on the worker and returns the same XComs."""
    runs = backfill("e2e_worker", first=utc(2026, 2, 2), last=utc(2026, 2, 3), count=2)

    assert {"success"} == states(runs)
    assert (0, 0) == verdict("e2e_worker", utc(2026, 2, 1), utc(2026, 2, 3))
    flow_run = airflow.xcom("e2e_worker", runs[0]["dag_run_id"], "ingest", "flow_run")
    assert flow_run["id"] == airflow.xcom("e2e_worker", runs[0]["dag_run_id"], "ingest", "return_value")
    assert ("success", 1440) == (flow_run["status"], flow_run["output_records"])


def test_sensor_in_all_modes(airflow: LocalAirflow, backfill: Backfill, verdict: Verdict) -> None:
    """Sensors in modes poke, reschedule and deferrable wait for the flow run that the operator created."""
    runs = backfill("e2e_sensors", first=utc(2026, 2, 2), last=utc(2026, 2, 2), count=1)

    assert {"success"} == states(runs)
    assert (0, 0) == verdict("e2e_sensors", utc(2026, 2, 1, 12), utc(2026, 2, 2))
    for run in runs:
        values = [
            airflow.xcom("e2e_sensors", run["dag_run_id"], name, "return_value")
            for name in ("create", "poke", "reschedule", "deferrable")
        ]
        assert 1 == len(set(values))
        assert None is not values[0]


def test_retry_after_failed_run_creates_a_new_run(
    airflow: LocalAirflow, backfill: Backfill, verdict: Verdict, tell: Callable[..., Any], flow_of: Callable[[str], str]
) -> None:
    """A failed flow run fails the attempt with the errors of the run. The retry creates a new run, which succeeds."""
    noon = "2026-02-01T12:00:00Z"
    tell("outcomes", flow_id=flow_of("e2e_failing"), status="failed", times=1, covering=noon)
    (run,) = backfill("e2e_failing", first=utc(2026, 2, 2), last=utc(2026, 2, 2), count=1)

    assert "success" == run["state"]
    assert (0, 0) == verdict("e2e_failing", utc(2026, 2, 1), utc(2026, 2, 2))
    log = read_ingest_logs(airflow, "e2e_failing")
    assert "FlowRunFailedError" in log
    assert "CONNECTOR-1001-500" in log
    assert "What to do: test the source's connection" in log
    assert "fix the cause that the run's errors name" in log


def test_refusal_fails_the_task_without_retry(
    airflow: LocalAirflow, emulator: EmulatedFlowService, backfill: Backfill, flow_of: Callable[[str], str]
) -> None:
    """A disabled dataflow fails the task on the first attempt, and the log names the remedy."""
    (run,) = backfill("e2e_refused", first=utc(2026, 2, 2), last=utc(2026, 2, 2), count=1, state="disabled")

    (instance,) = airflow.task_instances("e2e_refused", run["dag_run_id"])
    assert ("failed", 1) == (instance["state"], instance["try_number"])
    log = read_ingest_logs(airflow, "e2e_refused")
    assert "FlowDisabledError" in log
    assert "What to do: enable the dataflow in Experience Platform" in log
    assert [] == emulator.ledger(flow_id=flow_of("e2e_refused"), start=utc(2026, 2, 1), end=utc(2026, 2, 2))["runs"]


def test_uncertain_task_can_be_marked_as_success(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    release: Callable[..., None],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    verdict: Callable[[str, datetime, datetime], tuple[int, int]],
) -> None:
    """A task with unknown outcome can be marked as success, and no further flow run is created.

    In practice, a user first verifies that the window is ingested.
    """
    release("e2e_marked")
    tell("faults", action="hide_windows")
    tell("faults", action="record_and_close", nth=1)
    try:
        run_id = airflow.trigger("e2e_marked", logical_date=utc(2026, 2, 2))
        (failed,) = airflow.wait_for_runs("e2e_marked", count=1)
    finally:
        requests.delete(f"{emulator.url}/_emulator/faults", timeout=30).raise_for_status()
    path = f"/dags/e2e_marked/dagRuns/{run_id}/taskInstances/ingest"
    airflow.api("PATCH", path, json={"new_state": "success"})
    (marked,) = airflow.task_instances("e2e_marked", run_id)

    assert ("failed", "success") == (failed["state"], marked["state"])
    log = read_ingest_logs(airflow, "e2e_marked")
    assert "FlowRunUncertainError" in log
    assert "mark the task as success" in log
    deadline = time.monotonic() + 60
    while emulator.ledger(flow_id=flow_of("e2e_marked"), start=utc(2026, 2, 1), end=utc(2026, 2, 2))["active"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (0, 0) == verdict("e2e_marked", utc(2026, 2, 1), utc(2026, 2, 2))
    assert 1 == len(emulator.ledger(flow_id=flow_of("e2e_marked"), start=utc(2026, 2, 1), end=utc(2026, 2, 2))["runs"])


def test_failed_run_is_retriggered(
    airflow: LocalAirflow,
    release: Callable[..., None],
    verdict: Verdict,
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
) -> None:
    """A sensor fails without a retry on a failed run; `RetriggerFlowRunOperator` ingests the window again."""
    release("e2e_retrigger")
    tell("outcomes", flow_id=flow_of("e2e_retrigger"), status="failed", times=1)
    run_id = airflow.trigger("e2e_retrigger", conf={"start": "2026-02-01T00:00:00Z", "end": "2026-02-01T06:00:00Z"})
    airflow.wait_for_runs("e2e_retrigger", count=1, timeout=240)

    instances = {each["task_id"]: each for each in airflow.task_instances("e2e_retrigger", run_id)}
    assert ("failed", "success") == (instances["wait"]["state"], instances["again"]["state"])
    # None of the two retries is used. A race in Airflow's executor may start a resumed task a second time.
    assert instances["wait"]["try_number"] <= 2
    assert (0, 0) == verdict("e2e_retrigger", utc(2026, 2, 1), utc(2026, 2, 1, 6))
    first = airflow.xcom("e2e_retrigger", run_id, "ingest", "return_value")
    again = airflow.xcom("e2e_retrigger", run_id, "again", "flow_run")
    assert first != again["id"]
    assert "2026-02-01T00:00:00Z" == again["window_start"]
