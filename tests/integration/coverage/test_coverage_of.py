"""From rows of Airflow's own tables to a dataflow's coverage, and to the command that fills its gaps."""

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
from airflow_flowservice._airflow.dag_coverage import Plan, coverage_of
from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.coverage.cover import Coverage
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, summary

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
DAILY = CronTriggerTimetable("0 0 * * *", timezone="UTC")


def day(number: int) -> datetime:
    return BEGIN + number * DAY


@pytest.fixture
def look(session: Any) -> Callable[..., Coverage]:
    """The coverage of the first days of the year, as the daily DAG has it."""

    def cover(days: int, *, timetable: Any = DAILY, now: datetime = NOW, found: Any = (), **options: Any) -> Coverage:
        rows = list(database.task_rows(session, dag_ids=["daily"], since=BEGIN))
        within = IngestionWindow(BEGIN, day(days))
        plans = [Plan(dag_id="daily", timetable=timetable, **options)]
        return coverage_of(rows, plans=plans, within=within, now=now, found=found)

    return cover


def told(coverage: Coverage) -> list[tuple[int, str]]:
    return [((span.window.start - BEGIN).days, span.state.value) for span in coverage.spans]


def test_each_day_tells_what_became_of_it(ran: Any, look: Any) -> None:
    """A success, a failure, one under way, one that nobody ran, and one that ended before it had a flow run."""
    ran(day(1), pushed=summary(1, day(0)))
    ran(day(2), pushed=summary(2, day(1), status="failed"), state="failed", run_state="failed")
    ran(day(3), pushed=summary(3, day(2), status="created"), state="deferred", run_state="running")
    ran(day(5), state="failed", run_state="failed")
    assert [(0, "ingested"), (1, "failed"), (2, "unknown"), (3, "missing"), (4, "failed")] == told(look(5))


def test_flow_service_knows_better(ran: Any, look: Any) -> None:
    """A run that the task has not looked at since; another window's first run, which a clear left behind; an alien."""
    ran(day(1), pushed=summary(1, day(0), status="created"))
    ran(day(2), pushed=summary(2, day(1)))
    found = [
        run(1),
        run(2),
        run(20, window=IngestionWindow(day(1), day(2))),
        run(30, window=IngestionWindow(day(2), day(3))),
        run(99),
    ]
    coverage = look(3, found=found)
    assert [(0, "ingested"), (1, "twice"), (2, "outside")] == told(coverage)
    assert [summary(99, BEGIN)["id"]] == [each.id for each in coverage.unplaced]


def test_a_sensor_tells_how_the_run_of_another_task_ended(ran: Any, look: Any) -> None:
    """It asks for no window of its own, and it is the same run."""
    ran(day(1), task_id="create", pushed=summary(1, day(0), status="created", output_records=None))
    ran(day(1), task_id="wait", operator="FlowRunSensor", pushed=summary(1, day(0)))
    coverage = look(1)
    assert [(0, "ingested")] == told(coverage)
    assert [("create", 1440)] == [(s.asked[0].task_id, s.runs[0].records) for s in coverage.spans]


def test_xcoms_are_read_in_every_form(ran: Any, look: Any) -> None:
    """JSON, JSON in JSON (as Airflow 3.0 has it), a reference of a custom backend, somebody else's."""
    ran(day(1), pushed=summary(1, day(0)))
    ran(day(2), pushed=json.dumps(summary(2, day(1))))
    ran(day(3), pushed="s3://bucket/key")
    ran(day(3), task_id="other", operator="PythonOperator", pushed={"name": "of another package"})
    assert [(0, "ingested"), (1, "ingested"), (2, "unknown")] == told(look(3))


def test_windows_that_are_not_over_are_not_missing(look: Any) -> None:
    """The day of now has no window yet."""
    assert [(0, "missing"), (1, "missing")] == told(look(10, now=day(2) + timedelta(hours=5)))


@pytest.mark.parametrize("expression", ["*/5 * * * *", "17 */6 * * *", "0 5 * * 1"])
def test_every_schedule_is_counted_from_where_one_looks(session: Any, expression: str) -> None:
    """Whatever moment that is; a window that sticks out is shown in part."""
    within = IngestionWindow(BEGIN + timedelta(minutes=3), day(8))
    plan = Plan(dag_id="daily", timetable=CronTriggerTimetable(expression, timezone="Europe/Zurich"))
    spans = coverage_of([], plans=[plan], within=within, now=NOW).spans
    assert (within.start, within.end) == (spans[0].window.start, spans[-1].window.end)
    assert all(one.window.meets(other.window) for one, other in pairwise(spans))


def test_earlier_windows_show_the_offset(ran: Any, look: Any) -> None:
    """The API server does not have the task's `window_offset`; gaps lie where the task's windows would."""
    late = timedelta(hours=-6)
    ran(day(2), pushed=summary(1, day(1) + late, day(2) + late))
    spans = look(3).spans
    assert ["missing", "ingested", "missing"] == [span.state.value for span in spans[:3]]
    assert {late % DAY} == {(span.window.end - BEGIN) % DAY for span in spans[:3]}


def test_a_dag_run_asks_for_what_its_task_took_and_not_for_its_period_too(ran: Any, look: Any) -> None:
    """The task has a `window_start` and `window_end` of its own."""
    ran(day(1), pushed=summary(1, day(0) + timedelta(hours=6), day(1)))
    ran(day(2), pushed=summary(2, day(1), day(1) + timedelta(hours=12)))
    spans = look(3).spans
    assert ["ingested", "ingested", "missing"] == [span.state.value for span in spans]
    assert [timedelta(hours=18), timedelta(hours=12), DAY] == [span.window.end - span.window.start for span in spans]


@pytest.mark.parametrize("timetable", [DAILY, CronDataIntervalTimetable("0 0 * * *", timezone="UTC")])
def test_the_command_makes_exactly_the_missing_windows(look: Any, ran: Any, timetable: Any) -> None:
    """A run's date is where its window ends, or begins where Airflow gives it an interval."""
    first = 0 if isinstance(timetable, CronDataIntervalTimetable) else 1
    for number in (0, 3, 4):
        ran(day(number + first), pushed=summary(number, day(number)), interval=DAY * (1 - first))
    coverage = look(5, timetable=timetable)
    (command,) = fill_commands(coverage, dag_id="daily")
    assert f"--from-date {day(1 + first).isoformat()} --to-date {day(2 + first).isoformat()}" in command
    assert "reprocess" not in command


@pytest.mark.parametrize(("run_state", "behavior"), [("failed", "failed"), ("success", "completed")])
def test_dag_runs_that_are_there_are_run_again(look: Any, ran: Any, run_state: str, behavior: str) -> None:
    """Otherwise Airflow passes over dates that have a DAG run."""
    ran(day(1), state="failed", run_state=run_state)
    (command,) = fill_commands(look(2), dag_id="daily")
    assert command.endswith(f" --reprocess-behavior {behavior}")


def test_a_window_that_is_in_by_half_is_not_backfilled(look: Any, ran: Any) -> None:
    """A backfill would ingest the other half again; a run with exactly the gap in its conf does not."""
    noon = day(1) + DAY / 2
    ran(day(9), run_type="manual", dated=False, pushed=summary(1, day(1), noon))
    ran(day(4), pushed=summary(2, day(3)))
    coverage = look(4)
    assert [(day(1), day(1)), (day(3), day(3))] == [dates(c) for c in fill_commands(coverage, dag_id="daily")]
    conf = '{"window_start": "2026-01-02T12:00:00Z", "window_end": "2026-01-03T00:00:00Z"}'
    assert [f"airflow dags trigger daily --conf '{conf}'"] == trigger_commands(coverage, dag_id="daily")


def test_a_manual_run_asks_for_the_window_in_its_conf(look: Any, ran: Any) -> None:
    """Also when it failed before it pushed anything; no backfill makes it again."""
    conf = {"window_start": day(0).isoformat(), "window_end": day(1).isoformat()}
    ran(day(9), run_type="manual", dated=False, conf=conf, state="failed", run_state="failed")
    coverage = look(1, timetable=None)
    assert [(0, "failed")] == told(coverage)
    assert [] == fill_commands(coverage, dag_id="daily")
    (command,) = trigger_commands(coverage, dag_id="daily")
    assert '{"window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-02T00:00:00Z"}' in command


def test_tasks_tell_which_dataflow_they_feed(session: Any, ran: Any) -> None:
    """By their newest flow run."""
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
