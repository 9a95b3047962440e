# SPDX-License-Identifier: Apache-2.0
"""The coverage of a DAG whose task has `flow_name`: the dataflow's id is known from its runs."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_flowservice._airflow import database
from tests.integration.cli.test_coverage import add_day, daily, session
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, ran

__all__ = ["add_day", "daily", "ran", "session"]


@pytest.fixture
def by_name(daily: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the DAG `daily` a task with `flow_name`, as it is serialized."""
    schedule: Any = database.dag_schedule_of(None, "daily")  # type: ignore[arg-type]
    arguments = {"flow_id": None, "flow_name": "Orders", "flowservice_conn_id": "flowservice_default"}
    task = database.task_settings("ingest", arguments.get)
    found = database.DagSchedule(timetable=schedule.timetable, start=schedule.start, tasks=(task,))
    monkeypatch.setattr(database, "dag_schedule_of", lambda *_: found)


def shown(command: Any, output: str) -> Any:
    dates = ("--from", BEGIN.isoformat(), "--to", (BEGIN + 2 * DAY).isoformat())
    return command("coverage", "--dag-id", "daily", *dates, f"--output={output}")


@pytest.mark.usefixtures("by_name", "session")
def test_dataflow_is_unknown_before_the_first_run(command: Any) -> None:
    """The name is resolved when the task runs, so only its windows are known."""
    assert "Dataflow unknown, DAG daily" in shown(command, "table").out
    found = shown(command, "json")
    assert (None, 2) == (found.json["flow_id"], found.json["totals"]["missing"]["windows"])


@pytest.mark.usefixtures("by_name")
def test_dataflow_is_that_of_the_runs(command: Any, add_day: Any, session: Any) -> None:
    add_day(2, window=1)
    session.commit()
    found = shown(command, "json")
    assert (FLOW, 1) == (found.json["flow_id"], found.json["totals"]["ingested"]["windows"])
