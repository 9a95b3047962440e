# SPDX-License-Identifier: Apache-2.0
"""A DAG with many tasks that wait in the triggerer at the same time.

The environment variable `FLOWSERVICE_WAITING` (50) sets the number of mapped tasks; the window of each is one hour.
"""

from __future__ import annotations

import os
from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

COUNT = int(os.environ.get("FLOWSERVICE_WAITING", "50"))
FIRST = pendulum.datetime(2026, 2, 1, tz="UTC")
EDGES = [(FIRST + timedelta(hours=hour)).isoformat() for hour in range(COUNT + 1)]

with DAG(
    dag_id="e2e_waiting",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    max_active_tasks=1000,
    default_args={"retries": 0},
):
    OnDemandFlowRunOperator.partial(
        task_id="ingest",
        flow_id=str(uuid5(NAMESPACE_URL, "e2e_waiting")),
        wait_for_completion=True,
        deferrable=True,
        poll_interval=2,
    ).expand_kwargs([{"window_start": EDGES[hour], "window_end": EDGES[hour + 1]} for hour in range(COUNT)])
