# SPDX-License-Identifier: Apache-2.0
"""A DAG whose tasks wait in the triggerer for flow runs of a server that sends poisoned and huge responses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

CONNECTION = "e2e_hostile"
# On a busy machine, Airflow's executor sometimes loses a task before it starts.
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=1)}
ALONE = {"start_from_trigger": True, "poke_interval": 1, "timeout": 600, "flowservice_conn_id": CONNECTION}
BAD_IDS = {"bad_slash": "innocent_1/innocent_2", "bad_length": "x" * 201, "bad_type": "{'id': 'innocent_1'}"}


def ends_on_worker(context: Any) -> None:
    """Need a worker at the end of the task, so that the trigger's event is stored."""


with DAG(dag_id="e2e_hostile", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    # The id of each flow run is the id of the task that waits for it.
    for task_id in ("innocent_1", "innocent_2", "innocent_3", "nul_success", "nul_failed"):
        FlowRunSensor(task_id=task_id, flow_run_id=task_id, **ALONE)
    FlowRunSensor(task_id="nul_event", flow_run_id="nul_event", on_success_callback=ends_on_worker, **ALONE, **RETRIES)
    OnDemandFlowRunOperator(
        task_id="nul_operator",
        flow_id="flow-1",
        window_start="2026-02-01T00:00:00Z",
        window_end="2026-02-02T00:00:00Z",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=1,
        flowservice_conn_id=CONNECTION,
        **RETRIES,
    )
    for task_id, flow_run_id in BAD_IDS.items():
        FlowRunSensor(task_id=task_id, flow_run_id=flow_run_id, **ALONE)
    for task_id in ("huge_gzip", "huge_endless", "huge_values"):
        FlowRunSensor(task_id=task_id, flow_run_id=task_id, error_budget=10, **ALONE)
