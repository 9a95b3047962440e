"""DAGs of the ingestion tests; each has a dataflow of its own, whose id is made from the DAG's."""

from __future__ import annotations

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, Asset, task

from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

START = pendulum.datetime(2026, 1, 1, tz="UTC")


def flow_of(dag_id: str) -> str:
    """The dataflow of a DAG."""
    return str(uuid5(NAMESPACE_URL, dag_id))


def ingest(dag_id: str, **kwargs: object) -> OnDemandFlowRunOperator:
    """The operator with the DAG's dataflow, waiting unless told otherwise."""
    settings = {"wait_for_completion": True, "deferrable": True, "poll_interval": 2, "uncertain_patience": 20, **kwargs}
    return OnDemandFlowRunOperator(task_id="ingest", flow_id=flow_of(dag_id), **settings)


def dag(dag_id: str, **kwargs: object) -> DAG:
    """A DAG that is backfilled."""
    retries = {"retries": 2, "retry_delay": timedelta(seconds=1)}
    settings = {"schedule": "@daily", "start_date": START, "catchup": False, "default_args": retries, **kwargs}
    return DAG(dag_id=dag_id, **settings)  # noqa: AIR002


with dag("e2e_worker"):
    ingest("e2e_worker", deferrable=False)

with dag("e2e_outlet"):
    # The executor race takes a try from about one in thirty tasks that resume on a worker, more on a busy machine.
    ingest("e2e_outlet", outlets=[Asset("e2e-outlet")], retries=6)

with dag("e2e_failing"):
    ingest("e2e_failing", deferrable=False)  # resumed on a worker, the executor race could replace the failed try

with dag("e2e_marked", end_date=pendulum.datetime(2026, 3, 1, tz="UTC"), default_args={"retries": 0}):
    ingest("e2e_marked", deferrable=False, uncertain_patience=2)

with dag("e2e_triggerer"):
    ingest("e2e_triggerer")

with dag("e2e_refused"):
    ingest("e2e_refused")

with dag("e2e_sensors", schedule=timedelta(hours=12)):
    create = OnDemandFlowRunOperator(task_id="create", flow_id=flow_of("e2e_sensors"))
    FlowRunSensor(task_id="poke", flow_run_id=create.output, mode="poke", poke_interval=1)
    # Airflow's scheduler fails a task that is due again before its executor said that the last look has ended.
    FlowRunSensor(task_id="reschedule", flow_run_id=create.output, mode="reschedule", poke_interval=6)
    FlowRunSensor(task_id="deferrable", flow_run_id=create.output, deferrable=True, poke_interval=1)

with dag("e2e_retrigger", schedule=None):
    first = ingest(
        "e2e_retrigger",
        window_start="{{ dag_run.conf['start'] }}",
        window_end="{{ dag_run.conf['end'] }}",
        wait_for_completion=False,
    )
    wait = FlowRunSensor(task_id="wait", flow_run_id=first.output, poke_interval=1, deferrable=True)

    @task(trigger_rule="one_failed")
    def failed_run(flow_run_id: str) -> str:
        """Pass the id on, after the run has failed."""
        return flow_run_id

    known = failed_run(first.output)
    wait >> known
    RetriggerFlowRunOperator(
        task_id="again", flow_run_id=known, wait_for_completion=True, deferrable=True, poll_interval=2
    )
