# SPDX-License-Identifier: Apache-2.0
"""DAGs whose pools limit flow runs in flight: one pool counts deferred tasks, the other one does not."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

for dag_id in ("e2e_pool_of_all", "e2e_pool_of_running"):
    with DAG(
        dag_id=dag_id,
        schedule=None,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        default_args={"retries": 9, "retry_delay": timedelta(seconds=1)},
    ) as dag:
        for name in ("orders", "clicks"):
            OnDemandFlowRunOperator(
                task_id=name,
                flow_id=str(uuid5(NAMESPACE_URL, f"{dag_id}_{name}")),
                flowservice_conn_id="e2e_ceilings",
                pool=dag_id,
                # Without the limit below, the pool would have only tasks of this dataflow.
                priority_weight=10 if name == "orders" else 1,
                max_active_tis_per_dag=2 if dag_id == "e2e_pool_of_all" else None,
                wait_for_completion=True,
                deferrable=True,
                poll_interval=1,
                uncertain_patience=20,
            )
    globals()[dag_id] = dag
