"""Run all steps of the page Getting started."""

from __future__ import annotations

import shlex
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import run
from pages import blocks, commands
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

PAGE = "docs/getting-started.md"
FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"


def test_steps_of_the_page_ingest_each_window_once(
    airflow: LocalAirflow, dags_folder: Path, emulator: EmulatedFlowService
) -> None:
    """The page's DAG and Airflow commands work in the page's order, and the ledger has each day once."""
    (dags_folder / "ingest_orders.py").write_text(blocks(PAGE, "python")[0])
    wait_until(lambda: airflow.rest.call("GET", "/dags/ingest_orders").ok, what="the page's DAG")
    steps = [words for words in commands(PAGE) if words[0] == "airflow"]
    assert ["check", "windows", "unpause", "create", "create", "coverage"] == [words[2] for words in steps]
    for words in steps:
        done = run(airflow, words[1:])
        assert 0 == done.returncode, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
        if words[1] == "backfill":
            wait_until(lambda: all_backfills_are_over(airflow), what="the backfill to end")
    january = {"start": datetime(2026, 1, 1, tzinfo=timezone.utc), "end": datetime(2026, 1, 4, tzinfo=timezone.utc)}
    ledger = emulator.ledger(flow_id=FLOW, **january)
    assert (0, 0) == (ledger["missing"], ledger["duplicated"])
    assert 3 == len(airflow.dag_runs("ingest_orders", run_type="backfill"))


def all_backfills_are_over(airflow: LocalAirflow) -> bool:
    """Return whether all backfills have ended; until then, Airflow refuses another backfill of the DAG."""
    found = airflow.api("GET", "/backfills", params={"dag_id": "ingest_orders"})["backfills"]
    return bool(found) and all(each["completed_at"] for each in found)
