"""The DAG of the smoke test: it ingests a day, and a sensor waits for the flow run; one worker process is killed."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

# The window that ends on this day is created by a process that is killed before it can store the flow run's id.
KILLED = "2026-02-03"


class KilledStore:
    """A task's store that kills the process when the flow run's id is to be stored."""

    def __init__(self, store: Any) -> None:
        self.get = store.get
        self.delete = store.delete
        self._set = store.set

    def set(self, key: str, value: Any) -> None:
        """Store the value, unless it has the id of a flow run."""
        if value["flow_run_id"] is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        self._set(key, value)


class KilledOnce(OnDemandFlowRunOperator):
    """The operator; its process is killed in the first attempt of one day. Needs task state, so Airflow 3.3."""

    def execute(self, context: Any) -> str:
        """Create a flow run and wait for it."""
        store = context.get("task_state_store")
        first_attempt = context["ti"].try_number == 1
        if store and first_attempt and f"{context['logical_date']:%Y-%m-%d}" == KILLED:
            context["task_state_store"] = KilledStore(store)
        return super().execute(context)


with DAG(
    dag_id="e2e_smoke",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    end_date=pendulum.datetime(2026, 3, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 4, "retry_delay": timedelta(seconds=1)},
):
    ingest = KilledOnce(
        task_id="ingest",
        flow_id=str(uuid5(NAMESPACE_URL, "e2e_smoke")),
        wait_for_completion=True,
        deferrable=True,
        poll_interval=1,
        uncertain_patience=20,
    )
    FlowRunSensor(task_id="wait", flow_run_id=ingest.output, deferrable=True, poke_interval=1)
