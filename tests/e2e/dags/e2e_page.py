# SPDX-License-Identifier: Apache-2.0
"""DAGs for the tests of the page: daily, hourly, with hostile names, and with many dataflows.

The DAGs stay paused. The test writes their history into the database.
"""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator


def make_dag(dag_id: str, *, schedule: str | None) -> None:
    """Create a DAG with one task."""
    with DAG(dag_id=dag_id, schedule=schedule, start_date=pendulum.datetime(2020, 1, 1, tz="UTC"), catchup=False):
        OnDemandFlowRunOperator(task_id="ingest", flow_id=str(uuid5(NAMESPACE_URL, dag_id)))


make_dag("e2e_page", schedule="@daily")
make_dag("e2e_page_hourly", schedule="@hourly")
make_dag("e2e_page_hostile", schedule=None)
make_dag("e2e_page_many", schedule=None)
