# SPDX-License-Identifier: Apache-2.0
"""Two processes that share one ledger on a real PostgreSQL ingest the same windows at the same time."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from deployment import Deployment

from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.windows.window import IngestionWindow

FLOW = "c9cef9cb-c934-4467-8ef9-cbc934546741"
HOUR = timedelta(hours=1)
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
WINDOWS = [IngestionWindow(BEGIN + number * HOUR, BEGIN + (number + 1) * HOUR) for number in range(100)]


@pytest.mark.slow
@pytest.mark.parametrize("dag_ids", [("first", "second"), ("same", "same")], ids=["two-dags", "same-dag"])
def test_two_deployments_ingest_each_window_once(
    empty_postgres: str, migrate: Callable[[str], SqlLedger], dag_ids: tuple[str, str]
) -> None:
    """100 windows make 100 flow runs, and each task of both deployments uses the flow run of its window."""
    ledger = migrate(empty_postgres)
    # Spawned, because this process has the threads of the emulator.
    context = multiprocessing.get_context("spawn")
    with (
        running_emulator(Settings(queue_s=0.2, run_s=0.3)) as emulator,
        context.Manager() as manager,
        ProcessPoolExecutor(len(dag_ids), mp_context=context) as processes,
    ):
        given = emulator.connection
        service = {"base_url": emulator.url, "client_id": given["login"], "client_secret": given["password"]}
        deployments = [
            Deployment(
                dag_id=dag_id,
                database=empty_postgres,
                service={**service, **given["extra"]},
                flow_id=FLOW,
                windows=WINDOWS,
            )
            for dag_id in dag_ids
        ]
        start = manager.Barrier(len(deployments))
        futures = [processes.submit(each.backfill, start) for each in deployments]
        used = [future.result(timeout=240) for future in futures]
        counted = emulator.ledger(FLOW, WINDOWS[0].start, WINDOWS[-1].end)

    assert (0, 0, 100) == (counted["missing"], counted["duplicated"], len(counted["runs"]))
    posts = sum(count for kind, count in counted["requests"].items() if kind.startswith("POST /runs"))
    assert 100 == posts
    stored = {entry.window: entry for entry in ledger.entries()}
    assert {EntryState.INGESTED} == {entry.state for entry in stored.values()}
    for ended in used:
        assert {entry.window: entry.flow_run_id for entry in stored.values()} == {
            window: flow_run_id for window, (_, flow_run_id) in ended.items()
        }
    # Both deployments take part, so the windows were really claimed by both.
    created = [Counter(how for how, _ in ended.values())["created"] for ended in used]
    assert 100 == sum(created)
    assert min(created) > 0
