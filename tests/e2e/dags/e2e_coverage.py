"""A daily DAG whose windows become a bit of everything."""

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
    end_date=pendulum.datetime(2026, 3, 1, tz="UTC"),  # the scheduler makes no run of its own
    catchup=False,
):
    OnDemandFlowRunOperator(
        task_id="ingest",
        flow_id=str(uuid5(NAMESPACE_URL, "e2e_coverage")),
        wait_for_completion=True,
        deferrable=True,
        poll_interval=2,
        uncertain_patience=5,
        # The executor race can take tries from any task on a busy machine.
        retries=4,
        retry_delay=timedelta(seconds=1),
    )
