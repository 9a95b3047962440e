# SPDX-License-Identifier: Apache-2.0
"""Daily DAG for windows of all states."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

with DAG(
    dag_id="e2e_coverage",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    end_date=pendulum.datetime(2026, 3, 1, tz="UTC"),  # the scheduler creates no DAG runs
    catchup=False,
):
    OnDemandFlowRunOperator(
        task_id="ingest",
        flow_id=str(uuid5(NAMESPACE_URL, "e2e_coverage")),
        wait_for_completion=True,
        deferrable=True,
        poll_interval=2,
        uncertain_patience=5,
        # On a busy machine, Airflow may start a task twice, which uses up a try.
        retries=4,
        retry_delay=timedelta(seconds=1),
    )
