# SPDX-License-Identifier: Apache-2.0
"""DAGs that ingest, and then become late, and DAGs that watch their dataflows."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.freshness import FlowFreshnessSensor
from airflow_flowservice.operators import OnDemandFlowRunOperator

START = pendulum.datetime(2026, 1, 1, tz="UTC")

for dag_id in ("e2e_freshness", "e2e_freshness_paused", "e2e_freshness_killed"):
    with DAG(dag_id=dag_id, schedule=None, start_date=START) as dag:
        OnDemandFlowRunOperator(
            task_id="ingest",
            flow_id=str(uuid5(NAMESPACE_URL, dag_id)),
            wait_for_completion=True,
            deferrable=True,
        )
    globals()[dag_id] = dag

with DAG(dag_id="e2e_freshness_watch", schedule="* * * * *", start_date=START, catchup=False, max_active_runs=1):
    # The name is that of the DAG that ingests.
    FlowFreshnessSensor(task_id="watch", flow_name="e2e_freshness", max_lag=1800)

with DAG(dag_id="e2e_freshness_killed_watch", schedule=None, start_date=START):
    FlowFreshnessSensor(task_id="watch", flow_name="e2e_freshness_killed", max_lag=1800)
