# SPDX-License-Identifier: Apache-2.0
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
    ingest(airflow, (-5, 22), (22, 23))
    # The scheduler's loops during this DAG run could start the daily DAG.
    ingest(airflow, (24, 25))
    assert [] == airflow.dag_runs(DAILY)

    ingest(airflow, (23, 24))
    (run,) = airflow.wait_for_runs(DAILY, count=1)
    assert ("2026-02-01", "success") == (run["partition_key"], run["state"])
    flow_run = airflow.xcom(DAILY, run["dag_run_id"], "ingest", "flow_run")
    assert ("2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z") == (flow_run["window_start"], flow_run["window_end"])
    assert (0, 0) == verdict(DAILY, DAY, DAY + timedelta(days=1))
    assert (0, 0) == verdict(HOURLY, DAY - timedelta(hours=5), DAY + timedelta(hours=25))


def ingest(airflow: LocalAirflow, *spans: tuple[int, int]) -> None:
    """Ingest each span of hours, counted from midnight, with one DAG run, and wait for all of them."""
    count = len(airflow.dag_runs(HOURLY)) + len(spans)
    for first, end in spans:
        edges = {"window_start": DAY + timedelta(hours=first), "window_end": DAY + timedelta(hours=end)}
        airflow.trigger(HOURLY, conf={name: edge.isoformat() for name, edge in edges.items()})
    runs = airflow.wait_for_runs(HOURLY, count=count)
    assert {"success"} == {run["state"] for run in runs}
