# SPDX-License-Identifier: Apache-2.0
"""Run `airflow flowservice coverage` on a real Airflow, and then the commands that it prints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import requests
from backfills import complete_backfills, repeat_lost_failures
from command_line import run

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_ID = "e2e_coverage"
DAY = timedelta(days=1)


@pytest.fixture
def coverage(airflow: LocalAirflow) -> Callable[[datetime, datetime], tuple[int, Any]]:
    """Return a function that runs the command, and returns its exit status and JSON document."""

    def show(begin: datetime, end: datetime) -> tuple[int, Any]:
        dates = ("--from", begin.isoformat(), "--to", end.isoformat())
        options = ("--dag-id", DAG_ID, *dates, "--conn-id", "flowservice_default", "--output=json")
        done = run(airflow, ["flowservice", "coverage", *options])
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return show


def test_printed_commands_fill_the_gaps(
    airflow: LocalAirflow,
    backfill: Callable[..., Any],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    verdict: Callable[..., tuple[int, int]],
    emulator: EmulatedFlowService,
    ingest_elsewhere: Callable[..., None],
    coverage: Callable[[datetime, datetime], tuple[int, Any]],
) -> None:
    """Failed and missing windows are ingested. A clear has restated the first window, so it is not duplicated."""
    tell("outcomes", flow_id=flow_of(DAG_ID), status="failed", times=None, covering="2026-02-03T12:00:00Z")
    runs = backfill(DAG_ID, first=window(1) + DAY, last=window(4) + DAY, count=4)
    assert ["success", "success", "failed", "success"] == [run["state"] for run in runs]
    complete_backfills(airflow, DAG_ID)
    backfill(DAG_ID, first=window(7) + DAY, last=window(7) + DAY, count=5)
    repeat_lost_failures(airflow, DAG_ID)
    clear(airflow, runs[0]["dag_run_id"])
    airflow.wait_for_runs(DAG_ID, count=5, timeout=300)
    ingest_elsewhere(flow_of(DAG_ID), begin=window(8), end=window(9))

    status, shown = coverage(window(1), window(9))
    expected = ["restated", "ingested", "failed", "ingested", "missing", "missing", "ingested", "outside"]
    assert (1, expected) == (status, [span["state"] for span in shown["spans"]])
    assert [f"2026-02-0{day}T00:00:00Z" for day in range(1, 9)] == [span["window_start"] for span in shown["spans"]]
    assert 2 == len(shown["fill"])

    requests.delete(f"{emulator.url}/_emulator/outcomes", timeout=30).raise_for_status()
    for count, command in enumerate(shown["fill"]):
        program, *arguments = shlex.split(command)
        complete_backfills(airflow, DAG_ID)
        done = airflow.cli(*arguments)
        assert ("airflow", 0) == (program, done.returncode), done.stderr
        airflow.wait_for_runs(DAG_ID, count=5 + 2 * count, timeout=300)

    status, shown = coverage(window(2), window(9))
    assert (0, ["ingested"] * 6 + ["outside"]) == (status, [span["state"] for span in shown["spans"]])
    assert [] == shown["fill"]
    assert (0, 0) == verdict(DAG_ID, window(2), window(9))
    assert (0, 1) == (coverage(window(1), window(9))[0], verdict(DAG_ID, window(1), window(2))[1] // 1440)


def window(day: int) -> datetime:
    """Return the start of the window of a day of February."""
    return datetime(2026, 2, day, tzinfo=timezone.utc)


def clear(airflow: LocalAirflow, run_id: str) -> None:
    """Clear a task, so that it ingests its window again."""
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["ingest"], "only_failed": False}
    airflow.api("POST", f"/dags/{DAG_ID}/clearTaskInstances", json=body)
