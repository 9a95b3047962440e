# SPDX-License-Identifier: Apache-2.0
"""A daily DAG whose windows are ingested in the order of time."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

with DAG(
    dag_id="e2e_ordered",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 2, 1, tz="UTC"),
    end_date=pendulum.datetime(2026, 3, 1, tz="UTC"),
    catchup=False,
):
    OnDemandFlowRunOperator(
        task_id="ingest",
        flow_id=str(uuid5(NAMESPACE_URL, "e2e_ordered")),
        depends_on_past=True,
        wait_for_completion=True,
        deferrable=True,
        poll_interval=1,
        uncertain_patience=20,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
