# SPDX-License-Identifier: Apache-2.0
"""DAGs of `test_once.py`. The conf of a DAG run selects the step at which the task's process is killed or frozen."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG, Asset

from airflow_flowservice.operators import OnDemandFlowRunOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_flowservice.ledger.entry import DataflowKey, LedgerEntry
    from airflow_flowservice.ledger.store import Ledger
    from airflow_flowservice.runs.ledger_intents import LedgerPolicy
    from airflow_flowservice.windows.window import IngestionWindow

HOURLY = "0 * * * *"
# The end date is in the past, so the scheduler creates no DAG runs except those that a test requests.
PAST = {"start_date": pendulum.datetime(2026, 1, 1, tz="UTC"), "end_date": pendulum.datetime(2026, 3, 1, tz="UTC")}


class Interruption:
    """Kill or freeze a task's process at one step of its work, at most once.

    :param at: the step: `first_read`, `before_intent`, `after_intent`, `after_post`, `after_store` or `while_waiting`.
    :param supervisor: also kill or freeze the task's supervisor process.
    :param freeze: send SIGSTOP instead of SIGKILL; the test continues the processes later.
    """

    def __init__(self, *, at: str | None = None, supervisor: bool = False, freeze: bool = False) -> None:
        self.at = at
        self.signal = signal.SIGSTOP if freeze else signal.SIGKILL
        self.pids = [os.getppid(), os.getpid()] if supervisor else [os.getpid()]

    def __call__(self, step: str) -> None:
        """Send the signal if this is the selected step. Write the pids of the processes to a marker file."""
        marker = Path(os.environ["E2E_INTERRUPTIONS"]) / f"{self.at}-{self.signal.name}-{len(self.pids)}.json"
        if step != self.at or marker.exists():
            return
        marker.write_text(json.dumps(self.pids))
        for pid in self.pids:
            os.kill(pid, self.signal)


class InterruptingLedger:
    """Wrap the ledger, which keeps the intent, and interrupt the task before or after its calls."""

    def __init__(self, ledger: Ledger, interruption: Interruption) -> None:
        self._ledger = ledger
        self._interrupt = interruption
        self.get = ledger.get
        self.remove = ledger.remove
        self.entries = ledger.entries

    def overlapping(self, dataflows: Sequence[DataflowKey], window: IngestionWindow, /) -> list[LedgerEntry]:
        """Return the entries of the window. The operator reads them before it does anything else."""
        found = self._ledger.overlapping(dataflows, window)
        self._interrupt("first_read")
        return found

    def put(self, entry: LedgerEntry, /) -> LedgerEntry:
        """Store an entry. The operator stores the intent before the POST, and adds the run id after it."""
        before, after = (
            ("before_intent", "after_intent") if entry.flow_run_id is None else ("after_post", "after_store")
        )
        self._interrupt(before)
        stored = self._ledger.put(entry)
        self._interrupt(after)
        return stored


class InterruptedOperator(OnDemandFlowRunOperator):
    """OnDemandFlowRunOperator that reads `interruption` and `deferrable` from the conf of its DAG run."""

    def execute(self, context: Any) -> str:
        """Configure the interruption, then run the operator."""
        conf = context["dag_run"].conf or {}
        self.deferrable = conf.get("deferrable", True)
        self.interruption = Interruption(**conf.get("interruption", {}))
        return super().execute(context)

    def _ledger_policy(self, *args: Any) -> LedgerPolicy:
        policy = super()._ledger_policy(*args)
        if policy is None:
            raise TypeError("the ledger is disabled")
        return replace(policy, ledger=InterruptingLedger(policy.ledger, self.interruption))

    def _wait(self, *args: Any) -> str:
        timer = threading.Timer(1.5, self.interruption, ["while_waiting"])
        timer.start()
        try:
            return super()._wait(*args)
        finally:
            timer.cancel()


def make_dag(dag_id: str, *, schedule: str = HOURLY, retries: int = 8, dates: Any = PAST, **arguments: Any) -> DAG:
    """Create a DAG with one task. The id of its dataflow is derived from the DAG id."""
    with DAG(
        dag_id=dag_id,
        schedule=schedule,
        max_active_runs=16,
        default_args={"retries": retries, "retry_delay": timedelta(seconds=1)},
        **{"catchup": False, **dates},
    ) as dag:
        InterruptedOperator(
            task_id="ingest",
            flow_id=str(uuid5(NAMESPACE_URL, dag_id)),
            wait_for_completion=True,
            poll_interval=1,
            uncertain_patience=10,
            **arguments,
        )
    return dag


make_dag("e2e_once_faults", flowservice_conn_id="flowservice_impatient")
make_dag("e2e_once_race", retries=20, outlets=[Asset("e2e-once-race")])
make_dag("e2e_once_workers", schedule="@daily")
make_dag("e2e_once_triggerer")
make_dag("e2e_once_scheduler_alone")
make_dag("e2e_once_scheduler_with_workers")
for state in ("success", "failed", "deferred", "running"):
    make_dag(f"e2e_once_cleared_{state}", schedule="@daily", retries=0 if state == "failed" else 8)
# The scheduler creates three DAG runs, and a backfill reprocesses them.
make_dag(
    "e2e_once_reprocessed",
    dates={
        "start_date": pendulum.datetime(2026, 2, 1, 0, tz="UTC"),
        "end_date": pendulum.datetime(2026, 2, 1, 2, tz="UTC"),
        "catchup": True,
    },
)
