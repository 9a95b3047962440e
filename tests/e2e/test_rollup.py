"""A daily DAG starts once, when all hours of its day are ingested, on a real Airflow (3.3 and later)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

HOURLY, DAILY = "e2e_rollup_hours", "e2e_rollup_days"
DAY = datetime(2026, 2, 1, tzinfo=timezone.utc)


@pytest.mark.needs_airflow(3, 3, "partitions at run time")
def test_day_starts_when_its_24_hours_are_ingested(
    airflow: LocalAirflow,
    release: Callable[..., None],
    verdict: Callable[[str, datetime, datetime], tuple[int, int]],
) -> None:
    """It does not start after 23 hours. One flow run may have ingested several of them, also of another day.

    The flow run of the day has exactly the window of the day.
    """
    release(HOURLY)
    release(DAILY)
    ingest(airflow, -5, 22)
    ingest(airflow, 22, 23)
    # Each of the scheduler's loops between the last two DAG runs could start the daily DAG.
    ingest(airflow, 24, 25)
    assert [] == airflow.dag_runs(DAILY)

    ingest(airflow, 23, 24)
    (run,) = airflow.wait_for_runs(DAILY, count=1)
    ingest(airflow, 25, 26)
    assert ["2026-02-01"] == [each["partition_key"] for each in airflow.dag_runs(DAILY)]
    flow_run = airflow.xcom(DAILY, run["dag_run_id"], "ingest", "flow_run")
    assert ("2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z") == (flow_run["window_start"], flow_run["window_end"])
    assert (0, 0) == verdict(DAILY, DAY, DAY + timedelta(days=1))
    assert (0, 0) == verdict(HOURLY, DAY - timedelta(hours=5), DAY + timedelta(hours=26))


def ingest(airflow: LocalAirflow, first: int, end: int) -> None:
    """Ingest the hours from the first to the end, counted from midnight, and wait for the DAG run."""
    edges = {"window_start": DAY + timedelta(hours=first), "window_end": DAY + timedelta(hours=end)}
    count = len(airflow.dag_runs(HOURLY)) + 1
    airflow.trigger(HOURLY, conf={name: edge.isoformat() for name, edge in edges.items()})
    runs = airflow.wait_for_runs(HOURLY, count=count)
    assert {"success"} == {run["state"] for run in runs}
