"""DAGs whose windows come from elsewhere than their own period; each has a dataflow of its own."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, CronPartitionTimetable, PartitionedAssetTimetable

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.operators import OnDemandFlowRunOperator

ORDERS = flow_asset(str(uuid5(NAMESPACE_URL, "e2e_upstream")))
CLICKS = flow_asset(str(uuid5(NAMESPACE_URL, "e2e_partition_upstream")), name="e2e-clicks")
# The scheduler makes the run of this one day.
ONE_DAY = {"start_date": pendulum.datetime(2026, 2, 2, tz="UTC"), "end_date": pendulum.datetime(2026, 2, 2, tz="UTC")}


def dag(dag_id: str, *, schedule: object, dates: dict[str, object] | None = None, **kwargs: object) -> None:
    """A DAG with one task."""
    first, last = pendulum.datetime(2026, 1, 1, tz="UTC"), pendulum.datetime(2026, 3, 1, tz="UTC")
    with DAG(
        dag_id=dag_id,
        schedule=schedule,
        **(dates or {"start_date": first, "end_date": last}),
        catchup=dates is not None,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
    ):
        settings = {"wait_for_completion": True, "deferrable": True, "poll_interval": 2, **kwargs}
        OnDemandFlowRunOperator(task_id="ingest", flow_id=str(uuid5(NAMESPACE_URL, dag_id)), **settings)


dag("e2e_upstream", schedule=None, outlets=[ORDERS])
dag("e2e_downstream", schedule=[ORDERS])
by_days = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1)
dag("e2e_partition_upstream", schedule=by_days, dates=ONE_DAY, outlets=[CLICKS])
dag("e2e_partition_downstream", schedule=PartitionedAssetTimetable(assets=CLICKS))
dag("e2e_reaching_back", schedule="@daily", window="since_last_success")
