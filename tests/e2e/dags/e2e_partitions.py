"""DAGs whose runs are for partitions, which Airflow has since 3.2; each has a dataflow of its own."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, CronPartitionTimetable, PartitionedAssetTimetable

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.operators import OnDemandFlowRunOperator

CLICKS = flow_asset(str(uuid5(NAMESPACE_URL, "e2e_partition_upstream")), name="e2e-clicks")
DAILY = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1)
HOURLY = CronPartitionTimetable("0 * * * *", timezone="Europe/Zurich", run_offset=-1)


WAITING = {
    "wait_for_completion": True,
    "deferrable": True,
    "poll_interval": 2,
    "uncertain_patience": 20,
    "retries": 5,
    "retry_delay": timedelta(seconds=1),
}


def dag(dag_id: str, *, schedule: object, first: pendulum.DateTime, last: pendulum.DateTime, **kwargs: object) -> None:
    """A DAG with one task; the scheduler makes its runs from the first date to the last."""
    with DAG(dag_id=dag_id, schedule=schedule, start_date=first, end_date=last, catchup=True, default_args=WAITING):
        OnDemandFlowRunOperator(task_id="ingest", flow_id=str(uuid5(NAMESPACE_URL, dag_id)), **kwargs)


day = pendulum.datetime(2026, 2, 2, tz="UTC")
dag("e2e_partition_upstream", schedule=DAILY, first=day, last=day, outlets=[CLICKS])
dag(
    "e2e_partition_downstream",
    schedule=PartitionedAssetTimetable(assets=CLICKS),
    first=day.subtract(months=1),
    last=day.add(months=1),
)

# Between these two runs and the next, Zurich's clocks go back from 03:00 to 02:00.
dag(
    "e2e_partitions",
    schedule=HOURLY,
    first=pendulum.datetime(2026, 10, 25, 0, tz="UTC"),
    last=pendulum.datetime(2026, 10, 25, 1, tz="UTC"),
)
