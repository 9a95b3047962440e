# SPDX-License-Identifier: Apache-2.0
"""Flow runs of a dataflow that Airflow does not run start DAG runs, once each, also if the triggerer is killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import pytest
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    Tell = Callable[..., Any]

DAG_ID = "e2e_watcher"
DAG_FILE = Path(__file__).parent / "dags" / "e2e_watcher.py"
FOLLOWED = str(uuid5(NAMESPACE_URL, "e2e_followed"))
FIRST = datetime(2026, 2, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def airflow(emulator: EmulatedFlowService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Start an Airflow with one DAG. The next triggerer takes the triggers of a killed one after some seconds."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    folder = tmp_path_factory.mktemp("dags")
    (folder / DAG_FILE.name).write_text(DAG_FILE.read_text())
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow"),
        dags_folder=folder,
        connections={"flowservice_default": emulator.connection},
        config={
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
            # The DAG is parsed again soon after it is unpaused, since Airflow adds the watcher only then.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
        },
    ) as running:
        running.wait_healthy(timeout=400)
        yield running


def test_scheduled_runs_start_dag_runs_over_a_killed_triggerer(airflow: LocalAirflow, tell: Tell) -> None:
    """Flow runs from before, during and after the outage become one event each, and the DAG runs have their windows."""
    for flow_id, frequency in ((FOLLOWED, "hour"), (str(uuid5(NAMESPACE_URL, DAG_ID)), "once")):
        tell("flows", id=flow_id, name="e2e_watcher", kind="file", frequency=frequency)
    airflow.wait_for_dag(DAG_ID, timeout=240)
    airflow.unpause(DAG_ID)
    key = wait_until(lambda: progress(airflow), what="the stored progress of the first poll")["key"]
    assert [] == events(airflow)

    made = [add_run(tell, 0)]
    wait_until(lambda: progress_has(airflow, made), what="the stored progress of the first event")
    airflow.kill("triggerer-1")
    made += [add_run(tell, 1), add_run(tell, 2)]
    airflow.start("triggerer-1")
    wait_until(lambda: progress_has(airflow, made), what="the stored progress after the restart")
    made.append(add_run(tell, 3))
    wait_until(lambda: progress_has(airflow, made), what="the stored progress of the last event")

    found = events(airflow)
    assert made == [each["payload"]["flow_run_id"] for each in found]
    assert [[f"2026-02-01T{hour:02}:00:00Z", "success"] for hour in range(4)] == [
        [each["payload"]["window_start"], each["payload"]["status"]] for each in found
    ]
    assert key == progress(airflow)["key"]
    wait_until(lambda: ingested_hours(airflow) == 4, what="the windows of all DAG runs")


def add_run(tell: Tell, hour: int) -> str:
    start = FIRST + hour * HOUR
    fields = {"window_start": start.isoformat(), "window_end": (start + HOUR).isoformat()}
    return str(tell("runs", flow_id=FOLLOWED, **fields)["id"])


def progress(airflow: LocalAirflow) -> dict[str, Any]:
    """Return the Variable of the trigger; empty if there is none."""
    found = airflow.api("GET", "/variables")["variables"]
    return next((each for each in found if each["key"].startswith("flowservice.watcher.")), {})


def progress_has(airflow: LocalAirflow, flow_run_ids: list[str]) -> bool:
    """Return whether the events of these flow runs are in the stored progress."""
    return set(flow_run_ids) <= json.loads(progress(airflow)["value"])["settled"].keys()


def events(airflow: LocalAirflow) -> list[dict[str, Any]]:
    """Return the `extra` of the events of the asset, oldest first."""
    found = airflow.api("GET", "/assets/events", params={"order_by": "timestamp"})["asset_events"]
    return [each["extra"] for each in found if each["extra"].get("from_trigger")]


def ingested_hours(airflow: LocalAirflow) -> float:
    """Return the sum of the hours of the windows of successful tasks."""
    hours = 0.0
    for run in airflow.api("GET", f"/dags/{DAG_ID}/dagRuns")["dag_runs"]:
        if run["state"] == "success":
            flow_run = airflow.xcom(DAG_ID, run["dag_run_id"], "ingest", "flow_run")
            start, end = (datetime.fromisoformat(flow_run[name]) for name in ("window_start", "window_end"))
            hours += (end - start) / HOUR
    return hours
