# SPDX-License-Identifier: Apache-2.0
"""Process that stands for an Airflow deployment: it creates flow runs as the operator does, many at the same time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from multiprocessing.synchronize import Barrier
from typing import Any

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.exceptions import FlowServiceError
from airflow_flowservice.ledger.entry import DataflowKey
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.runs.create_once import CreateOnce
from airflow_flowservice.runs.intent import Attempt, Order
from airflow_flowservice.runs.ledger_intents import LedgerPolicy, deliver
from airflow_flowservice.windows.window import IngestionWindow

THREADS = 8
RETRIES = 20


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Airflow deployment that backfills windows of a dataflow.

    :param dag_id: id of its DAG; a different one in each deployment, or the same.
    :param database: URL of the ledger.
    :param service: arguments of `FlowServiceClient`.
    :param patience: seconds, as `uncertain_patience` of the operator.
    """

    dag_id: str
    database: str
    service: dict[str, Any]
    flow_id: str
    windows: Sequence[IngestionWindow]
    patience: float = 20.0

    def backfill(self, start: Barrier) -> dict[IngestionWindow, tuple[str, str]]:
        """Run one task for each window after all processes are ready; return how and which flow run it used."""
        with FlowServiceClient(**self.service) as client, ThreadPoolExecutor(THREADS) as tasks:
            ledger = SqlLedger(self.database)
            start.wait(timeout=60)
            ended = tasks.map(lambda window: self._task(client, ledger, window), self.windows)
            return dict(zip(self.windows, ended, strict=True))

    def _task(self, client: FlowServiceClient, ledger: SqlLedger, window: IngestionWindow) -> tuple[str, str]:
        """Repeat the attempts of a task as Airflow does, wait for the flow run, and record the success."""
        attempt = Attempt(max_tries=RETRIES, retries=RETRIES, began=datetime.now(timezone.utc))
        policy = LedgerPolicy(
            ledger=ledger,
            dataflow=DataflowKey(client.org_id, client.sandbox, self.flow_id),
            owner=f"{self.dag_id}/backfill__{window.end.isoformat()}/ingest/-1",
        )
        while True:
            create = CreateOnce(
                service=client, store=None, attempt=attempt, ledger=policy, poll=0.2, patience=self.patience
            )
            try:
                outcome = create(Order(flow_id=self.flow_id, window=window))
                break
            except FlowServiceError as error:
                if not error.retryable or attempt.try_number > RETRIES:
                    raise
                attempt = replace(attempt, try_number=attempt.try_number + 1)
                time.sleep(random.uniform(0.1, 0.5))
        while not (run := client.get_run(outcome.flow_run_id)).status.ended:
            time.sleep(0.2)
        deliver(ledger, dataflow=policy.dataflow, window=window, flow_run_id=run.id, owner=policy.owner)
        return outcome.how, outcome.flow_run_id
