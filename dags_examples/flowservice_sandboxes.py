# SPDX-License-Identifier: Apache-2.0
"""Ingest the same kind of dataflow in several sandboxes, with one task group for each sandbox.

Each sandbox has a connection. A dataflow has a different id in each sandbox.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, TaskGroup

from airflow_flowservice.operators import OnDemandFlowRunOperator

# Dataflows by sandbox; the connection of the sandbox `dev` is `flowservice_dev`.
SANDBOXES = {
    "dev": {"clicks": "c9cef9cb-c934-4467-8ef9-cbc934546741"},
    "prod": {"clicks": "c9cef9cb-c934-4467-8ef9-cbc934546741"},
}

with DAG(
    dag_id="flowservice_sandboxes",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2},
    doc_md=__doc__,
    tags=["flowservice"],
):
    for sandbox, dataflows in SANDBOXES.items():
        with TaskGroup(sandbox):
            for name, flow_id in dataflows.items():
                OnDemandFlowRunOperator(
                    task_id=name,
                    flow_id=flow_id,
                    flowservice_conn_id=f"flowservice_{sandbox}",
                    wait_for_completion=True,
                    deferrable=True,
                )
