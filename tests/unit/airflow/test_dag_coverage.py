"""Which task instances are about a dataflow, also where they pushed nothing."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_flowservice._airflow.dag_coverage import rows_of_flow
from airflow_flowservice._airflow.database import Feed, TaskRow
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.schedule import RunDates

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
FEEDS = [Feed(flow_id="orders", dag_id="dag", task_id="ingest"), Feed(flow_id="clicks", dag_id="dag", task_id="mapped")]


def row(run_id, task_id="ingest", *, flow_id=None, map_index=-1):
    """A task instance that pushed a flow run, or nothing."""
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
    ids=["what was pushed", "the newest says it", "another since", "the feed says it", "same index", "another index"],
)
def test_rows_of_a_dataflow(rows, expected):
    """What pushed a flow run says it; else the same task's newest one; else the feeds."""
    assert expected == [each.run_id for each in rows_of_flow(rows, flow_id="orders", feeds=FEEDS)]


@pytest.mark.parametrize(("silent", "expected"), [(False, ["b"]), (True, ["a", "b"])])
def test_a_task_that_has_fed_nothing_yet_is_taken_where_asked(silent, expected):
    """Its first flow run may be what failed; a task that feeds another dataflow is not taken for it."""
    rows = [row("a", "new"), row("b"), row("c", "mapped")]
    found = rows_of_flow(rows, flow_id="orders", feeds=FEEDS, silent=silent)
    assert expected == [each.run_id for each in found]
