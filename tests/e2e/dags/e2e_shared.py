# SPDX-License-Identifier: Apache-2.0
"""DAGs of `test_two_airflows.py`, whose ledger two Airflows share: one for a dataflow, and two for another one."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

DATAFLOWS = {"e2e_shared": "e2e_shared", "e2e_shared_first": "e2e_shared_two", "e2e_shared_second": "e2e_shared_two"}

for dag_id, dataflow in DATAFLOWS.items():
    # The end date is in the past, so only a backfill creates DAG runs.
    with DAG(
        dag_id=dag_id,
        schedule="@hourly",
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        end_date=pendulum.datetime(2026, 2, 1, tz="UTC"),
        catchup=False,
        max_active_runs=16,
        default_args={"retries": 20, "retry_delay": timedelta(seconds=1)},
    ):
        OnDemandFlowRunOperator(
            task_id="ingest",
            flow_id=str(uuid5(NAMESPACE_URL, dataflow)),
            wait_for_completion=True,
            deferrable=True,
            poll_interval=1,
            uncertain_patience=20,
            flowservice_conn_id="flowservice_shared",
        )
