"""Windows that do not come from a run's own period, on a real Airflow."""

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
    """An aware moment of 2026."""
    return datetime(2026, *parts, tzinfo=timezone.utc)


def window_of(flow_run: dict[str, Any]) -> tuple[str, str]:
    """The window in an XCom."""
    return flow_run["window_start"], flow_run["window_end"]


def test_a_dag_on_an_asset_takes_the_window_of_its_event(
    airflow: LocalAirflow, release: Release, verdict: Verdict
) -> None:
    """The first DAG's run has its window from its conf; the second DAG is triggered by the first one's outlet."""
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
def test_a_partition_and_its_window_go_downstream(airflow: LocalAirflow, release: Release, verdict: Verdict) -> None:
    """The event carries the partition's key, which is Airflow's, and its window, which is ours."""
    for dag_id in ("e2e_partition_downstream", "e2e_partition_upstream"):
        release(dag_id)
    (upstream,) = airflow.wait_for_runs("e2e_partition_upstream", count=1)
    (downstream,) = airflow.wait_for_runs("e2e_partition_downstream", count=1)

    assert ("success", "success") == (upstream["state"], downstream["state"])
    answer = airflow.api("GET", "/assets/events", params={"source_dag_id": "e2e_partition_upstream"})
    (event,) = [each for each in answer["asset_events"] if each["source_run_id"] == upstream["dag_run_id"]]
    window = ("2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z")
    assert (upstream["partition_key"], *window) == (event["partition_key"], *window_of(event["extra"]))
    assert None is not upstream["partition_key"]
    assert upstream["partition_key"] == downstream["partition_key"]
    assert window == window_of(airflow.xcom("e2e_partition_downstream", downstream["dag_run_id"], "ingest", "flow_run"))
    assert (0, 0) == verdict("e2e_partition_downstream", utc(2, 1), utc(2, 2))


def test_since_last_success_reaches_back(airflow: LocalAirflow, release: Release, verdict: Verdict) -> None:
    """A run takes in the days that have none; the next one within the day has nothing to do; a backfill is refused."""
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
