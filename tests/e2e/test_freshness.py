# SPDX-License-Identifier: Apache-2.0
"""A dataflow that becomes late while its DAG is paused fails the DAG that watches it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from command_line import run
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_ID, WATCH_ID = "e2e_freshness", "e2e_freshness_watch"
MAX_LAG = timedelta(minutes=30)


def test_paused_dag_is_noticed_when_late(
    airflow: LocalAirflow, release: Callable[..., None], flow_of: Callable[[str], str]
) -> None:
    """Runs of the watching DAG before the limit succeed, and the next one after it fails, also on the command line."""
    release(DAG_ID)
    # The dataflow becomes late a minute after it was ingested.
    end = datetime.now(timezone.utc).replace(microsecond=0) - MAX_LAG + timedelta(seconds=90)
    conf = {"window_start": (end - timedelta(hours=1)).isoformat(), "window_end": end.isoformat()}
    airflow.trigger(DAG_ID, conf=conf)
    airflow.wait_for_runs(DAG_ID, count=1, timeout=240)
    airflow.api("PATCH", f"/dags/{DAG_ID}", json={"is_paused": True})
    airflow.wait_for_dag(WATCH_ID, timeout=240)
    airflow.unpause(WATCH_ID)

    late_at = end + MAX_LAG
    [failed, *_] = wait_until(lambda: ended(airflow, "failed"), what="the watching DAG to fail", timeout=600)
    airflow.api("PATCH", f"/dags/{WATCH_ID}", json={"is_paused": True})
    assert late_at <= instant(failed["end_date"])
    for succeeded in ended(airflow, "success"):
        assert instant(succeeded["start_date"]) <= late_at
    print(f"The alert came {instant(failed['end_date']) - late_at} after the dataflow became late")
    log = airflow.task_log(WATCH_ID, failed["dag_run_id"], "watch")
    assert "FlowLateError" in log
    assert flow_of(DAG_ID) in log

    options = ("--flow-id", flow_of(DAG_ID), "--max-lag", "30m", "--output=json")
    done = run(airflow, ["flowservice", "freshness", *options])
    [row] = json.loads(done.stdout)["dataflows"]
    assert (1, True, True) == (done.returncode, row["late"], row["dags"][0]["paused"])


def ended(airflow: LocalAirflow, state: str) -> list[dict[str, Any]]:
    """Return the runs of the watching DAG with a state, oldest first."""
    return [each for each in airflow.dag_runs(WATCH_ID) if each["state"] == state]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
