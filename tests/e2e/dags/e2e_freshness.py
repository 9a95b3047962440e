# SPDX-License-Identifier: Apache-2.0
"""A DAG that is paused after it has ingested, and a DAG that watches its dataflow every minute."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.freshness import FlowFreshnessSensor
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW_ID = str(uuid5(NAMESPACE_URL, "e2e_freshness"))
START = pendulum.datetime(2026, 1, 1, tz="UTC")

with DAG(dag_id="e2e_freshness", schedule=None, start_date=START):
    OnDemandFlowRunOperator(task_id="ingest", flow_id=FLOW_ID, wait_for_completion=True, deferrable=True)

with DAG(dag_id="e2e_freshness_watch", schedule="* * * * *", start_date=START, catchup=False, max_active_runs=1):
    # The name is that of the DAG that ingests.
    FlowFreshnessSensor(task_id="watch", flow_name="e2e_freshness", max_lag=1800)
