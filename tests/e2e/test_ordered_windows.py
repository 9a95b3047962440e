# SPDX-License-Identifier: Apache-2.0
"""Windows are ingested in the order of time with `depends_on_past` on a real Airflow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import requests
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_ID = "e2e_ordered"
FIRST = datetime(2026, 2, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
DAYS, FAILED = 4, 1
STARTS = [f"{FIRST + number * DAY:%Y-%m-%dT%H:%M:%SZ}" for number in range(DAYS)]


def test_failed_window_stops_the_later_ones_until_it_is_fixed(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    release: Callable[..., None],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    verdict: Callable[[str, datetime, datetime], tuple[int, int]],
) -> None:
    """A backfill ingests the days one after another, although it may run all of them at once."""
    failed_day = f"{FIRST + FAILED * DAY:%Y-%m-%dT12:00:00Z}"
    tell("outcomes", flow_id=flow_of(DAG_ID), status="failed", times=None, covering=failed_day, queue_s=0, run_s=0)
    release(DAG_ID)
    airflow.create_backfill(
        DAG_ID,
        from_date=FIRST + DAY,
        to_date=FIRST + DAYS * DAY,
        max_active_runs=DAYS,
        reprocess_behavior="failed",
    )
    wait_until(lambda: task_states(airflow)[FAILED : FAILED + 1] == ["failed"], what="the failure of the second day")
    # The scheduler starts and ends this DAG run, so it has had time for the tasks of the later days.
    run_another_dag(airflow)
    assert ["success", "failed", None, None] == task_states(airflow)
    assert set(STARTS[: FAILED + 1]) == set(window_starts(emulator, flow_of(DAG_ID)))

    requests.delete(f"{emulator.url}/_emulator/outcomes", timeout=30).raise_for_status()
    body = {"dry_run": False, "only_failed": True, "reset_dag_runs": True, "dag_run_id": dag_run_ids(airflow)[FAILED]}
    airflow.api("POST", f"/dags/{DAG_ID}/clearTaskInstances", json=body)
    wait_until(lambda: task_states(airflow) == ["success"] * DAYS, what="the success of all days")

    assert (0, 0) == verdict(DAG_ID, FIRST, FIRST + DAYS * DAY)
    assert sorted(window_starts(emulator, flow_of(DAG_ID))) == window_starts(emulator, flow_of(DAG_ID))


def dag_run_ids(airflow: LocalAirflow) -> list[str]:
    """Return the ids of the DAG runs in the order of their windows."""
    return [run["dag_run_id"] for run in airflow.dag_runs(DAG_ID)]


def task_states(airflow: LocalAirflow) -> list[str | None]:
    """Return the state of the task in each DAG run, in the order of the windows."""
    found = [airflow.task_instances(DAG_ID, run_id) for run_id in dag_run_ids(airflow)]
    return [task["state"] for tasks in found for task in tasks]


def window_starts(emulator: EmulatedFlowService, flow_id: str) -> list[str]:
    """Return the start of the window of each flow run, in the order of their creation."""
    ledger = emulator.ledger(flow_id=flow_id, start=FIRST, end=FIRST + DAYS * DAY)
    return [run["window_start"] for run in ledger["runs"]]


def run_another_dag(airflow: LocalAirflow) -> None:
    """Run a DAG that does not use Flow Service to its end."""
    airflow.wait_for_dag("e2e_plain")
    airflow.unpause("e2e_plain")
    run_id = airflow.trigger("e2e_plain")
    wait_until(
        lambda: airflow.api("GET", f"/dags/e2e_plain/dagRuns/{run_id}")["state"] == "success",
        what="the end of another DAG run",
    )
