# SPDX-License-Identifier: Apache-2.0
"""The main job on a real Airflow, with one backfill: the end-to-end test that a plain `pytest` runs.

The backfill has four days. The response to one POST is lost, and one worker process is killed after its POST.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_FILE = Path(__file__).parent / "dags" / "e2e_smoke.py"
DAG_ID = "e2e_smoke"
COUNT = 4
BEGIN, END = datetime(2026, 2, 1, tzinfo=timezone.utc), datetime(2026, 2, 5, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def airflow(emulator: EmulatedFlowService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Run a separate Airflow with one DAG file: it starts sooner, and it stops before other tests run."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    dags = tmp_path_factory.mktemp("dags-smoke")
    shutil.copy(DAG_FILE, dags)
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow-smoke"),
        dags_folder=dags,
        connections={"flowservice_default": emulator.connection},
    ) as running:
        running.wait_healthy(timeout=400)
        yield running


@pytest.fixture(scope="module")
def runs(airflow: LocalAirflow, tell: Callable[..., Any], flow_of: Callable[[str], str]) -> list[dict[str, Any]]:
    """Run the backfill, and lose the response to one POST; return its DAG runs."""
    tell("flows", id=flow_of(DAG_ID), name=DAG_ID, kind="file")
    tell("faults", action="record_and_close", nth=1)
    airflow.wait_for_dag(DAG_ID, timeout=240)
    airflow.unpause(DAG_ID)
    airflow.create_backfill(DAG_ID, from_date=datetime(2026, 2, 2, tzinfo=timezone.utc), to_date=END)
    return airflow.wait_for_runs(DAG_ID, count=COUNT, run_type="backfill", timeout=240)


def test_each_window_is_ingested_once(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    runs: list[dict[str, Any]],
    flow_of: Callable[[str], str],
) -> None:
    """No window is missing or duplicated, and each task returns the only flow run of its window."""
    assert ["success"] * COUNT == [run["state"] for run in runs]
    ledger = emulator.ledger(flow_id=flow_of(DAG_ID), start=BEGIN, end=END)
    assert (0, 0) == (ledger["missing"], ledger["duplicated"])
    returned = [airflow.xcom(DAG_ID, run["dag_run_id"], "ingest", "flow_run") for run in runs]
    assert {run["window_end"]: run["id"] for run in ledger["runs"]} == {
        run["window_end"]: run["id"] for run in returned
    }
    assert COUNT == len(ledger["runs"])
    assert {("success", 1440)} == {(run["status"], run["output_records"]) for run in returned}


@pytest.mark.usefixtures("runs")
def test_a_response_was_lost(tell: Callable[..., Any]) -> None:
    """The fault struck one POST."""
    faults = tell("faults", method="GET")["faults"]
    tell("faults", method="DELETE")
    assert [1] == [fault["struck"] for fault in faults]


@pytest.mark.needs_airflow(3, 1, "Airflow 3.0 does not retry a task after its process is killed")
def test_a_worker_process_was_killed(airflow: LocalAirflow, runs: list[dict[str, Any]]) -> None:
    """Airflow logged the signal, and a second attempt ended the task."""
    (run,) = [run for run in runs if run["logical_date"].startswith("2026-02-03")]
    instances = {each["task_id"]: each for each in airflow.task_instances(DAG_ID, run["dag_run_id"])}
    assert 1 < instances["ingest"]["try_number"]
    # From files, since the API returns 404 for a try lost in a race of Airflow's executor.
    logs = (airflow.home / "logs" / "tasks").glob(f"dag_id={DAG_ID}/run_id={run['dag_run_id']}/task_id=ingest/*.log*")
    assert any("SIGKILL" in log.read_text() for log in logs)


def test_the_sensor_waits_for_the_flow_run(airflow: LocalAirflow, runs: list[dict[str, Any]]) -> None:
    """The sensor returns the operator's flow run."""
    for run in runs:
        ingested, waited = (
            airflow.xcom(DAG_ID, run["dag_run_id"], name, "return_value") for name in ("ingest", "wait")
        )
        assert ingested == waited
        assert waited is not None


@pytest.mark.needs_airflow(3, 1, "there are no pages")
@pytest.mark.usefixtures("runs")
def test_the_page_shows_the_windows(airflow: LocalAirflow, flow_of: Callable[[str], str]) -> None:
    """The page and its data are served; each window is ingested."""
    headers = {"Authorization": f"Bearer {airflow.rest.token}"}
    page = requests.get(f"{airflow.address}/flowservice/", headers=headers, timeout=60)
    assert (200, True) == (page.status_code, "<html" in page.text)
    span = {"from": "2026-02-01T00:00:00Z", "to": "2026-02-05T00:00:00Z"}
    asked = {"flow_id": flow_of(DAG_ID), "dag_id": DAG_ID, **span}
    answer = requests.get(f"{airflow.address}/flowservice/data/coverage", params=asked, headers=headers, timeout=60)
    assert 200 == answer.status_code
    data = answer.json()
    assert ["ingested"] * COUNT == [data["states"][number] for number in data["spans"]["state"]]
    assert [] == data["commands"]
