# SPDX-License-Identifier: Apache-2.0
"""DAGs of the schedule tests. Each DAG has a separate dataflow, and its id is derived from the DAG id."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, Asset
from airflow.timetables.events import EventsTimetable  # Airflow 3.3.2 cannot serialize the one of airflow.sdk.

from airflow_flowservice.operators import OnDemandFlowRunOperator

try:
    from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, MultipleCronTriggerTimetable
except ImportError:  # before 3.2
    from airflow.timetables.assets import AssetOrTimeSchedule
    from airflow.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable

ZURICH = "Europe/Zurich"
HOURLY = "0 * * * *"
# The scheduler creates these two DAG runs. After them, daylight saving time ends in Zurich: clocks change from 03:00 to
# 02:00.
TWO_RUNS = {
    "start_date": pendulum.datetime(2026, 10, 25, 0, tz="UTC"),
    "end_date": pendulum.datetime(2026, 10, 25, 1, tz="UTC"),
    "catchup": True,
}


def make_dag(dag_id: str, **kwargs: object) -> None:
    """Create a DAG with one task. Its end date is in the past, so by default only a backfill creates DAG runs."""
    settings = {
        "schedule": HOURLY,
        "start_date": pendulum.datetime(2026, 1, 1, tz=ZURICH),
        "end_date": pendulum.datetime(2026, 11, 1, tz=ZURICH),
        "catchup": False,
        **kwargs,
    }
    # Before Airflow 3.3, all of these tasks resume on a worker. On a busy machine, a race in Airflow's executor costs
    # them many tries.
    retries = {"retries": 20, "retry_delay": timedelta(seconds=1)}
    with DAG(dag_id=dag_id, default_args=retries, **settings):  # noqa: AIR002
        OnDemandFlowRunOperator(
            task_id="ingest",
            flow_id=str(uuid5(NAMESPACE_URL, dag_id)),
            wait_for_completion=True,
            deferrable=True,
            poll_interval=2,
            uncertain_patience=20,
        )


make_dag("e2e_manual")

for season in ("spring", "autumn"):
    make_dag(f"e2e_{season}_forwards")
    make_dag(f"e2e_{season}_backwards")

make_dag("e2e_crons", schedule=MultipleCronTriggerTimetable("0 */2 * * *", "30 * * * *", timezone=ZURICH))

events = [pendulum.datetime(2026, 10, 24, 22, tz="UTC").add(minutes=minutes) for minutes in (0, 50, 200, 300)]
make_dag("e2e_events", schedule=EventsTimetable(events))

hours_or_asset = AssetOrTimeSchedule(
    timetable=CronTriggerTimetable(HOURLY, timezone=ZURICH), assets=[Asset("e2e-or-time")]
)
make_dag("e2e_asset_or_time", schedule=hours_or_asset, **TWO_RUNS)
