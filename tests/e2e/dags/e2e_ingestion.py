# SPDX-License-Identifier: Apache-2.0
"""DAGs of the ingestion tests. Each DAG has a separate dataflow, and its id is derived from the DAG id."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, Asset, task

from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

START = pendulum.datetime(2026, 1, 1, tz="UTC")


def flow_of(dag_id: str) -> str:
    """Return the id of a DAG's dataflow."""
    return str(uuid5(NAMESPACE_URL, dag_id))


def ingest(dag_id: str, **kwargs: object) -> OnDemandFlowRunOperator:
    """Create an operator for the DAG's dataflow. It waits for the flow run unless an argument disables that."""
    settings = {"wait_for_completion": True, "deferrable": True, "poll_interval": 2, "uncertain_patience": 20, **kwargs}
    return OnDemandFlowRunOperator(task_id="ingest", flow_id=flow_of(dag_id), **settings)


def make_dag(dag_id: str, **kwargs: object) -> DAG:
    """Create a DAG for backfills."""
    retries = {"retries": 2, "retry_delay": timedelta(seconds=1)}
    settings = {"schedule": "@daily", "start_date": START, "catchup": False, "default_args": retries, **kwargs}
    return DAG(dag_id=dag_id, **settings)  # noqa: AIR002


with make_dag("e2e_worker"):
    ingest("e2e_worker", deferrable=False)

with make_dag("e2e_outlet"):
    # A race in Airflow's executor costs about one in thirty tasks that resume on a worker a try. On a busy machine it
    # affects more tasks.
    ingest("e2e_outlet", outlets=[Asset("e2e-outlet")], retries=6)

with make_dag("e2e_failing"):
    # If the task resumed on a worker, a race in Airflow's executor could replace the failed try.
    ingest("e2e_failing", deferrable=False)

with make_dag("e2e_marked", end_date=pendulum.datetime(2026, 3, 1, tz="UTC"), default_args={"retries": 0}):
    ingest("e2e_marked", deferrable=False, uncertain_patience=2)

with make_dag("e2e_triggerer"):
    ingest("e2e_triggerer")

with make_dag("e2e_refused"):
    ingest("e2e_refused")

with make_dag("e2e_sensors", schedule=timedelta(hours=12)):
    create = OnDemandFlowRunOperator(task_id="create", flow_id=flow_of("e2e_sensors"))
    FlowRunSensor(task_id="poke", flow_run_id=create.output, mode="poke", poke_interval=1)
    # If a task is due again before the executor reports the end of its previous poke, Airflow's scheduler fails it.
    FlowRunSensor(task_id="reschedule", flow_run_id=create.output, mode="reschedule", poke_interval=6)
    FlowRunSensor(task_id="deferrable", flow_run_id=create.output, deferrable=True, poke_interval=1)

with make_dag("e2e_retrigger", schedule=None):
    first = ingest(
        "e2e_retrigger",
        window_start="{{ dag_run.conf['start'] }}",
        window_end="{{ dag_run.conf['end'] }}",
        wait_for_completion=False,
    )
    wait = FlowRunSensor(task_id="wait", flow_run_id=first.output, poke_interval=1, deferrable=True)

    @task(trigger_rule="one_failed")
    def failed_run(flow_run_id: str) -> str:
        """Return the id of the failed flow run."""
        return flow_run_id

    known = failed_run(first.output)
    wait >> known
    RetriggerFlowRunOperator(
        task_id="again", flow_run_id=known, wait_for_completion=True, deferrable=True, poll_interval=2
    )
