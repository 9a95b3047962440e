# SPDX-License-Identifier: Apache-2.0
"""Ingest several dataflows with one mapped task.

The grid shows one task with an entry for each dataflow. A retry or a clear of one entry does not affect the others.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

DATAFLOWS = [
    {"flow_id": "3abea21c-7e36-4be1-bec1-d3bad0e3e0de", "delta_column": "updated_at"},
    {"flow_id": "c9cef9cb-c934-4467-8ef9-cbc934546741", "delta_column": None},
]

with DAG(
    dag_id="flowservice_mapped",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2},
    doc_md=__doc__,
    tags=["flowservice"],
):
    OnDemandFlowRunOperator.partial(
        task_id="ingest",
        wait_for_completion=True,
        deferrable=True,
        map_index_template="{{ task.flow_id }}",
        # At most eight tasks at a time. Airflow 3.2 and later also count deferred ones.
        max_active_tis_per_dag=8,
    ).expand_kwargs(DATAFLOWS)
