"""Waiting on a real Airflow: many at once, through outages and a killed triggerer, without a retry to spare."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

COUNT = 30
BEGIN = datetime(2026, 2, 1, tzinfo=timezone.utc)
OUTAGES = (
    {"action": "expire_tokens", "times": 1},
    {"action": "refuse", "status": 429, "headers": {"Retry-After": "2"}, "for_seconds": 6},
    {"action": "refuse", "status": 503, "for_seconds": 12},
    {"action": "close", "for_seconds": 18},
)


def test_thirty_wait_through_outages_and_a_killed_triggerer(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    release: Callable[..., None],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    verdict: Callable[[str, datetime, datetime], tuple[int, int]],
) -> None:
    """No task fails, each window is ingested once, each task takes one worker process, and few requests are made."""
    release("e2e_waiting")
    tell("outcomes", flow_id=flow_of("e2e_waiting"), status="success", run_s=90, times=COUNT)
    run_id = airflow.trigger("e2e_waiting")
    wait_until(lambda: COUNT == len(instances(airflow, run_id, "deferred", "success")))
    assert len(instances(airflow, run_id, "deferred")) > COUNT / 2
    for outage in OUTAGES:
        tell("faults", kind="*", **outage)
    asked = emulator.ledger(flow_id=flow_of("e2e_waiting"), start=BEGIN, end=BEGIN)["requests"]
    airflow.start("triggerer-2")
    airflow.kill("triggerer-1")
    (run,) = airflow.wait_for_runs("e2e_waiting", count=1, timeout=300)
    airflow.start("triggerer-1")

    assert "success" == run["state"]
    assert {("success", 1)} == {(each["state"], each["try_number"]) for each in instances(airflow, run_id)}
    assert (0, 0) == verdict("e2e_waiting", BEGIN, BEGIN + COUNT * timedelta(hours=1))
    requests = emulator.ledger(flow_id=flow_of("e2e_waiting"), start=BEGIN, end=BEGIN)["requests"]
    alone, together = (requests.get(kind, 0) - asked.get(kind, 0) for kind in ("GET /runs/{id}", "GET /runs"))
    assert alone <= COUNT
    assert together <= 4 * COUNT


def instances(airflow: LocalAirflow, run_id: str, *states: str) -> list[dict[str, Any]]:
    """The task's instances, of these states alone if any are given."""
    return [each for each in airflow.task_instances("e2e_waiting", run_id) if not states or each["state"] in states]


def wait_until(condition: Callable[[], bool], *, timeout: float = 240) -> None:
    """Look again and again."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(1)
