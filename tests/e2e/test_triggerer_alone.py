# SPDX-License-Identifier: Apache-2.0
"""A sensor with `start_from_trigger=True` needs no worker process and has the same XComs and errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from airflow_versions import ended_workers
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow


@pytest.mark.needs_airflow(3, 3, "tasks that start in the triggerer")
def test_sensor_starts_and_ends_in_the_triggerer(
    airflow: LocalAirflow,
    backfill: Callable[..., list[dict[str, Any]]],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    release: Callable[..., None],
) -> None:
    """The triggerer renders `create.output`. If the flow run fails, a worker ends the task with the typed error."""
    release("e2e_alone")
    tell("outcomes", flow_id=flow_of("e2e_alone"), status="failed", covering="2026-02-02T12:00:00Z")
    first, last = (datetime(2026, 2, day, tzinfo=timezone.utc) for day in (2, 3))
    succeeded, failed = sorted(backfill("e2e_alone", first=first, last=last, count=2), key=lambda run: run["run_after"])

    created = airflow.xcom("e2e_alone", succeeded["dag_run_id"], "create", "return_value")
    assert created == airflow.xcom("e2e_alone", succeeded["dag_run_id"], "wait", "return_value")
    flow_run = airflow.xcom("e2e_alone", succeeded["dag_run_id"], "wait", "flow_run")
    assert ("success", created) == (flow_run["status"], flow_run["id"])
    sensor = {each["task_id"]: each for each in airflow.task_instances("e2e_alone", succeeded["dag_run_id"])}["wait"]
    assert ("success", None) == (sensor["state"], sensor["pid"])
    links = airflow.api("GET", f"/dags/e2e_alone/dagRuns/{succeeded['dag_run_id']}/taskInstances/wait/links")
    assert {
        "Open in Experience Platform": flow_run["url"],
        "Open dataflow in Experience Platform": flow_run["url"].partition("/activity/")[0],
    } == links["extra_links"]

    assert ("success", "failed") == (succeeded["state"], failed["state"])
    logs = (airflow.home / "logs" / "tasks").glob("dag_id=e2e_alone/*/task_id=wait/*.log*")
    text = "".join(file.read_text() for file in logs)
    assert "FlowRunFailedError" in text
    assert "CONNECTOR-1001-500" in text


@pytest.mark.needs_airflow(3, 1, "tasks that end in the triggerer")
def test_mapped_sensors_start_on_a_worker_and_end_in_the_triggerer(
    airflow: LocalAirflow, tell: Callable[..., Any], flow_of: Callable[[str], str], release: Callable[..., None]
) -> None:
    """Each mapped sensor needs one worker process and returns the XComs of the flow run for its map index."""
    release("e2e_alone_mapped")
    tell("outcomes", flow_id=flow_of("e2e_alone_mapped"), status="success", run_s=86_400, times=3)
    run_id = airflow.trigger("e2e_alone_mapped")
    wait_until(
        lambda: 3 == [each["state"] for each in airflow.task_instances("e2e_alone_mapped", run_id)].count("deferred"),
        what="three deferred tasks",
    )
    tell("end", flow_id=flow_of("e2e_alone_mapped"))
    (run,) = airflow.wait_for_runs("e2e_alone_mapped", count=1, timeout=240)

    assert "success" == run["state"]
    sensors = [each for each in airflow.task_instances("e2e_alone_mapped", run_id) if each["task_id"] == "wait"]
    assert [("success", 1)] * 3 == [(each["state"], each["try_number"]) for each in sensors]
    wait_until(
        lambda: all(states_left_by_workers(airflow, each["id"]) for each in sensors),
        what="the end of the worker processes",
    )
    ended = [states_left_by_workers(airflow, each["id"]) for each in sensors]
    assert [["deferred"]] * 3 == ended
    for index in range(3):
        created, returned, flow_run = (
            airflow.xcom("e2e_alone_mapped", run_id, task_id, key, map_index=index)
            for task_id, key in (("create", "return_value"), ("wait", "return_value"), ("wait", "flow_run"))
        )
        assert (created, created, "success") == (returned, flow_run["id"], flow_run["status"])


def states_left_by_workers(airflow: LocalAirflow, task_instance_id: str) -> list[str]:
    """Return the final task state of each worker process of a task.

    The scheduler logs the state a short time after the process ends.
    """
    text = airflow.supervisor.log_file("scheduler").read_text()
    return [state for state, task in ended_workers(text) if task == task_instance_id]
