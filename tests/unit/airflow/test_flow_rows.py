# SPDX-License-Identifier: Apache-2.0
"""Rows and earlier dataflows of one dataflow."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_flowservice._airflow.database import Feed, TaskRow, TaskSettings
from airflow_flowservice._airflow.flow_rows import earlier_flows, rows_of_flow
from airflow_flowservice.cli.coverage_command import _only_flow
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.schedule import RunDates

OLD, NEW, OTHER = "old", "new", "other"
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def feed(task_id: str, flow_id: str) -> Feed:
    return Feed(flow_id=flow_id, dag_id="dag", task_id=task_id)


def row(day: int, flow_id: str | None, *, task_id: str = "ingest", map_index: int = -1) -> TaskRow:
    return TaskRow(
        dag_id="dag",
        run_id=f"run{day}",
        run_state="failed",
        task_id=task_id,
        map_index=map_index,
        state="failed",
        run_type="scheduled",
        conf={},
        dates=RunDates(run_after=BEGIN + timedelta(days=day)),
        creates=True,
        flow_run=None if flow_id is None else FlowRunSummary(id=f"{flow_id}{day}", flow_id=flow_id),
    )


LITERAL = TaskSettings(task_id="ingest", flow_id=NEW, continues=(OLD,))
TEMPLATE = TaskSettings(task_id="ingest", continues=(OLD,))


@pytest.mark.parametrize(
    ("tasks", "feeds", "expected"),
    [
        pytest.param([LITERAL], [], (OLD,), id="literal"),
        pytest.param([TEMPLATE], [], (OLD,), id="template that never ran"),
        pytest.param([TEMPLATE], [feed("ingest", NEW)], (OLD,), id="template of the dataflow"),
        pytest.param([TEMPLATE], [feed("ingest", OLD)], (OLD,), id="template before its first new flow run"),
        pytest.param([TEMPLATE], [feed("ingest", OTHER)], (), id="template of another dataflow"),
        pytest.param([TaskSettings(task_id="t", flow_id=NEW), TEMPLATE], [], (), id="another task has the dataflow"),
        pytest.param([TaskSettings(task_id="t"), TEMPLATE], [feed("t", NEW)], (), id="another template has it"),
    ],
)
def test_only_the_tasks_of_a_dataflow_continue_earlier_ones(tasks: Any, feeds: Any, expected: tuple[str, ...]) -> None:
    """Otherwise, windows that only another dataflow ingested would count as ingested."""
    assert expected == earlier_flows(tasks, NEW, feeds=feeds)


def test_first_failure_after_a_switch_belongs_to_the_new_dataflow() -> None:
    """The failed task has no flow run yet, and its newest flow run is of the earlier dataflow."""
    rows = [row(1, OLD), row(2, None)]
    feeds = [feed("ingest", OLD), feed("ingest", NEW)]
    assert rows == rows_of_flow(rows, flow_id=NEW, feeds=feeds, continues=[OLD])
    newest: dict[tuple[str, str, int], str | None] = {("dag", "mapped", 0): OTHER}
    assert rows == rows_of_flow(rows, flow_id=NEW, feeds=feeds, continues=[OLD], newest=newest)


def test_failure_of_another_dataflow_is_not_counted() -> None:
    rows = [row(1, OTHER), row(2, None)]
    assert [] == rows_of_flow(rows, flow_id=NEW, feeds=[feed("ingest", NEW)], continues=[OLD])


def test_earlier_dataflow_with_a_task_must_be_chosen() -> None:
    """Both dataflows are active, so neither is selected silently."""
    tasks = [TaskSettings(task_id="a", flow_id=OLD), TaskSettings(task_id="b", flow_id=NEW, continues=(OLD,))]
    rows = [row(1, OLD, task_id="a"), row(1, NEW, task_id="b")]
    with pytest.raises(Exception, match="several dataflows"):
        _only_flow(rows, tasks, dag_id="dag", recorded=tuple)
    assert NEW == _only_flow(rows, tasks[1:], dag_id="dag", recorded=tuple)
