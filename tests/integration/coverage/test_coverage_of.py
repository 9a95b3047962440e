# SPDX-License-Identifier: Apache-2.0
"""Compute the coverage of a dataflow, and the commands that fill its gaps, from rows of Airflow's own tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_flowservice._airflow import database
from airflow_flowservice._airflow.backfill_commands import fill_commands, trigger_commands
from airflow_flowservice._airflow.dag_coverage import coverage_of
from airflow_flowservice._airflow.dag_plan import Plan
from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.coverage.cover import Coverage
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, summary

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
DAILY = CronTriggerTimetable("0 0 * * *", timezone="UTC")


def day(number: int) -> datetime:
    return BEGIN + number * DAY


@pytest.fixture
def coverage_until(session: Any) -> Callable[..., Coverage]:
    """Return a function that computes the coverage of the daily DAG for the first days of the year."""

    def cover(days: int, *, timetable: Any = DAILY, now: datetime = NOW, found: Any = (), **options: Any) -> Coverage:
        rows = list(database.task_rows(session, dag_ids=["daily"], since=BEGIN))
        within = IngestionWindow(BEGIN, day(days))
        plans = [Plan(dag_id="daily", timetable=timetable, **options)]
        return coverage_of(rows, plans=plans, within=within, now=now, found=found)

    return cover


def states(coverage: Coverage) -> list[tuple[int, str]]:
    return [((span.window.start - BEGIN).days, span.state.value) for span in coverage.spans]


def test_state_of_each_day(ran: Any, coverage_until: Any) -> None:
    """The days have a success, a failure, a created run, no DAG run, and a task that failed without a flow run."""
    ran(day(1), pushed=summary(1, day(0)))
    ran(day(2), pushed=summary(2, day(1), status="failed"), state="failed", run_state="failed")
    ran(day(3), pushed=summary(3, day(2), status="created"), state="deferred", run_state="running")
    ran(day(5), state="failed", run_state="failed")
    assert [(0, "ingested"), (1, "failed"), (2, "unknown"), (3, "missing"), (4, "failed")] == states(coverage_until(5))


def test_flow_service_completes_the_records(ran: Any, coverage_until: Any) -> None:
    """Flow Service adds an outcome, a run replaced by a clear, an external run, and a run without a window."""
    ran(day(1), pushed=summary(1, day(0), status="created"))
    ran(day(2), pushed=summary(2, day(1)))
    found = [
        run(1),
        run(2),
        run(20, window=IngestionWindow(day(1), day(2))),
        run(30, window=IngestionWindow(day(2), day(3))),
        run(99),
    ]
    coverage = coverage_until(3, found=found)
    assert [(0, "ingested"), (1, "twice"), (2, "outside")] == states(coverage)
    assert [summary(99, BEGIN)["id"]] == [each.id for each in coverage.unplaced]


def test_sensor_adds_the_outcome_of_another_tasks_run(ran: Any, coverage_until: Any) -> None:
    """The sensor expects no window, and its XCom has the same flow run."""
    ran(day(1), task_id="create", pushed=summary(1, day(0), status="created", output_records=None))
    ran(day(1), task_id="wait", operator="FlowRunSensor", pushed=summary(1, day(0)))
    coverage = coverage_until(1)
    assert [(0, "ingested")] == states(coverage)
    assert [("create", 1440)] == [(s.expected[0].task_id, s.runs[0].records) for s in coverage.spans]


@pytest.mark.parametrize("early", ["ingested", "missing"])
def test_pieces_of_a_window_are_ingested(ran: Any, coverage_until: Any, early: str) -> None:
    """With `on_overlap="rest"`, the task's XCom has its last piece; the whole window is expected."""
    six = day(0) + timedelta(hours=6)
    ran(day(1), pushed={**summary(1, six, day(1)), "part_of": str(IngestionWindow(day(0), day(1)))})
    if early == "ingested":
        ran(day(1), task_id="early", pushed=summary(2, day(0), six))
    spans = coverage_until(1).spans
    assert [(day(0), early), (six, "ingested")] == [(span.window.start, span.state.value) for span in spans]


def test_forms_of_xcoms(ran: Any, coverage_until: Any) -> None:
    """XComs are JSON, JSON in JSON (Airflow 3.0), a reference of a custom backend, or of another package."""
    ran(day(1), pushed=summary(1, day(0)))
    ran(day(2), pushed=json.dumps(summary(2, day(1))))
    ran(day(3), pushed="s3://bucket/key")
    ran(day(3), task_id="other", operator="PythonOperator", pushed={"name": "of another package"})
    assert [(0, "ingested"), (1, "ingested"), (2, "unknown")] == states(coverage_until(3))


def test_unfinished_windows_are_not_missing(coverage_until: Any) -> None:
    """The window of the present day is not expected yet."""
    assert [(0, "missing"), (1, "missing")] == states(coverage_until(10, now=day(2) + timedelta(hours=5)))


@pytest.mark.parametrize(
    "expression", [pytest.param("*/5 * * * *", marks=pytest.mark.slow), "17 */6 * * *", "0 5 * * 1"]
)
def test_schedules_cover_any_range(session: Any, expression: str) -> None:
    """The range may begin at any instant; a window across its start is cut."""
    within = IngestionWindow(BEGIN + timedelta(minutes=3), day(8))
    plan = Plan(dag_id="daily", timetable=CronTriggerTimetable(expression, timezone="Europe/Zurich"))
    spans = coverage_of([], plans=[plan], within=within, now=NOW).spans
    assert (within.start, within.end) == (spans[0].window.start, spans[-1].window.end)
    assert all(one.window.meets(other.window) for one, other in pairwise(spans))


def test_offset_is_derived_from_earlier_windows(ran: Any, coverage_until: Any) -> None:
    """The API server does not have the task's `window_offset`; missing windows have the same offset."""
    late = timedelta(hours=-6)
    ran(day(2), pushed=summary(1, day(1) + late, day(2) + late))
    spans = coverage_until(3).spans
    assert ["missing", "ingested", "missing"] == [span.state.value for span in spans[:3]]
    assert {late % DAY} == {(span.window.end - BEGIN) % DAY for span in spans[:3]}


def test_dag_run_expects_only_the_window_of_its_task(ran: Any, coverage_until: Any) -> None:
    """If the task has `window_start` and `window_end`, the period of its DAG run is not expected."""
    ran(day(1), pushed=summary(1, day(0) + timedelta(hours=6), day(1)))
    ran(day(2), pushed=summary(2, day(1), day(1) + timedelta(hours=12)))
    spans = coverage_until(3).spans
    assert ["ingested", "ingested", "missing"] == [span.state.value for span in spans]
    assert [timedelta(hours=18), timedelta(hours=12), DAY] == [span.window.end - span.window.start for span in spans]


@pytest.mark.parametrize("timetable", [DAILY, CronDataIntervalTimetable("0 0 * * *", timezone="UTC")])
def test_command_creates_exactly_the_missing_windows(coverage_until: Any, ran: Any, timetable: Any) -> None:
    """The logical date is the end of the window or, with a data interval, its start."""
    first = 0 if isinstance(timetable, CronDataIntervalTimetable) else 1
    for number in (0, 3, 4):
        ran(day(number + first), pushed=summary(number, day(number)), interval=DAY * (1 - first))
    coverage = coverage_until(5, timetable=timetable)
    (command,) = fill_commands(coverage, dag_id="daily")
    assert f"--from-date {day(1 + first).isoformat()} --to-date {day(2 + first).isoformat()}" in command
    assert "reprocess" not in command


@pytest.mark.parametrize(("run_state", "behavior"), [("failed", "failed"), ("success", "completed")])
def test_existing_dag_runs_run_again(coverage_until: Any, ran: Any, run_state: str, behavior: str) -> None:
    """Without `--reprocess-behavior`, Airflow skips dates that have a DAG run."""
    ran(day(1), state="failed", run_state=run_state)
    (command,) = fill_commands(coverage_until(2), dag_id="daily")
    assert command.endswith(f" --reprocess-behavior {behavior}")


def test_partly_ingested_window_is_not_backfilled(coverage_until: Any, ran: Any) -> None:
    """A backfill would ingest the ingested half again; a DAG run with the gap in its conf does not."""
    noon = day(1) + DAY / 2
    ran(day(9), run_type="manual", dated=False, pushed=summary(1, day(1), noon))
    ran(day(4), pushed=summary(2, day(3)))
    coverage = coverage_until(4)
    assert [(day(1), day(1)), (day(3), day(3))] == [dates(c) for c in fill_commands(coverage, dag_id="daily")]
    conf = '{"window_start": "2026-01-02T12:00:00Z", "window_end": "2026-01-03T00:00:00Z"}'
    assert [f"airflow dags trigger daily --conf '{conf}'"] == trigger_commands(coverage, dag_id="daily")


def test_manual_run_expects_the_window_in_its_conf(coverage_until: Any, ran: Any) -> None:
    """The window is expected even if the task failed without an XCom; no backfill creates the DAG run again."""
    conf = {"window_start": day(0).isoformat(), "window_end": day(1).isoformat()}
    ran(day(9), run_type="manual", dated=False, conf=conf, state="failed", run_state="failed")
    coverage = coverage_until(1, timetable=None)
    assert [(0, "failed")] == states(coverage)
    assert [] == fill_commands(coverage, dag_id="daily")
    (command,) = trigger_commands(coverage, dag_id="daily")
    assert '{"window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-02T00:00:00Z"}' in command


def test_dataflow_of_each_task(session: Any, ran: Any) -> None:
    """The newest flow run determines the dataflow of a task."""
    ran(day(1), pushed=summary(1, day(0), flow_id="before"))
    ran(day(2), pushed=summary(2, day(1)))
    ran(day(2), dag_id="hidden", pushed=summary(3, day(1), flow_id="secret"))
    ran(day(2), task_id="other", operator="PythonOperator", pushed={"name": "of another package"})
    assert [database.Feed(flow_id=FLOW, dag_id="daily", task_id="ingest")] == database.feeds(session, dag_ids=["daily"])
    assert [FLOW, "secret"] == [feed.flow_id for feed in database.feeds(session)]


def run(number: int, **fields: Any) -> FlowRun:
    return FlowRun(id=summary(number, BEGIN)["id"], flow_id=FLOW, status=FlowRunStatus.SUCCESS, **fields)


def dates(command: str) -> tuple[datetime, datetime]:
    words = command.split()
    first, last = (datetime.fromisoformat(words[words.index(name) + 1]) for name in ("--from-date", "--to-date"))
    return first, last
