# SPDX-License-Identifier: Apache-2.0
"""Ingest hours, and in another DAG the day when all its hours are ingested (Airflow 3.3 and later)."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, DayWindow, PartitionedAssetTimetable, RollupMapper, StartOfDayMapper

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.operators import OnDemandFlowRunOperator

HOURS = flow_asset(str(uuid5(NAMESPACE_URL, "e2e_rollup_hours")), name="e2e-hours", partitions="hour")
WHOLE_DAYS = PartitionedAssetTimetable(
    assets=HOURS, default_partition_mapper=RollupMapper(upstream_mapper=StartOfDayMapper(), window=DayWindow())
)

for dag_id, schedule, outlets in (("e2e_rollup_hours", None, [HOURS]), ("e2e_rollup_days", WHOLE_DAYS, [])):
    with DAG(
        dag_id=dag_id,
        schedule=schedule,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        catchup=False,
        # On a busy machine, Airflow may start a resumed task twice, which uses up a try.
        default_args={"retries": 6, "retry_delay": timedelta(seconds=1)},
    ) as dag:
        OnDemandFlowRunOperator(
            task_id="ingest",
            flow_id=str(uuid5(NAMESPACE_URL, dag_id)),
            outlets=outlets,
            wait_for_completion=True,
            deferrable=True,
            poll_interval=1,
            uncertain_patience=20,
        )
    globals()[dag_id] = dag
