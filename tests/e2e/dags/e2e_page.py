"""DAGs for the page: daily, hourly, hostile, of many dataflows; their past is written by the test; always paused."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator


def dag(dag_id: str, *, schedule: str | None) -> None:
    """A DAG with one task."""
    with DAG(dag_id=dag_id, schedule=schedule, start_date=pendulum.datetime(2020, 1, 1, tz="UTC"), catchup=False):
        OnDemandFlowRunOperator(task_id="ingest", flow_id=str(uuid5(NAMESPACE_URL, dag_id)))


dag("e2e_page", schedule="@daily")
dag("e2e_page_hourly", schedule="@hourly")
dag("e2e_page_hostile", schedule=None)
dag("e2e_page_many", schedule=None)
