# SPDX-License-Identifier: Apache-2.0
"""A DAG with `start_from_trigger=True` on a mapped sensor and on a sensor in a mapped task group."""

from __future__ import annotations

from itertools import pairwise
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, task_group

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

HOURS = [f"2026-02-01T{hour:02}:00:00Z" for hour in range(4)]
FLOW = str(uuid5(NAMESPACE_URL, "e2e_mapped_sensor"))

with DAG(dag_id="e2e_mapped_sensor", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    create = OnDemandFlowRunOperator.partial(task_id="create", flow_id=FLOW).expand_kwargs(
        [{"window_start": start, "window_end": end} for start, end in pairwise(HOURS[:3])]
    )
    FlowRunSensor.partial(task_id="wait", start_from_trigger=True, poke_interval=1).expand(flow_run_id=create.output)

    @task_group
    def ingest(start: str, end: str) -> None:
        """Create a flow run for one window, then wait for it."""
        created = OnDemandFlowRunOperator(task_id="create", flow_id=FLOW, window_start=start, window_end=end)
        FlowRunSensor(task_id="wait", flow_run_id=created.output, start_from_trigger=True, poke_interval=1)

    ingest.partial(end=HOURS[3]).expand(start=HOURS[2:3])
