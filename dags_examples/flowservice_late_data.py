# SPDX-License-Identifier: Apache-2.0
"""Ingest one day of a source whose rows arrive up to six hours late.

`window_offset` moves each window by six hours, so the windows stay contiguous. The DAG run with logical date 2026-01-10
ingests 2026-01-08T18:00Z to 2026-01-09T18:00Z.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

with DAG(
    dag_id="flowservice_late_data",
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
        window_offset=timedelta(hours=-6),
        wait_for_completion=True,
        deferrable=True,
    )
