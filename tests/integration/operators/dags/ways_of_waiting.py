# SPDX-License-Identifier: Apache-2.0
"""One DAG for each way of waiting, for `dag.test()`.

The first task creates and waits; then one task creates, one waits, and one uses the result.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, task

from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
START = pendulum.datetime(2026, 1, 1, tz="UTC")

for deferrable in (False, True):
    with DAG(f"waits_{'deferred' if deferrable else 'on_the_worker'}", schedule="@daily", start_date=START):
        ingest = OnDemandFlowRunOperator(
            task_id="ingest",
            flow_id=FLOW,
            delta_column="updated_at",
            wait_for_completion=True,
            deferrable=deferrable,
            poll_interval=0.1,
        )
        create = OnDemandFlowRunOperator(
            task_id="create",
            flow_id=FLOW,
            delta_column="updated_at",
            window_start="2026-01-05T00:00:00Z",
            window_end="{{ (logical_date - macros.timedelta(days=3)).timestamp() | int }}",
        )
        wait = FlowRunSensor(task_id="wait", flow_run_id=create.output, poke_interval=0.1, deferrable=deferrable)

        @task
        def report(flow_run: dict) -> str:
            return f"{flow_run['window_start']} {flow_run['output_records']}"

        ingest >> create
        report(wait.output["flow_run"])

with DAG("goes_wrong", schedule="@daily", start_date=START):
    failing = OnDemandFlowRunOperator(
        task_id="failing", flow_id=FLOW, delta_column="updated_at", wait_for_completion=True, poll_interval=0.1
    )
    RetriggerFlowRunOperator(
        task_id="again",
        flow_run_id="{{ ti.xcom_pull(task_ids='failing', key='flow_run')['id'] }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=0.1,
        trigger_rule="all_done",
    ).set_upstream(failing)
