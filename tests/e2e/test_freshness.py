# SPDX-License-Identifier: Apache-2.0
"""A dataflow that becomes late is noticed while its DAG is paused, and while the scheduler is dead."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from command_line import run
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_ID, WATCH_ID = "e2e_freshness", "e2e_freshness_watch"
MAX_LAG = timedelta(minutes=30)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One start of a monitor's command.

    :param status: exit status.
    """

    began: datetime
    ended: datetime
    status: int

    @property
    def duration(self) -> timedelta:
        """Return the time that the command took."""
        return self.ended - self.began


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


@pytest.mark.parametrize("stopped", ["paused", "killed"])
def test_monitor_notices_when_late(
    airflow: LocalAirflow, release: Callable[..., None], flow_of: Callable[[str], str], stopped: str
) -> None:
    """Each check that begins after the dataflow became late exits with 1, and each one before it with 0.

    So the alert comes at most one interval of the monitor, and the duration of a check, after that moment. A DAG that
    watches does not run while the scheduler is dead, and fails after its start.
    """
    dag_id = f"e2e_freshness_{stopped}"
    release(dag_id)
    end = datetime.now(timezone.utc).replace(microsecond=0) - 2 * MAX_LAG
    conf = {"window_start": (end - timedelta(hours=1)).isoformat(), "window_end": end.isoformat()}
    airflow.trigger(dag_id, conf=conf)
    airflow.wait_for_runs(dag_id, count=1, timeout=240)
    if stopped == "paused":
        airflow.api("PATCH", f"/dags/{dag_id}", json={"is_paused": True})
        alert = first_alert(airflow, flow_of(dag_id), end=end)
    else:
        watch_id = f"{dag_id}_watch"
        airflow.wait_for_dag(watch_id, timeout=240)
        airflow.unpause(watch_id)
        airflow.kill("scheduler")
        try:
            airflow.trigger(watch_id)
            alert = first_alert(airflow, flow_of(dag_id), end=end)
            assert ["queued"] == [each["state"] for each in airflow.dag_runs(watch_id)]
        finally:
            airflow.start("scheduler")
        (watched,) = airflow.wait_for_runs(watch_id, count=1, timeout=300)
        assert ("failed", True) == (watched["state"], alert.ended < instant(watched["start_date"]))
    assert 1 == alert.status


def first_alert(airflow: LocalAirflow, flow_id: str, *, end: datetime) -> Check:
    """Check a dataflow at regular intervals, as a monitor does; return the first check that fails.

    The dataflow becomes late during these checks.

    :param end: end of its last ingested window.
    """
    measured = check(airflow, flow_id, max_lag="26h")
    assert 0 == measured.status
    interval = 2 * measured.duration
    minutes = math.ceil((datetime.now(timezone.utc) + 2 * interval - end) / MINUTE)
    late_at = end + minutes * MINUTE
    checks = [check(airflow, flow_id, max_lag=f"{minutes}m")]
    while checks[-1].status == 0:
        time.sleep(max(0.0, (checks[-1].began + interval - datetime.now(timezone.utc)).total_seconds()))
        checks.append(check(airflow, flow_id, max_lag=f"{minutes}m"))
        assert checks[-2].began <= late_at, "a check that began after the dataflow became late did not fail"
    alert = checks[-1]
    assert len(checks) > 1
    assert late_at <= alert.ended
    delay = alert.ended - late_at
    print(f"{len(checks)} checks, one each {interval}: the alert came after {delay / interval:.2f} intervals, {delay}")
    return alert


def check(airflow: LocalAirflow, flow_id: str, *, max_lag: str) -> Check:
    began = datetime.now(timezone.utc)
    done = run(airflow, ["flowservice", "freshness", "--flow-id", flow_id, "--max-lag", max_lag])
    return Check(began=began, ended=datetime.now(timezone.utc), status=done.returncode)


def ended(airflow: LocalAirflow, state: str) -> list[dict[str, Any]]:
    """Return the runs of the watching DAG with a state, oldest first."""
    return [each for each in airflow.dag_runs(WATCH_ID) if each["state"] == state]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
