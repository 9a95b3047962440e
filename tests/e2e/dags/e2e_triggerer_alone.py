"""A sensor that begins in the triggerer."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

with DAG(
    dag_id="e2e_alone",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    end_date=pendulum.datetime(2026, 3, 1, tz="UTC"),
    catchup=False,
):
    create = OnDemandFlowRunOperator(task_id="create", flow_id=str(uuid5(NAMESPACE_URL, "e2e_alone")))
    FlowRunSensor(task_id="wait", flow_run_id=create.output, start_from_trigger=True, poke_interval=1)
