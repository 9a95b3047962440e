# SPDX-License-Identifier: Apache-2.0
"""Ingest one day of a table-based source every day, with one task that waits in the triggerer.

The window is the day before the logical date. For example, the DAG run with logical date 2026-01-02 ingests
2026-01-01T00:00Z (inclusive) to 2026-01-02T00:00Z (exclusive).
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

with DAG(
    dag_id="flowservice_daily",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 2},
    doc_md=__doc__,
    tags=["flowservice"],
):
    OnDemandFlowRunOperator(
        task_id="ingest",
        flow_id="3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
        delta_column="updated_at",
        wait_for_completion=True,
        deferrable=True,
    )
