# SPDX-License-Identifier: Apache-2.0
"""The DAG of the smoke test: it ingests a day, and a sensor waits for the flow run; one worker process is killed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice._airflow import versions
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_flowservice.ledger.entry import LedgerEntry
    from airflow_flowservice.ledger.store import Ledger
    from airflow_flowservice.runs.intent import Order
    from airflow_flowservice.runs.ledger_intents import LedgerPolicy

# The window that ends on this day is created by a process that is killed before it can store the flow run's id.
KILLED = "2026-02-03"
# A kill creates this file. On a busy machine, Airflow can lose an attempt before its task begins.
MARKER = Path(os.environ["AIRFLOW_HOME"], "e2e_smoke_killed")


class KilledLedger:
    """A ledger that kills the process when the flow run's id is to be stored for the first time."""

    def __init__(self, ledger: Ledger) -> None:
        self.get = ledger.get
        self.overlapping = ledger.overlapping
        self.remove = ledger.remove
        self.entries = ledger.entries
        self._put = ledger.put

    def put(self, entry: LedgerEntry, /) -> LedgerEntry:
        """Store the entry, unless it is the first one with the id of a flow run."""
        if entry.flow_run_id is not None and not MARKER.exists():
            MARKER.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._put(entry)


class KilledOnce(OnDemandFlowRunOperator):
    """The operator; its process is killed once in an attempt of one day. Airflow 3.0 would not retry it."""

    def _ledger_policy(self, context: Mapping[str, Any], order: Order) -> LedgerPolicy | None:
        policy = super()._ledger_policy(context, order)
        is_retried = versions.version() >= (3, 1)
        if policy is None or not is_retried or f"{context['logical_date']:%Y-%m-%d}" != KILLED:
            return policy
        return replace(policy, ledger=KilledLedger(policy.ledger))


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
