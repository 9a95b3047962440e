# SPDX-License-Identifier: Apache-2.0
"""Verify which task instances belong to a dataflow, including those without an XCom."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_flowservice._airflow import dag_coverage, dag_plan
from airflow_flowservice._airflow.dag_coverage import Plan
from airflow_flowservice._airflow.database import Feed, TaskRow
from airflow_flowservice._airflow.flow_rows import rows_of_flow
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.schedule import RunDates
from airflow_flowservice.windows.window import IngestionWindow

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
FEEDS = [Feed(flow_id="orders", dag_id="dag", task_id="ingest"), Feed(flow_id="clicks", dag_id="dag", task_id="mapped")]


def row(run_id, task_id="ingest", *, flow_id=None, map_index=-1):
    """Create the row of a task instance, with or without a flow run."""
    return TaskRow(
        dag_id="dag",
        run_id=run_id,
        run_state="failed",
        task_id=task_id,
        map_index=map_index,
        state="failed",
        run_type="scheduled",
        conf={},
        dates=RunDates(
            run_after=NOON, logical_date=NOON, data_interval_start=None, data_interval_end=None, partition_date=None
        ),
        creates=True,
        flow_run=FlowRunSummary(id=run_id, flow_id=flow_id) if flow_id else None,
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("a", flow_id="orders"), row("b", flow_id="clicks")], ["a"]),
        ([row("a"), row("b", flow_id="orders")], ["a", "b"]),
        ([row("a"), row("b", flow_id="orders"), row("c", flow_id="clicks")], ["b"]),
        ([row("a"), row("b", "other")], ["a"]),
        ([row("a", "mapped", map_index=0), row("b", "mapped", map_index=0, flow_id="orders")], ["a", "b"]),
        ([row("a", "mapped", map_index=1), row("b", "mapped", map_index=0, flow_id="orders")], ["b"]),
    ],
    ids=["XCom", "newest flow run", "newer flow run of another dataflow", "feed", "same index", "another index"],
)
def test_rows_of_a_dataflow(rows, expected):
    """The dataflow is that of the XCom, or else of the task's newest flow run, or else of the feeds."""
    assert expected == [each.run_id for each in rows_of_flow(rows, flow_id="orders", feeds=FEEDS)]


@pytest.mark.parametrize(("include_unknown", "expected"), [(False, ["b"]), (True, ["a", "b"])])
def test_tasks_without_flow_runs_are_included_on_request(include_unknown, expected):
    """The first flow run of such a task may have failed. Tasks of other dataflows are never included."""
    rows = [row("a", "new"), row("b"), row("c", "mapped")]
    found = rows_of_flow(rows, flow_id="orders", feeds=FEEDS, include_unknown=include_unknown)
    assert expected == [each.run_id for each in found]


@pytest.mark.parametrize(
    ("start", "end", "most"),
    [("1970-01-01", "1970-01-02", 3), ("1970-01-01", "2026-01-02", 27), ("2026-01-01", "2026-01-02", 27)],
)
def test_schedule_is_computed_only_within_range_and_dag(monkeypatch, start, end, most):
    """Dates before the DAG's start, or after the range's end, are not computed."""
    computed = []
    original = dag_plan.dag_runs.dates_between

    def counted(*args, **kwargs):
        for each in original(*args, **kwargs):
            computed.append(each)
            yield each

    monkeypatch.setattr(dag_plan.dag_runs, "dates_between", counted)
    within = IngestionWindow(*(datetime.fromisoformat(each).replace(tzinfo=timezone.utc) for each in (start, end)))
    timetable = CronTriggerTimetable("@hourly", timezone="UTC")
    plan = Plan(dag_id="dag", timetable=timetable, start=datetime(2026, 1, 1, tzinfo=timezone.utc))
    dag_coverage.coverage_of([], plans=[plan], within=within, now=datetime(2026, 3, 1, tzinfo=timezone.utc))
    assert len(computed) <= most
