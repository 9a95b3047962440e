# SPDX-License-Identifier: Apache-2.0
"""A DAG with time limits in the triggerer, and with flow runs that succeed but fail a condition of their task.

Each task has a separate window.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

WAITS = {
    "late": {"timeout": 5, "soft_fail": True, "start_from_trigger": True},
    "empty": {"on_empty": "skip", "start_from_trigger": True},
    "partial": {"max_failed_records": 0, "deferrable": True},
    "good": {"max_failed_records": 0, "on_empty": "fail", "start_from_trigger": True},
}

with DAG(
    dag_id="e2e_limits",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={"retries": 9, "retry_delay": timedelta(seconds=1), "uncertain_patience": 20},
):
    flow = {"flow_id": str(uuid5(NAMESPACE_URL, "e2e_limits"))}
    OnDemandFlowRunOperator(
        task_id="slow",
        window_start="2026-02-01T00:00:00Z",
        window_end="2026-02-02T00:00:00Z",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=1,
        wait_timeout=3,
        **flow,
    )
    for day, (name, arguments) in enumerate(WAITS.items(), start=2):
        create = OnDemandFlowRunOperator(
            task_id=f"create_{name}",
            window_start=f"2026-02-0{day}T00:00:00Z",
            window_end=f"2026-02-0{day + 1}T00:00:00Z",
            **flow,
        )
        FlowRunSensor(task_id=name, flow_run_id=create.output, poke_interval=1, **arguments)
