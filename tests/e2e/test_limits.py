# SPDX-License-Identifier: Apache-2.0
"""Time limits and conditions on a real Airflow, where scheduler, triggerer and worker enforce them together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

FIRST, LAST = (datetime(2026, 2, day, tzinfo=timezone.utc) for day in (1, 6))


def test_limits_and_conditions_hold_in_the_triggerer(
    airflow: LocalAirflow,
    release: Callable[..., None],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    verdict: Callable[[str, datetime, datetime], tuple[int, int]],
) -> None:
    """After a time limit, the task is skipped or retries with the same flow run.

    If a flow run does not meet the task's conditions, the task is skipped or fails without a retry.
    """
    release("e2e_limits")
    plans = {
        1: {"status": "success", "run_s": 40},
        2: {"status": "success", "run_s": 90},
        3: {"status": "success", "records": 0},
        4: {"status": "partialSuccess", "failed_records": 5},
    }
    for day, plan in plans.items():
        tell("outcomes", flow_id=flow_of("e2e_limits"), covering=f"2026-02-0{day}T12:00:00Z", **plan)
    run_id = airflow.trigger("e2e_limits")
    airflow.wait_for_runs("e2e_limits", count=1, timeout=240)

    tasks = {each["task_id"]: each for each in airflow.task_instances("e2e_limits", run_id)}
    states = {name: tasks[name]["state"] for name in ("slow", "late", "empty", "partial", "good")}
    expected = {"slow": "success", "late": "skipped", "empty": "skipped", "partial": "failed", "good": "success"}
    assert expected == states
    assert tasks["slow"]["try_number"] > 1
    # None of the nine retries is used. On a busy machine, Airflow may start a resumed task a second time.
    assert {1, 2} >= {tasks[name]["try_number"] for name in ("late", "partial", "good")}
    assert (tasks["good"]["pid"] is None) == (versions.version() >= (3, 3))
    for name in ("empty", "partial"):
        created = airflow.xcom("e2e_limits", run_id, f"create_{name}", "return_value")
        assert created == airflow.xcom("e2e_limits", run_id, name, "return_value")
        assert created == airflow.xcom("e2e_limits", run_id, name, "flow_run")["id"]
    slow = airflow.xcom("e2e_limits", run_id, "slow", "return_value")
    assert (
        f"has not ended within wait_timeout, 3 seconds; its last status is inProgress (flow {flow_of('e2e_limits')}"
        in (read_logs(airflow, "slow"))
    )
    assert f"flow run {slow}" in read_logs(airflow, "slow")
    assert "has not ended within timeout, 5 seconds" in read_logs(airflow, "late")
    assert "succeeded without any records" in read_logs(airflow, "empty")
    assert "FlowRunIncompleteError" in read_logs(airflow, "partial")
    _, duplicated = verdict("e2e_limits", FIRST, LAST)
    assert 0 == duplicated


def read_logs(airflow: LocalAirflow, task_id: str) -> str:
    """Return the logs of all attempts of a task, concatenated."""
    files = (airflow.home / "logs" / "tasks").glob(f"dag_id=e2e_limits/*/task_id={task_id}/*.log*")
    return "".join(file.read_text() for file in files)
