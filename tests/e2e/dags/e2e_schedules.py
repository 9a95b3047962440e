"""DAGs of the tests of schedules; each has a dataflow of its own, whose id is made from the DAG's."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, Asset
from airflow.timetables.events import EventsTimetable  # that of airflow.sdk cannot be serialized (seen on 3.3.2)

from airflow_flowservice.operators import OnDemandFlowRunOperator

try:
    from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, MultipleCronTriggerTimetable
except ImportError:  # before 3.2
    from airflow.timetables.assets import AssetOrTimeSchedule
    from airflow.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable

ZURICH = "Europe/Zurich"
HOURLY = "0 * * * *"
# The scheduler itself makes these two runs; between them and the next, Zurich's clocks go back from 03:00 to 02:00.
TWO_RUNS = {
    "start_date": pendulum.datetime(2026, 10, 25, 0, tz="UTC"),
    "end_date": pendulum.datetime(2026, 10, 25, 1, tz="UTC"),
    "catchup": True,
}


def dag(dag_id: str, **kwargs: object) -> None:
    """A DAG with one task; it is over, so that unpausing it makes no run beside those of its backfill."""
    settings = {
        "schedule": HOURLY,
        "start_date": pendulum.datetime(2026, 1, 1, tz=ZURICH),
        "end_date": pendulum.datetime(2026, 11, 1, tz=ZURICH),
        "catchup": False,
        **kwargs,
    }
    # The executor race takes many a try on a busy machine before Airflow 3.3, where all of these resume on a worker.
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


dag("e2e_manual")

for season in ("spring", "autumn"):
    dag(f"e2e_{season}_forwards")
    dag(f"e2e_{season}_backwards")

dag("e2e_crons", schedule=MultipleCronTriggerTimetable("0 */2 * * *", "30 * * * *", timezone=ZURICH))

events = [pendulum.datetime(2026, 10, 24, 22, tz="UTC").add(minutes=minutes) for minutes in (0, 50, 200, 300)]
dag("e2e_events", schedule=EventsTimetable(events))

hours_or_asset = AssetOrTimeSchedule(
    timetable=CronTriggerTimetable(HOURLY, timezone=ZURICH), assets=[Asset("e2e-or-time")]
)
dag("e2e_asset_or_time", schedule=hours_or_asset, **TWO_RUNS)
