# SPDX-License-Identifier: Apache-2.0
"""Create a flow run in one task and wait for it in a sensor.

The first task ends immediately. A retry of the sensor only waits again and never creates a second flow run.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

with DAG(
    dag_id="flowservice_sensor",
    schedule=timedelta(hours=6),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 2},
    doc_md=__doc__,
    tags=["flowservice"],
):
    create = OnDemandFlowRunOperator(
        task_id="create",
        flow_id="3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
        delta_column="updated_at",
    )
    FlowRunSensor(
        task_id="wait",
        flow_run_id=create.output,
        mode="reschedule",
        poke_interval=60,
        timeout=6 * 60 * 60,
    )
