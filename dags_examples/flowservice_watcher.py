# SPDX-License-Identifier: Apache-2.0
"""Ingest returns after each flow run of orders, a dataflow that Adobe's schedule runs.

The triggerer polls the flow runs of orders. Each successful one becomes an event of the asset, with its window.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, AssetWatcher

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.watchers import FlowRunsTrigger

ORDERS = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"

scheduled_orders = flow_asset(
    ORDERS, watchers=[AssetWatcher(name="flow_runs", trigger=FlowRunsTrigger(flow_id=ORDERS, poll_interval=300))]
)

with DAG(
    dag_id="flowservice_watcher",
    schedule=[scheduled_orders],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 2},
    doc_md=__doc__,
    tags=["flowservice"],
):
    OnDemandFlowRunOperator(
        task_id="ingest",
        flow_id="c9cef9cb-c934-4467-8ef9-cbc934546741",
        wait_for_completion=True,
        deferrable=True,
    )
