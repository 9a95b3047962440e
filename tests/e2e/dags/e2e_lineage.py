# SPDX-License-Identifier: Apache-2.0
"""A DAG for an Airflow with OpenLineage's listener and statsd: one task defers, one starts in the triggerer."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

# Each task has a separate dataflow, because a task reuses the other task's flow run of the same window.
INGEST_FLOW, CREATE_FLOW = (str(uuid5(NAMESPACE_URL, name)) for name in ("e2e_lineage", "e2e_lineage_create"))

with DAG(
    dag_id="e2e_lineage",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    end_date=pendulum.datetime(2026, 3, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 5, "retry_delay": pendulum.duration(seconds=1), "uncertain_patience": 20},
):
    OnDemandFlowRunOperator(
        task_id="ingest", flow_id=INGEST_FLOW, wait_for_completion=True, deferrable=True, poll_interval=1
    )
    create = OnDemandFlowRunOperator(task_id="create", flow_id=CREATE_FLOW)
    FlowRunSensor(task_id="wait", flow_run_id=create.output, poke_interval=1, start_from_trigger=True)
