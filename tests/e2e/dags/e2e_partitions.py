# SPDX-License-Identifier: Apache-2.0
"""DAGs with partitioned DAG runs, which Airflow supports since 3.2. Each DAG has a separate dataflow."""

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

DEFAULT_ARGS = {
    "wait_for_completion": True,
    "deferrable": True,
    "poll_interval": 2,
    "uncertain_patience": 20,
    "retries": 5,
    "retry_delay": timedelta(seconds=1),
}


def make_dag(
    dag_id: str, *, schedule: object, first: pendulum.DateTime, last: pendulum.DateTime, **kwargs: object
) -> None:
    """Create a DAG with one task. The scheduler creates its DAG runs from the first date to the last."""
    with DAG(
        dag_id=dag_id, schedule=schedule, start_date=first, end_date=last, catchup=True, default_args=DEFAULT_ARGS
    ):
        OnDemandFlowRunOperator(task_id="ingest", flow_id=str(uuid5(NAMESPACE_URL, dag_id)), **kwargs)


day = pendulum.datetime(2026, 2, 2, tz="UTC")
make_dag("e2e_partition_upstream", schedule=DAILY, first=day, last=day, outlets=[CLICKS])
make_dag(
    "e2e_partition_downstream",
    schedule=PartitionedAssetTimetable(assets=CLICKS),
    first=day.subtract(months=1),
    last=day.add(months=1),
)

# After these two DAG runs, daylight saving time ends in Zurich: clocks change from 03:00 to 02:00.
make_dag(
    "e2e_partitions",
    schedule=HOURLY,
    first=pendulum.datetime(2026, 10, 25, 0, tz="UTC"),
    last=pendulum.datetime(2026, 10, 25, 1, tz="UTC"),
)
