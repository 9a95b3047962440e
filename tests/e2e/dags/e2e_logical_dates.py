# SPDX-License-Identifier: Apache-2.0
"""DAGs that are triggered with a logical date, and a DAG that triggers them with `TriggerDagRunOperator`."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

try:
    from airflow.sdk import CronDataIntervalTimetable
except ImportError:  # before 3.2
    from airflow.timetables.interval import CronDataIntervalTimetable

SCHEDULES = {"e2e_dates": "@daily", "e2e_dates_interval": CronDataIntervalTimetable("0 0 * * *", timezone="UTC")}
# Children of one DAG run, each with a different day.
CHILDREN = {"e2e_dates": (12, 13, 14), "e2e_dates_interval": (12,)}

for dag_id, schedule in SCHEDULES.items():
    with DAG(
        dag_id=dag_id,
        schedule=schedule,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        end_date=pendulum.datetime(2026, 1, 31, tz="UTC"),
        catchup=False,
    ) as dag:
        OnDemandFlowRunOperator(task_id="ingest", flow_id=str(uuid5(NAMESPACE_URL, dag_id)))
    globals()[dag_id] = dag

with DAG(dag_id="e2e_dates_parent", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    for child, days in CHILDREN.items():
        for day in days:
            TriggerDagRunOperator(
                task_id=f"{child}_{day}",
                trigger_dag_id=child,
                logical_date=pendulum.datetime(2026, 1, day, tz="UTC"),
            )
