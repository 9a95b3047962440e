# SPDX-License-Identifier: Apache-2.0
"""DAGs with `start_from_trigger=True` on a sensor and on mapped sensors. Airflow starts mapped sensors on a worker."""

from __future__ import annotations

from itertools import pairwise
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

HOURS = [f"2026-02-02T{hour:02}:00:00Z" for hour in range(4)]

with DAG(dag_id="e2e_alone_mapped", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    created = OnDemandFlowRunOperator.partial(
        task_id="create", flow_id=str(uuid5(NAMESPACE_URL, "e2e_alone_mapped"))
    ).expand_kwargs([{"window_start": start, "window_end": end} for start, end in pairwise(HOURS)])
    FlowRunSensor.partial(task_id="wait", start_from_trigger=True, poke_interval=1).expand(flow_run_id=created.output)
