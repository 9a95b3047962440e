# SPDX-License-Identifier: Apache-2.0
"""DAGs of `test_ledger.py`: two DAGs for the same dataflow, for each of the two ledgers."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator


def make_dag(dag_id: str, *, dataflow: str, conn_id: str) -> None:
    """Create a DAG with one task. Its end date is in the past, so only a backfill creates DAG runs."""
    with DAG(
        dag_id=dag_id,
        schedule="@daily",
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        end_date=pendulum.datetime(2026, 4, 1, tz="UTC"),
        catchup=False,
        max_active_runs=16,
        # Before Airflow 3.3, the tasks resume on a worker. A race in Airflow's executor costs them many tries.
        default_args={"retries": 20, "retry_delay": timedelta(seconds=1)},
    ):
        OnDemandFlowRunOperator(
            task_id="ingest",
            flow_id=str(uuid5(NAMESPACE_URL, dataflow)),
            wait_for_completion=True,
            deferrable=True,
            poll_interval=1,
            uncertain_patience=20,
            flowservice_conn_id=conn_id,
        )


for dataflow, conn_id in (("e2e_ledger", "flowservice_default"), ("e2e_ledger_sql", "flowservice_sql")):
    make_dag(dataflow, dataflow=dataflow, conn_id=conn_id)
    make_dag(f"{dataflow}_second", dataflow=dataflow, conn_id=conn_id)
