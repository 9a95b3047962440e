# SPDX-License-Identifier: Apache-2.0
"""The end of deferred tasks on a real Airflow: callbacks, hooks and names that Airflow handles only on a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_ID = "e2e_task_end"
# The sensor that begins in the triggerer ends on a worker that resumes it, as the others do.
CALLS = (
    "callback plain_callback -1 True",
    "execute_complete plain_complete -1 True",
    "post_execute plain_post -1 True",
    "hook plain_hook -1 True",
    "callback mapped_callback 0 True",
    "callback mapped_callback 1 True",
    "execute_complete mapped_complete 0 True",
    "post_execute mapped_post 0 True",
    "callback sensor_callback -1 True",
    "callback sensor_mapped 0 True",
)
# The sensor with a template also waits.
WAITING = len(CALLS) + 1


@pytest.fixture(scope="module")
def tasks(
    airflow: LocalAirflow, release: Callable[..., None], tell: Callable[..., Any], flow_of: Callable[[str], str]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Run the DAG, end the flow runs when all tasks are deferred, and return the task instances.

    They are in a dictionary by task and map index.
    """
    release(DAG_ID)
    tell("outcomes", flow_id=flow_of(DAG_ID), status="success", run_s=86_400, times=None)
    run_id = airflow.trigger(DAG_ID)
    wait_until(lambda: _are_all_waiting(airflow, run_id), what=f"{WAITING} deferred tasks that have left the executor")
    tell("end", flow_id=flow_of(DAG_ID))
    airflow.wait_for_runs(DAG_ID, count=1)
    return {(each["task_id"], each["map_index"]): each for each in airflow.task_instances(DAG_ID, run_id)}


def _are_all_waiting(airflow: LocalAirflow, run_id: str) -> bool:
    """Return whether all tasks are deferred, and the scheduler has read the ends of their workers.

    If a task resumes before, the scheduler takes the end of its first worker for the loss of its second one. The task
    then fails (Airflow's `SchedulerJobRunner.process_executor_events`).
    """
    deferred = [each for each in airflow.task_instances(DAG_ID, run_id) if each["state"] == "deferred"]
    log = (airflow.home / "logs" / "processes" / "scheduler.log").read_text()
    key = f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{DAG_ID}', "
    ends = [
        f"{key}task_id='{each['task_id']}', run_id='{run_id}', try_number=1, map_index={each['map_index']})"
        for each in deferred
        # A task that began in the triggerer had no worker.
        if each["pid"] is not None
    ]
    return WAITING == len(deferred) and all(end in log for end in ends)


def xcom(airflow: LocalAirflow, task: dict[str, Any], key: str) -> Any:
    return airflow.xcom(DAG_ID, task["dag_run_id"], task["task_id"], key, map_index=task["map_index"])


def test_all_tasks_succeed_in_their_first_attempt(tasks: dict[tuple[str, int], dict[str, Any]]) -> None:
    assert {("success", 1)} == {(each["state"], each["try_number"]) for each in tasks.values()}
    assert WAITING + 1 == len(tasks)


@pytest.mark.usefixtures("tasks")
def test_each_call_of_a_deferred_task_is_made_once(airflow: LocalAirflow) -> None:
    """Callbacks, overridden methods and hooks run once each, after the wait in the triggerer."""
    lines = (airflow.home / "e2e_task_end.txt").read_text().splitlines()
    assert Counter(CALLS) == Counter(lines)


def test_map_index_template_is_rendered(airflow: LocalAirflow, tasks: dict[tuple[str, int], dict[str, Any]]) -> None:
    """The names of mapped tasks are rendered with the fields of the ended task."""
    flow_runs = [xcom(airflow, tasks["mapped_callback", index], "return_value") for index in (0, 1)]
    expected = {
        ("mapped_callback", 0): f"hour 04 of {flow_runs[0]}",
        ("mapped_callback", 1): f"hour 05 of {flow_runs[1]}",
        ("sensor_mapped", 0): xcom(airflow, tasks["create", -1], "return_value"),
    }
    assert expected == {key: tasks[key]["rendered_map_index"] for key in expected}


def test_sensor_with_a_plain_template_ends(airflow: LocalAirflow, tasks: dict[tuple[str, int], dict[str, Any]]) -> None:
    """`{{ ti.xcom_pull(task_ids='create') }}` with `start_from_trigger=True` starts on a worker, and ends."""
    created = xcom(airflow, tasks["create", -1], "return_value")
    sensor = tasks["sensor_template", -1]
    flow_run = xcom(airflow, sensor, "flow_run")
    assert (created, created, "success") == (xcom(airflow, sensor, "return_value"), flow_run["id"], flow_run["status"])
    assert sensor["pid"] is not None
