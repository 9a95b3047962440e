# SPDX-License-Identifier: Apache-2.0
"""A DAG with a task for every mode of operators and sensors, and with failing tasks. Each task has a separate window.

The test creates the connections.
"""

from __future__ import annotations

import traceback
from typing import Any

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW_ID = "c9cef9cb-c934-4467-8ef9-cbc934546741"
WINDOWS = pendulum.interval(pendulum.datetime(2026, 2, 1, tz="UTC"), pendulum.datetime(2026, 3, 1, tz="UTC"))
days = iter(WINDOWS.range("days"))
# If a task is due again before the executor reports the end of its previous poke, Airflow's scheduler fails it.
RESCHEDULE = {"mode": "reschedule", "deferrable": False, "poke_interval": 6}


def print_error(context: Any) -> None:
    """Print every part of an error that a user's failure callback can read."""
    error = context["exception"]
    print("failed with", repr(error), vars(error), "".join(traceback.format_exception(error)))


def create(task_id: str, *, conn: str = "calm", **arguments: Any) -> OnDemandFlowRunOperator:
    """Create a task with the next day as its window."""
    day = next(days)
    return OnDemandFlowRunOperator(
        task_id=task_id,
        flow_id=FLOW_ID,
        window_start=day.isoformat(),
        window_end=day.add(days=1).isoformat(),
        flowservice_conn_id=f"secrets_{conn}",
        poll_interval=1,
        **arguments,
    )


def wait(task_id: str, created: OnDemandFlowRunOperator, **arguments: Any) -> FlowRunSensor:
    """Create a sensor for the flow run that a task created."""
    settings = {"poke_interval": 1, **arguments}
    return FlowRunSensor(task_id=task_id, flow_run_id=created.output, flowservice_conn_id="secrets_calm", **settings)


with DAG(
    dag_id="e2e_secrets",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={"retries": 0, "on_failure_callback": print_error},
):
    # The test plans that the flow run of the first window fails.
    failing = create("create_failing")
    wait("failing", failing, deferrable=True)
    RetriggerFlowRunOperator(
        task_id="again",
        flow_run_id=failing.output,
        flowservice_conn_id="secrets_calm",
        trigger_rule="all_done",
        wait_for_completion=True,
        deferrable=False,
        poll_interval=1,
    ).set_upstream(wait("failed", failing, **RESCHEDULE))
    create("on_worker", wait_for_completion=True, deferrable=False)
    create("deferred", wait_for_completion=True, deferrable=True)
    created = create("create")
    wait("poke", created, mode="poke", deferrable=False)
    wait("reschedule", created, **RESCHEDULE)
    wait("deferring", created, deferrable=True)
    wait("begins_in_triggerer", created, start_from_trigger=True)
    create("ready_token", conn="ready", wait_for_completion=True, deferrable=True)
    create("wrong_secret", conn="wrong")
    create("secret_sent_back", conn="denying")
    create("token_sent_back", conn="refusing")
