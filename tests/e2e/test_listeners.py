"""An Airflow of its own, with OpenLineage's listener and statsd: what both are told of a day's flow runs."""

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


class Statsd:
    """Takes what is sent to it, on loopback."""

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
        """An empty packet ends the thread."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def values(self, name: str) -> list[str]:
        """What was told of a metric, as statsd writes it: `1|c` for a count, `3|g` for a gauge."""
        prefix = f"airflow.flowservice.{name}:"
        return [line.removeprefix(prefix) for line in self.lines if line.startswith(prefix)]


@pytest.fixture(scope="module")
def statsd() -> Iterator[Statsd]:
    """A server of metrics."""
    made = Statsd()
    yield made
    made.close()


@pytest.fixture(scope="module")
def told(
    emulator: EmulatedFlowService,
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    statsd: Statsd,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:
    """One DAG run of one day; the events of its tasks."""
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
            # Airflow's own are so many that a busy machine may lose some of ours.
            "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "flowservice",
        },
    ) as airflow:
        airflow.wait_healthy()
        ingest_one_day(airflow)
    return [json.loads(line) for line in file.read_text().splitlines()]


def ingest_one_day(airflow: LocalAirflow) -> None:
    """A backfill of one run, to its end."""
    date = datetime(2026, 2, 3, tzinfo=timezone.utc)
    airflow.wait_for_dag(DAG_ID)
    airflow.unpause(DAG_ID)
    airflow.create_backfill(DAG_ID, from_date=date, to_date=date)
    (run,) = airflow.wait_for_runs(DAG_ID, count=1, run_type="backfill")
    assert "success" == run["state"]


@pytest.mark.parametrize(("task_id", "status"), [("ingest", "success"), ("create", "created"), ("wait", "success")])
def test_lineage(told: list[dict[str, Any]], task_id: str, status: str) -> None:
    """A start and an end; the end with what was read and written, window and status, wherever the task waited."""
    events = [event for event in told if event["job"]["name"] == f"{DAG_ID}.{task_id}"]
    assert {"START", "COMPLETE"} <= {event["eventType"] for event in events}
    # Airflow may start a task twice, without any fault; then it ends twice.
    *_, end = [event for event in events if event["eventType"] == "COMPLETE"]
    facet = end["run"]["facets"]["flowservice_flowRun"]
    assert (*WINDOW, status) == (facet["windowStart"], facet["windowEnd"], facet["status"])
    assert ["made_up"] == [each["name"] for each in end["inputs"]]
    assert [("aep://EMULATOR/prod", "5f0000000000000000000001")] == [
        (each["namespace"], each["name"]) for each in end["outputs"]
    ]


@pytest.mark.usefixtures("told")
def test_metrics(statsd: Statsd) -> None:
    """Workers count the runs, the triggerer the polls and those that wait."""
    assert ["1|c", "1|c"] == statsd.values("runs.created")
    assert [] == statsd.values("runs.uncertain")
    assert {"1|c"} == set(statsd.values("polls"))
    waiters = statsd.values("waiters")
    assert ("1|g", "0|g") == (waiters[0], waiters[-1])
