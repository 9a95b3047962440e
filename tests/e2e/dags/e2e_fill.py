# SPDX-License-Identifier: Apache-2.0
"""Daily DAGs whose gaps the tests fill."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

# Windows from January 2025; the scheduler creates no DAG runs.
for dag_id in ("e2e_fill", "e2e_fill_year"):
    with DAG(
        dag_id=dag_id,
        schedule="@daily",
        start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
        end_date=pendulum.datetime(2026, 3, 1, tz="UTC"),
        catchup=False,
    ) as dag:
        OnDemandFlowRunOperator(
            task_id="ingest",
            flow_id=str(uuid5(NAMESPACE_URL, dag_id)),
            wait_for_completion=True,
            deferrable=True,
            poll_interval=2,
            uncertain_patience=5,
            # On a busy machine, Airflow may start a task twice, which uses up a try.
            retries=4,
            retry_delay=timedelta(seconds=1),
        )
    globals()[dag_id] = dag
