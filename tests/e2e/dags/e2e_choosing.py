# SPDX-License-Identifier: Apache-2.0
"""DAGs whose windows do not come from their own data interval. Each DAG has a separate dataflow."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.operators import OnDemandFlowRunOperator

ORDERS = flow_asset(str(uuid5(NAMESPACE_URL, "e2e_upstream")))


def make_dag(dag_id: str, *, schedule: object, **kwargs: object) -> None:
    """Create a DAG with one task."""
    with DAG(
        dag_id=dag_id,
        schedule=schedule,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        end_date=pendulum.datetime(2026, 3, 1, tz="UTC"),
        catchup=False,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=1), "uncertain_patience": 20},
    ):
        settings = {"wait_for_completion": True, "deferrable": True, "poll_interval": 2, **kwargs}
        OnDemandFlowRunOperator(task_id="ingest", flow_id=str(uuid5(NAMESPACE_URL, dag_id)), **settings)


make_dag("e2e_upstream", schedule=None, outlets=[ORDERS])
make_dag("e2e_downstream", schedule=[ORDERS])
make_dag("e2e_reaching_back", schedule="@daily", window="since_last_success")
