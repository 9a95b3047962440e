# SPDX-License-Identifier: Apache-2.0
"""A manual DAG run ingests the day that its logical date names, on a real Airflow, for each way to trigger it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

# Days in January of the logical dates. The CLI and `TriggerDagRunOperator` infer the data interval from now.
BY_CLI, BY_REST = 10, 11
BY_OPERATOR = {"e2e_dates": [12, 13, 14], "e2e_dates_interval": [12]}
CHILDREN = list(BY_OPERATOR)
DAY = timedelta(days=1)


def january(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def runs(airflow: LocalAirflow, release: Callable[..., None]) -> dict[str, list[dict[str, Any]]]:
    """Trigger each DAG in three ways, and return the ended DAG runs of each."""
    for dag_id in CHILDREN:
        release(dag_id)
    airflow.wait_for_dag("e2e_dates_parent", timeout=240)
    airflow.unpause("e2e_dates_parent")
    airflow.trigger("e2e_dates_parent")
    for dag_id in CHILDREN:
        done = airflow.cli("dags", "trigger", dag_id, "--logical-date", january(BY_CLI).isoformat(), timeout=300)
        assert 0 == done.returncode, done.stdout + done.stderr
        airflow.trigger(dag_id, logical_date=january(BY_REST))
    airflow.wait_for_runs("e2e_dates_parent", count=1)
    return {dag_id: airflow.wait_for_runs(dag_id, count=2 + len(BY_OPERATOR[dag_id])) for dag_id in CHILDREN}


@pytest.mark.parametrize("dag_id", CHILDREN)
def test_logical_date_names_the_day(
    dag_id: str,
    runs: dict[str, list[dict[str, Any]]],
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    flow_of: Callable[[str], str],
) -> None:
    """The CLI, the REST API and `TriggerDagRunOperator` ingest the day before the logical date, each day once.

    For `CronDataIntervalTimetable`, that day is the last complete data interval before the logical date.
    """
    days = [BY_CLI, BY_REST, *BY_OPERATOR[dag_id]]
    ledger = wait_until(
        lambda: _ledger_of_ended_runs(emulator, flow_of(dag_id), begin=january(days[0]) - DAY, end=january(days[-1])),
        what="the end of the flow runs",
        timeout=240,
    )

    assert {january(day).isoformat(): "success" for day in days} == {
        datetime.fromisoformat(run["logical_date"]).isoformat(): run["state"] for run in runs[dag_id]
    }
    assert (0, 0, len(days)) == (ledger["missing"], ledger["duplicated"], len(ledger["runs"]))
    for run in runs[dag_id]:
        logical_date = datetime.fromisoformat(run["logical_date"])
        flow_run = airflow.xcom(dag_id, run["dag_run_id"], "ingest", "flow_run")
        window = [datetime.fromisoformat(flow_run[name]) for name in ("window_start", "window_end")]
        assert [logical_date - DAY, logical_date] == window


@pytest.mark.parametrize("dag_id", CHILDREN)
def test_data_intervals_of_children_are_those_of_the_trigger(
    dag_id: str, runs: dict[str, list[dict[str, Any]]]
) -> None:
    """Airflow infers the intervals of the CLI and the operator from now, so the tests above need the logical date.

    With `@daily`, the inferred intervals are empty, and the window is the period before the logical date.
    """
    ends = {
        datetime.fromisoformat(run["logical_date"]).day: datetime.fromisoformat(run["data_interval_end"])
        for run in runs[dag_id]
    }
    assert january(BY_REST) == ends[BY_REST]
    assert all(ends[day] > january(31) for day in (BY_CLI, *BY_OPERATOR[dag_id]))


def _ledger_of_ended_runs(
    emulator: EmulatedFlowService, flow_id: str, *, begin: datetime, end: datetime
) -> dict[str, Any] | None:
    """Return the ledger of a flow, or None while one of its flow runs has not ended."""
    ledger = dict(emulator.ledger(flow_id=flow_id, start=begin, end=end))
    return ledger if all(run["status"] == "success" for run in ledger["runs"]) else None
