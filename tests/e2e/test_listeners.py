# SPDX-License-Identifier: Apache-2.0
"""OpenLineage events and statsd metrics of flow runs, on a separate Airflow with both enabled."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_ID = "e2e_lineage"
WINDOW = ("2026-02-02T00:00:00Z", "2026-02-03T00:00:00Z")


class StatsdServer:
    """UDP server on loopback that collects the metrics sent to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while data := self._socket.recv(65536):
            self.lines += data.decode().splitlines()

    def close(self) -> None:
        """Stop the server."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            # An empty packet ends the thread.
            sender.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def values(self, name: str) -> list[str]:
        """Return the values of a metric in statsd's format: `1|c` for a counter, `3|g` for a gauge."""
        prefix = f"airflow.flowservice.{name}:"
        return [line.removeprefix(prefix) for line in self.lines if line.startswith(prefix)]


@pytest.fixture(scope="module")
def statsd() -> Iterator[StatsdServer]:
    """Start a server that collects metrics."""
    server = StatsdServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def events(
    emulator: EmulatedFlowService,
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    statsd: StatsdServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:
    """Ingest one day in one DAG run; return the OpenLineage events of its tasks."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    for name in (DAG_ID, f"{DAG_ID}_create"):
        tell("flows", id=flow_of(name), name=name, kind="table", delta_column={"name": "updated_at"})
    dags, file = tmp_path_factory.mktemp("listener_dags"), tmp_path_factory.mktemp("lineage") / "events.jsonl"
    shutil.copy(Path(__file__).parent / "dags" / f"{DAG_ID}.py", dags)
    with LocalAirflow(
        home=tmp_path_factory.mktemp("listener_airflow"),
        dags_folder=dags,
        connections={"flowservice_default": emulator.connection},
        config={
            "AIRFLOW__OPENLINEAGE__DISABLED": "False",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(file), "append": True}),
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
            # Airflow emits so many metrics that a busy machine could lose some of the `flowservice` metrics.
            "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "flowservice",
        },
    ) as airflow:
        airflow.wait_healthy(timeout=400)
        ingest_one_day(airflow)
    return [json.loads(line) for line in file.read_text().splitlines()]


def ingest_one_day(airflow: LocalAirflow) -> None:
    """Backfill one DAG run and wait for its end."""
    date = datetime(2026, 2, 3, tzinfo=timezone.utc)
    airflow.wait_for_dag(DAG_ID, timeout=240)
    airflow.unpause(DAG_ID)
    airflow.create_backfill(DAG_ID, from_date=date, to_date=date)
    (run,) = airflow.wait_for_runs(DAG_ID, count=1, run_type="backfill")
    assert "success" == run["state"]


@pytest.mark.parametrize(("task_id", "status"), [("ingest", "success"), ("create", "created"), ("wait", "success")])
def test_lineage(events: list[dict[str, Any]], task_id: str, status: str) -> None:
    """Each task emits a start and an end event. The end event has inputs, outputs, window and status in every mode."""
    of_task = [event for event in events if event["job"]["name"] == f"{DAG_ID}.{task_id}"]
    assert {"START", "COMPLETE"} <= {event["eventType"] for event in of_task}
    # Airflow may start a task twice without any fault. Such a task also ends twice.
    *_, end = [event for event in of_task if event["eventType"] == "COMPLETE"]
    facet = end["run"]["facets"]["flowservice_flowRun"]
    assert (*WINDOW, status) == (facet["windowStart"], facet["windowEnd"], facet["status"])
    assert ["made_up"] == [each["name"] for each in end["inputs"]]
    assert [("aep://EMULATOR/prod", "5f0000000000000000000001")] == [
        (each["namespace"], each["name"]) for each in end["outputs"]
    ]


@pytest.mark.usefixtures("events")
def test_metrics(statsd: StatsdServer) -> None:
    """Workers count created flow runs; the triggerer counts polls and waiting tasks."""
    assert ["1|c", "1|c"] == statsd.values("runs.created")
    assert [] == statsd.values("runs.uncertain")
    assert {"1|c"} == set(statsd.values("polls"))
    waiters = statsd.values("waiters")
    assert ("1|g", "0|g") == (waiters[0], waiters[-1])
