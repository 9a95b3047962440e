# SPDX-License-Identifier: Apache-2.0
"""Plan of a fill: windows, actions and requests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, KnownRun, State, cover
from airflow_flowservice.coverage.fill_plan import (
    RESTATED_STATES,
    FillAction,
    FillOptions,
    FillStep,
    count_unknown,
    plan_fill,
    widened_range,
)
from airflow_flowservice.coverage.fill_requests import rest_requests
from airflow_flowservice.windows.chunks import ChunkLength
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def window(start: int, end: int | None = None) -> IngestionWindow:
    """Create a window from days since the begin."""
    return IngestionWindow(BEGIN + start * DAY, BEGIN + (start + 1 if end is None else end) * DAY)


def scheduled(day: int, **fields: Any) -> ExpectedWindow:
    """Create the window of a schedule's date, by default without a DAG run."""
    return ExpectedWindow(window=window(day), dag_id="daily", date=BEGIN + (day + 1) * DAY, **fields)


def failed(day: int, **fields: Any) -> ExpectedWindow:
    """Create the window of a failed DAG run."""
    ended: dict[str, Any] = {"dag_run_state": "failed", "task_state": "failed", "task_id": "ingest"}
    return scheduled(day, dag_run_id=f"run-{day}", **{**ended, **fields})


def manual(day: int, **fields: Any) -> ExpectedWindow:
    """Create the window of a failed DAG run that no backfill can run again."""
    ended: dict[str, Any] = {"dag_run_state": "failed", "task_state": "failed", "task_id": "ingest"}
    return ExpectedWindow(window=window(day), dag_id="daily", dag_run_id=f"manual-{day}", **{**ended, **fields})


def ingested(start: int, end: int | None = None) -> KnownRun:
    return KnownRun(id=f"flow-run-{start}", window=window(start, end), status=FlowRunStatus.SUCCESS)


def plan(coverage: Coverage, **options: Any) -> list[FillStep]:
    return plan_fill(coverage, dag_id="daily", options=FillOptions(**{"succeeded": {}, **options}))


def shown(steps: list[FillStep]) -> list[tuple[str, list[tuple[int, int]]]]:
    """Return the action of each step, and the start and end of its windows in days."""
    return [
        (
            step.action.value,
            [((each.window.start - BEGIN) // DAY, (each.window.end - BEGIN) // DAY) for each in step.windows],
        )
        for step in steps
    ]


def test_missing_and_failed_windows_share_a_backfill() -> None:
    """Each contiguous gap has one backfill; it runs failed DAG runs again."""
    coverage = cover([scheduled(0), failed(1), scheduled(2), scheduled(3), scheduled(4)], [ingested(3)])
    steps = plan(coverage)
    assert [("backfill", [(0, 1), (1, 2), (2, 3)]), ("backfill", [(4, 5)])] == shown(steps)
    assert ["failed", "none"] == [step.reprocess for step in steps]
    assert (BEGIN + DAY, BEGIN + 3 * DAY) == steps[0].dates


def test_dag_run_without_failure_needs_reprocessing_of_completed() -> None:
    (step,) = plan(cover([failed(0, dag_run_state="success", task_state="skipped"), failed(1)], []))
    assert "completed" == step.reprocess


def test_shared_dag_run_is_not_run_again_as_a_whole() -> None:
    """Only the failed task is cleared, and the range of dates does not contain the DAG run."""
    coverage = cover([scheduled(0), failed(1), scheduled(2)], [])
    succeeded = {"run-1": frozenset({("ingest", -1), ("other", -1)})}
    steps = plan(coverage, succeeded=succeeded)
    assert [("backfill", [(0, 1)]), ("clear", [(1, 2)]), ("backfill", [(2, 3)])] == shown(steps)
    assert ["none", "none"] == [step.reprocess for step in steps if step.action is FillAction.BACKFILL]


@pytest.mark.parametrize("existing", [manual(0), failed(0, dag_run_state="running")], ids=["manual", "active"])
def test_dag_run_that_no_backfill_runs_again_is_cleared(existing: ExpectedWindow) -> None:
    (step,) = plan(cover([existing], []))
    assert [("clear", [(0, 1)])] == shown([step])
    assert ("ingest", True) == (step.windows[0].task_id, step.windows[0].has_failed_task)


def test_partly_ingested_window_gets_only_its_rest() -> None:
    """No backfill ingests exactly the rest, so a manual DAG run does."""
    expected = ExpectedWindow(window=window(0, 3), dag_id="daily", date=BEGIN)
    assert [("trigger", [(1, 3)])] == shown(plan(cover([expected], [ingested(0)])))


def test_without_clears_the_plan_has_only_commands() -> None:
    """Airflow's command line clears tasks only by date."""
    steps = plan(cover([manual(0), failed(1)], []), succeeded=None)
    assert [("trigger", [(0, 1)]), ("backfill", [(1, 2)])] == shown(steps)


def test_unknown_windows_need_an_option() -> None:
    coverage = cover([scheduled(0, reason="before Airflow's history"), scheduled(1)], [])
    assert [("backfill", [(1, 2)])] == shown(plan(coverage))
    states = frozenset({State.MISSING, State.UNKNOWN})
    assert [("backfill", [(0, 1), (1, 2)])] == shown(plan(coverage, states=states))


def test_running_windows_are_not_filled() -> None:
    """A second fill at the same time has nothing to do for these windows."""
    queued = failed(0, dag_run_state="queued", task_state=None)
    assert [] == plan(cover([queued, failed(1, dag_run_state="running", task_state="deferred")], []))


@pytest.mark.parametrize("state", ["deferred", "running", "up_for_retry"])
def test_window_of_an_active_task_is_not_filled_in_any_state(state: str) -> None:
    """The task may have created a flow run of unknown outcome, or may ingest the window again."""
    active = {"dag_run_state": "running", "task_state": state}
    created = KnownRun(id="created", window=window(0), status_read=False)
    coverage = cover([failed(0, **active), failed(1, **active), scheduled(2)], [created, ingested(1), ingested(2)])
    assert [State.UNKNOWN, State.INGESTED, State.INGESTED] == [span.state for span in coverage.spans]
    assert [] == plan(coverage, states=frozenset({State.UNKNOWN}))
    assert 0 == count_unknown(coverage, within=window(0, 3))
    assert [("backfill", [(2, 3)])] == shown(plan(coverage, states=RESTATED_STATES, restate=True))


def test_only_confirmed_windows_are_filled() -> None:
    """A window that is not selected splits the range of dates."""
    coverage = cover([scheduled(day) for day in range(4)], [])
    steps = plan(coverage, only=frozenset({window(0), window(2), window(3), window(9)}))
    assert [("backfill", [(0, 1)]), ("backfill", [(2, 3), (3, 4)])] == shown(steps)


def test_window_across_the_edge_is_filled_only_if_it_is_whole_in_the_gap() -> None:
    """The coverage of the widened range shows whether the part outside of the range is ingested."""
    expected = [ExpectedWindow(window=window(0, 2), dag_id="daily", date=BEGIN), scheduled(2)]
    within = window(1, 3)
    assert window(0, 3) == widened_range(cover(expected, [], within=within), within)
    assert [("backfill", [(0, 2), (2, 3)])] == shown(plan(cover(expected, []), within=within))
    steps = plan(cover(expected, [ingested(0)]), within=within)
    assert [("trigger", [(1, 2)]), ("backfill", [(2, 3)])] == shown(steps)


def test_restate_selects_only_ingested_windows() -> None:
    coverage = cover([scheduled(0), failed(1, dag_run_state="success", task_state="success")], [ingested(1)])
    (step,) = plan(coverage, states=RESTATED_STATES, restate=True)
    assert ([("backfill", [(1, 2)])], "completed") == (shown([step]), step.reprocess)
    (request,) = rest_requests(step, now=NOW)
    assert {"flowservice": {"restate": True}} == request.body["dag_run_conf"]


@pytest.mark.parametrize("chunk", [None, "1mo"])
def test_restate_is_only_for_the_selected_dataflow(chunk: str | None) -> None:
    """The DAG run also has the tasks of other dataflows, which must ingest nothing again."""
    coverage = cover([scheduled(0)], [ingested(0)])
    options = {"states": RESTATED_STATES, "restate": True, "flow_id": "flow-a"}
    (step,) = plan(coverage, chunk=ChunkLength.parse(chunk) if chunk else None, **options)
    (request,) = rest_requests(step, now=NOW)
    conf = request.body["conf" if chunk else "dag_run_conf"]
    assert {"restate": ["flow-a"]} == conf["flowservice"]


@pytest.mark.parametrize("task_state", ["failed", "success"])
def test_restate_needs_the_conf_if_the_task_failed(task_state: str) -> None:
    """A cleared task that failed takes the existing flow run; one that succeeded ingests again."""
    existing = manual(0, task_state=task_state)
    coverage = cover([existing], [ingested(0)])
    expected = "clear" if task_state == "success" else "trigger"
    assert [(expected, [(0, 1)])] == shown(plan(coverage, states=RESTATED_STATES, restate=True))


def test_year_is_filled_by_months() -> None:
    """365 daily windows need 12 DAG runs; an ingested window is not ingested again."""
    chunk = ChunkLength.parse("1mo")
    days = [scheduled(day) for day in range(365)]
    (step,) = plan(cover(days, []), chunk=chunk)
    assert ("trigger", 12) == (step.action.value, len(step.windows))
    steps = plan(cover(days, [ingested(100)]), chunk=chunk)
    assert not any(each.window.overlaps(window(100)) for step in steps for each in step.windows)
    assert 364 * DAY.total_seconds() == sum(each.window.seconds for step in steps for each in step.windows)


def test_failed_chunk_is_cleared() -> None:
    """Its DAG run exists, so a trigger with the same id would be refused."""
    chunk = ChunkLength.parse("1w")
    steps = plan(cover([manual(0), failed(1), scheduled(2)], []), chunk=chunk)
    assert [("clear", [(0, 1)]), ("trigger", [(1, 3)])] == shown(steps)


@given(st.lists(st.sampled_from(["missing", "failed", "ingested", "running", "unknown", "manual"]), max_size=30))
def test_each_open_window_is_filled_once(kinds: list[str]) -> None:
    """No other window is filled, and no range of dates contains the date of another window."""
    expected, runs = [], []
    for day, kind in enumerate(kinds):
        created = {
            "missing": lambda day: scheduled(day),
            "failed": lambda day: failed(day),
            "ingested": lambda day: scheduled(day),
            "running": lambda day: failed(day, dag_run_state="running", task_state="running"),
            "unknown": lambda day: scheduled(day, reason="deleted"),
            "manual": lambda day: manual(day),
        }
        expected.append(created[kind](day))
        runs += [ingested(day)] if kind == "ingested" else []
    steps = plan(cover(expected, runs))
    filled = [each.window for step in steps for each in step.windows]
    wanted = [day for day, kind in enumerate(kinds) if kind in ("missing", "failed", "manual")]
    assert [window(day) for day in wanted] == filled
    ranges = [step.dates for step in steps if step.action is FillAction.BACKFILL]
    dates = [BEGIN + (day + 1) * DAY for day in range(len(kinds))]
    contained = [date for first, last in ranges for date in dates if first <= date <= last]
    assert [BEGIN + (day + 1) * DAY for day in wanted if kinds[day] != "manual"] == contained


def test_requests() -> None:
    """Each step has the request of Airflow's public API that does the same."""
    coverage = cover([scheduled(0), manual(2, task_id="a", map_index=3)], [])
    backfill, clear = (rest_requests(step, now=NOW)[0] for step in plan(coverage))
    assert ("/api/v2/backfills", "none", 10) == (
        backfill.path,
        backfill.body["reprocess_behavior"],
        backfill.body["max_active_runs"],
    )
    assert "2026-01-02T00:00:00+00:00" == backfill.body["from_date"] == backfill.body["to_date"]
    assert "/api/v2/dags/daily/clearTaskInstances" == clear.path
    assert ([["a", 3]], True, False) == (
        clear.body["task_ids"],
        clear.body["only_failed"],
        clear.body["dry_run"],
    )
    (step,) = plan(cover([scheduled(0)], []), chunk=ChunkLength.parse("1d"))
    (trigger,) = rest_requests(step, now=NOW)
    assert "flowservice_fill__2026-01-01T00:00:00Z__2026-01-02T00:00:00Z" == trigger.body["dag_run_id"]
    assert {"window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-02T00:00:00Z"} == trigger.body["conf"]
    assert str(trigger).startswith("POST /api/v2/dags/daily/dagRuns {")
