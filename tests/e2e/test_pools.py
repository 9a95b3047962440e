# SPDX-License-Identifier: Apache-2.0
"""The most flow runs in flight are kept on a real Airflow, also while tasks are deferred."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import pytest
import requests

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

FIRST = datetime(2026, 2, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
NAMES = ("orders", "clicks")
# Before Airflow 3.2, max_active_tis_per_dag does not count deferred tasks.
OF_DATAFLOW, OF_SANDBOX = (2 if versions.version() >= (3, 2) else 3), 3


@pytest.fixture(scope="module")
def service(airflow: LocalAirflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedFlowService]:
    """Start a second emulator, which refuses more flow runs in flight, and create its connection and the pools."""
    from airflow_flowservice.demo.emulator import start_emulator
    from airflow_flowservice.demo.processes import Supervisor

    ceilings = {"--max-flow-runs": str(OF_DATAFLOW), "--max-sandbox-runs": str(OF_SANDBOX)}
    folder = tmp_path_factory.mktemp("ceilings")
    with Supervisor(log_folder=folder) as supervisor:
        started = start_emulator(
            supervisor, cwd=folder, options={"--queue-seconds": "1", "--run-seconds": "5", **ceilings}
        )
        fields = {**started.connection, "extra": json.dumps(started.connection["extra"])}
        airflow.api("POST", "/connections", json={"connection_id": "e2e_ceilings", **fields})
        for pool, counts_deferred in (("e2e_pool_of_all", True), ("e2e_pool_of_running", False)):
            body = {"name": pool, "slots": OF_SANDBOX, "include_deferred": counts_deferred}
            airflow.api("POST", "/pools", json=body)
        yield started


def test_pool_that_counts_deferred_tasks_keeps_the_ceiling(airflow: LocalAirflow, service: EmulatedFlowService) -> None:
    """The pool limits the flow runs of the sandbox, and `max_active_tis_per_dag` those of a dataflow.

    Flow Service refuses nothing, although the pool is used completely.
    """
    ledger = ingest_days(airflow, service, "e2e_pool_of_all", days=4)
    assert {"flow": 0, "sandbox": 0} == ledger["refused"]
    assert OF_SANDBOX == ledger["most_active"]


def test_pool_without_deferred_tasks_exceeds_the_ceiling(airflow: LocalAirflow, service: EmulatedFlowService) -> None:
    """Flow Service refuses the flow runs beyond the ceiling, and each window is nevertheless ingested once."""
    ledger = ingest_days(airflow, service, "e2e_pool_of_running", days=4)
    assert sum(ledger["refused"].values()) > 0
    assert OF_SANDBOX == ledger["most_active"]


def flow_of(dag_id: str, name: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"{dag_id}_{name}"))


def ingest_days(airflow: LocalAirflow, service: EmulatedFlowService, dag_id: str, *, days: int) -> dict[str, Any]:
    """Ingest some days of both dataflows at once, each exactly once, and return the emulator's ledger."""
    tell(service, "POST", "reset")
    for name in NAMES:
        tell(service, "POST", "flows", id=flow_of(dag_id, name), kind="file")
    airflow.wait_for_dag(dag_id)
    for day in range(days):
        start = FIRST + day * DAY
        airflow.trigger(dag_id, conf={"window_start": start.isoformat(), "window_end": (start + DAY).isoformat()})
    airflow.unpause(dag_id)
    runs = airflow.wait_for_runs(dag_id, count=days, timeout=300)
    assert {"success"} == {run["state"] for run in runs}
    for name in NAMES:
        found = service.ledger(flow_id=flow_of(dag_id, name), start=FIRST, end=FIRST + days * DAY)
        assert (0, 0) == (found["missing"], found["duplicated"])
    return dict(tell(service, "GET", "ledger"))


def tell(service: EmulatedFlowService, method: str, path: str, **fields: Any) -> Any:
    answer = requests.request(method, f"{service.url}/_emulator/{path}", json=fields, timeout=30)
    answer.raise_for_status()
    return answer.json()
