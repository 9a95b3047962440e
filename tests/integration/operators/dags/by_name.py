# SPDX-License-Identifier: Apache-2.0
"""A DAG that names its dataflow, for `dag.test()`."""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.freshness import FlowFreshnessSensor
from airflow_flowservice.operators import OnDemandFlowRunOperator

with DAG("by_name", schedule="@daily", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    ingest = OnDemandFlowRunOperator(
        task_id="ingest",
        flow_name="Orders",
        delta_column="updated_at",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=0.1,
    )
    # The window is some days old.
    ingest >> FlowFreshnessSensor(task_id="watch", flow_name="Orders", max_lag=3600, soft_fail=True)
