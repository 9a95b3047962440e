"""DAGs of the tests of creating once: tasks whose processes are killed or frozen where their DAG run's conf says."""

from __future__ import annotations

import json
import os
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, Asset

from airflow_flowservice.operators import OnDemandFlowRunOperator

HOURLY = "0 * * * *"
# The DAGs are over, so that unpausing them makes no run beside those that a test asks for.
PAST = {"start_date": pendulum.datetime(2026, 1, 1, tz="UTC"), "end_date": pendulum.datetime(2026, 3, 1, tz="UTC")}


class Accident:
    """What happens to a task's process, at one point of its work and once in its DAG run.

    :param at: `first_look`, `before_intent`, `after_intent`, `after_post`, `after_store` or `while_waiting`.
    :param supervisor: it happens to the process that watches over the task's, too.
    :param freeze: the processes are stopped until somebody continues them, instead of killed.
    """

    def __init__(self, *, at: str | None = None, supervisor: bool = False, freeze: bool = False) -> None:
        self.at = at
        self.signal = signal.SIGSTOP if freeze else signal.SIGKILL
        self.pids = [os.getppid(), os.getpid()] if supervisor else [os.getpid()]

    def __call__(self, point: str) -> None:
        """Happen, if this is the point. The file that it leaves names the processes."""
        marker = Path(os.environ["E2E_ACCIDENTS"]) / f"{self.at}-{self.signal.name}-{len(self.pids)}.json"
        if point != self.at or marker.exists():
            return
        marker.write_text(json.dumps(self.pids))
        for pid in self.pids:
            os.kill(pid, self.signal)


class WatchedStore:
    """A task's store, beside which accidents happen."""

    def __init__(self, store: Any, accident: Accident) -> None:
        self._store = store
        self._accident = accident
        self.delete = store.delete

    def get(self, key: str) -> Any:
        """The first thing that is done about a run is a look at the store."""
        value = self._store.get(key)
        self._accident("first_look")
        return value

    def set(self, key: str, value: Any) -> None:
        """The intent is stored before the POST, and with the run's id after it."""
        before, after = (
            ("before_intent", "after_intent") if value["flow_run_id"] is None else ("after_post", "after_store")
        )
        self._accident(before)
        self._store.set(key, value)
        self._accident(after)


class AccidentProne(OnDemandFlowRunOperator):
    """The operator, with what the DAG run's conf says: `accident`, and whether it is `deferrable`."""

    def execute(self, context: Any) -> str:
        """As the operator does."""
        conf = context["dag_run"].conf or {}
        self.deferrable = conf.get("deferrable", True)
        self.accident = Accident(**conf.get("accident", {}))
        if store := context.get("task_state_store"):
            context["task_state_store"] = WatchedStore(store, self.accident)
        return super().execute(context)

    def _wait(self, *args: Any) -> str:
        timer = threading.Timer(1.5, self.accident, ["while_waiting"])
        timer.start()
        try:
            return super()._wait(*args)
        finally:
            timer.cancel()


def ingesting(dag_id: str, *, schedule: str = HOURLY, retries: int = 8, dates: Any = PAST, **arguments: Any) -> DAG:
    """A DAG that ingests from a dataflow whose id is made from the DAG's."""
    with DAG(
        dag_id=dag_id,
        schedule=schedule,
        max_active_runs=16,
        default_args={"retries": retries, "retry_delay": timedelta(seconds=1)},
        **{"catchup": False, **dates},
    ) as dag:
        AccidentProne(
            task_id="ingest",
            flow_id=str(uuid5(NAMESPACE_URL, dag_id)),
            wait_for_completion=True,
            poll_interval=1,
            uncertain_patience=10,
            **arguments,
        )
    return dag


ingesting("e2e_once_faults", flowservice_conn_id="flowservice_impatient")
ingesting("e2e_once_race", retries=20, outlets=[Asset("e2e-once-race")])
ingesting("e2e_once_workers", schedule="@daily")
ingesting("e2e_once_triggerer")
ingesting("e2e_once_scheduler_alone")
ingesting("e2e_once_scheduler_with_workers")
for state in ("success", "failed", "deferred", "running"):
    ingesting(f"e2e_once_cleared_{state}", schedule="@daily", retries=0 if state == "failed" else 8)
# The scheduler itself makes three runs, which a backfill processes again.
ingesting(
    "e2e_once_reprocessed",
    dates={
        "start_date": pendulum.datetime(2026, 2, 1, 0, tz="UTC"),
        "end_date": pendulum.datetime(2026, 2, 1, 2, tz="UTC"),
        "catchup": True,
    },
)
