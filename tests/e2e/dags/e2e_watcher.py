# SPDX-License-Identifier: Apache-2.0
"""A DAG that follows a dataflow that Airflow does not run, and ingests another dataflow with the same windows."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, AssetWatcher

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.watchers import FlowRunsTrigger

FOLLOWED = str(uuid5(NAMESPACE_URL, "e2e_followed"))
WATCHER = AssetWatcher(name="flow_runs", trigger=FlowRunsTrigger(flow_id=FOLLOWED, poll_interval=1))

with DAG(
    dag_id="e2e_watcher",
    schedule=[flow_asset(FOLLOWED, name="e2e-followed", watchers=[WATCHER])],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    OnDemandFlowRunOperator(
        task_id="ingest",
        flow_id=str(uuid5(NAMESPACE_URL, "e2e_watcher")),
        wait_for_completion=True,
        deferrable=False,
        poll_interval=1,
    )
