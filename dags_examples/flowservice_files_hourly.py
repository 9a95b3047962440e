# SPDX-License-Identifier: Apache-2.0
"""Ingest one hour of a file-based source every hour, then use the reported results of the flow run.

With `CronDataIntervalTimetable`, the data interval is the hour before the DAG run starts, in the time zone
Europe/Zurich.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, task

from airflow_flowservice.operators import OnDemandFlowRunOperator

try:
    from airflow.sdk import CronDataIntervalTimetable
except ImportError:  # before Airflow 3.2
    from airflow.timetables.interval import CronDataIntervalTimetable

with DAG(
    dag_id="flowservice_files_hourly",
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="Europe/Zurich"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Zurich"),
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 2},
    doc_md=__doc__,
    tags=["flowservice"],
):
    ingest = OnDemandFlowRunOperator(
        task_id="ingest",
        flow_id="c9cef9cb-c934-4467-8ef9-cbc934546741",
        wait_for_completion=True,
        deferrable=True,
    )

    @task
    def report(flow_run: dict[str, Any]) -> str:
        """Return a summary of the ingested window. You can add a custom check here."""
        return f"{flow_run['window_start']} to {flow_run['window_end']}: {flow_run['output_records']} records"

    report(ingest.output["flow_run"])
