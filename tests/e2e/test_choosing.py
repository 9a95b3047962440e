# SPDX-License-Identifier: Apache-2.0
"""Windows that do not come from the data interval of the DAG run, on a real Airflow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    Release = Callable[..., None]
    Verdict = Callable[[str, datetime, datetime], tuple[int, int]]


def utc(*parts: int) -> datetime:
    """Return an aware UTC datetime of the year 2026."""
    return datetime(2026, *parts, tzinfo=timezone.utc)


def window_of(flow_run: dict[str, Any]) -> tuple[str, str]:
    """Return the start and end of the window in a `flow_run` XCom."""
    return flow_run["window_start"], flow_run["window_end"]


def test_asset_triggered_dag_takes_the_window_of_its_event(
    airflow: LocalAirflow, release: Release, verdict: Verdict
) -> None:
    """A DAG run that an asset event triggers ingests the window of the event.

    The upstream DAG run takes its window from its conf. Its outlet triggers the downstream DAG.
    """
    for dag_id in ("e2e_downstream", "e2e_upstream"):
        release(dag_id)
    window = ("2026-02-01T00:00:00Z", "2026-02-01T06:00:00Z")
    airflow.trigger("e2e_upstream", conf=dict(zip(("window_start", "window_end"), window, strict=True)))
    (upstream,) = airflow.wait_for_runs("e2e_upstream", count=1)
    (downstream,) = airflow.wait_for_runs("e2e_downstream", count=1, run_type="asset_triggered")

    assert ("success", "success") == (upstream["state"], downstream["state"])
    assert window == window_of(airflow.xcom("e2e_downstream", downstream["dag_run_id"], "ingest", "flow_run"))
    for dag_id in ("e2e_upstream", "e2e_downstream"):
        assert (0, 0) == verdict(dag_id, utc(2, 1), utc(2, 1, 6))


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_downstream_dag_gets_partition_and_window(airflow: LocalAirflow, release: Release, verdict: Verdict) -> None:
    """An asset event has the partition key that Airflow sets and the window that the operator adds."""
    for dag_id in ("e2e_partition_downstream", "e2e_partition_upstream"):
        release(dag_id)
    (upstream,) = airflow.wait_for_runs("e2e_partition_upstream", count=1)
    (downstream,) = airflow.wait_for_runs("e2e_partition_downstream", count=1)

    assert ("success", "success") == (upstream["state"], downstream["state"])
    response = airflow.api("GET", "/assets/events", params={"source_dag_id": "e2e_partition_upstream"})
    (event,) = [each for each in response["asset_events"] if each["source_run_id"] == upstream["dag_run_id"]]
    window = ("2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z")
    assert (upstream["partition_key"], *window) == (event["partition_key"], *window_of(event["extra"]))
    assert None is not upstream["partition_key"]
    assert upstream["partition_key"] == downstream["partition_key"]
    assert window == window_of(airflow.xcom("e2e_partition_downstream", downstream["dag_run_id"], "ingest", "flow_run"))
    assert (0, 0) == verdict("e2e_partition_downstream", utc(2, 1), utc(2, 2))


def test_since_last_success_covers_missed_days(airflow: LocalAirflow, release: Release, verdict: Verdict) -> None:
    """A DAG run ingests all days since the last success.

    A second DAG run of the same day is skipped, because nothing is left to ingest. A backfill is refused.
    """
    release("e2e_reaching_back")
    run_ids = []
    for count, date in enumerate((utc(2, 3), utc(2, 6), utc(2, 6, 12)), start=1):
        run_ids.append(airflow.trigger("e2e_reaching_back", logical_date=date))
        airflow.wait_for_runs("e2e_reaching_back", count=count)
    airflow.create_backfill("e2e_reaching_back", from_date=utc(2, 10), to_date=utc(2, 10))
    (refused,) = airflow.wait_for_runs("e2e_reaching_back", count=1, run_type="backfill")

    windows = [window_of(airflow.xcom("e2e_reaching_back", run_id, "ingest", "flow_run")) for run_id in run_ids[:2]]
    assert ("2026-02-02T00:00:00Z", "2026-02-03T00:00:00Z") == windows[0]
    assert ("2026-02-03T00:00:00Z", "2026-02-06T00:00:00Z") == windows[1]
    assert (0, 0) == verdict("e2e_reaching_back", utc(2, 2), utc(2, 6))
    (skipped,) = airflow.task_instances("e2e_reaching_back", run_ids[2])
    assert "skipped" == skipped["state"]
    assert "failed" == refused["state"]
    if versions.version() >= (3, 3):
        rendered = airflow.task_instances("e2e_reaching_back", run_ids[1])[0]["rendered_fields"]
        assert windows[1] == (rendered["window_start"], rendered["window_end"])
