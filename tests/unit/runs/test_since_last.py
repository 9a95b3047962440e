# SPDX-License-Identifier: Apache-2.0
"""Windows that start at the end of the last success."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.exceptions import FlowRunActiveError, FlowRunOutcomeUnknownError, WindowError
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.runs.since_last import (
    extend_window,
    last_recorded_success,
    last_success,
    require_not_ingested,
)
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow

ENDED = {"success": FlowRunStatus.SUCCESS, "failed": FlowRunStatus.FAILED, "inProgress": FlowRunStatus.IN_PROGRESS}
ENDED["unclear"] = FlowRunStatus.ENDED_UNCLEAR


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=timezone.utc)


def run_of(first: int, last: int, status: str) -> FlowRun:
    return FlowRun(id=f"{first}-{last}", status=ENDED[status], window=IngestionWindow(day(first), day(last)))


def summary(end: int, status: str, flow_run_id: str = "x") -> FlowRunSummary:
    return FlowRunSummary(id=flow_run_id, status=status, window=IngestionWindow(day(end - 1), day(end)))


def never(flow_run_id: str) -> FlowRun:
    raise AssertionError(f"asked for {flow_run_id}")


@pytest.mark.parametrize("status", ["success", "partial_success"])
def test_known_success_is_not_requested(status):
    """Its end is where the next window begins."""
    assert day(6) == last_success([summary(6, status), summary(5, status)], get_run=never)


@pytest.mark.parametrize(("status", "expected"), [("success", day(7)), ("failed", day(6))])
def test_outcome_is_read_from_flow_service(status, expected):
    """The task may have ended before its flow run did."""
    found = last_success(
        [summary(7, "created", "7"), summary(6, "success")], get_run={"7": run_of(6, 7, status)}.__getitem__
    )
    assert expected == found


def test_active_run_is_an_error():
    """The run may still ingest its window."""
    with pytest.raises(FlowRunActiveError, match="2026-01-06T00:00:00Z/2026-01-07T00:00:00Z"):
        last_success([summary(7, "created", "7")], get_run={"7": run_of(6, 7, "inProgress")}.__getitem__)


def test_a_run_that_ended_without_a_status_is_an_error():
    """It may have ingested its window, so the next window cannot begin before or after it."""
    with pytest.raises(FlowRunOutcomeUnknownError, match="may have ingested 2026-01-06T00:00:00Z") as caught:
        last_success([summary(7, "ended_unclear", "7")], get_run={"7": run_of(6, 7, "unclear")}.__getitem__)
    assert "trigger the DAG manually" in caught.value.remedy
    with pytest.raises(FlowRunOutcomeUnknownError):
        require_not_ingested(PERIOD, [run_of(8, 11, "unclear")])


def test_a_success_without_a_window_is_an_error():
    """The end of its window is where the next window begins, so it must be known."""
    with pytest.raises(WindowError, match="the window of flow run x, the last success, is not known") as caught:
        last_success([FlowRunSummary(id="x", status="success"), summary(6, "success")], get_run=never)
    assert "trigger the DAG manually" in caught.value.remedy


PERIOD = IngestionWindow(day(9), day(10))


@pytest.mark.parametrize(
    ("end", "expected"),
    [(None, PERIOD), (day(6), IngestionWindow(day(6), day(10))), (day(9), PERIOD), (day(10), None), (day(12), None)],
)
def test_window_starts_at_the_end_of_the_last_success(end, expected):
    """It contains missing time, and never ingested time."""
    assert expected == extend_window(PERIOD, end=end)


@pytest.mark.parametrize("run", [run_of(8, 11, "success"), run_of(9, 10, "inProgress"), run_of(7, 8, "success")])
def test_runs_of_other_windows_and_of_the_same_window_are_allowed(run):
    """For example, a window that ends where this one begins."""
    window = run.window if run.id == "8-11" else IngestionWindow(day(9), day(10))
    assert None is require_not_ingested(window, [run, FlowRun(id="no window", status=FlowRunStatus.SUCCESS)])


@pytest.mark.parametrize(
    ("run", "error"),
    [(run_of(8, 10, "success"), WindowError), (run_of(9, 11, "inProgress"), FlowRunActiveError)],
)
def test_partly_ingested_window_is_an_error(run, error):
    """It would be duplicated; a failed run of the same time is ignored."""
    with pytest.raises(error) as caught:
        require_not_ingested(PERIOD, [run_of(8, 10, "failed"), run])
    assert run.id == caught.value.flow_run_id


KEY = DataflowKey("ORG@AdobeOrg", "prod", "flow")
OWN = "daily/own/ingest/-1"


def ledger_of(*entries: tuple[int, int, EntryState, str | None], owner: str = "daily/other/ingest/-1", **fields):
    """Return a ledger with entries `(first day, last day, state, flow run)` of January."""
    ledger = MemoryLedger()
    for first, last, state, flow_run_id in entries:
        window = IngestionWindow(day(first), day(last))
        ledger.put(
            LedgerEntry(dataflow=KEY, window=window, state=state, owner=owner, flow_run_id=flow_run_id, **fields)
        )
    return ledger


def recorded_end(ledger: MemoryLedger, *, get_run=never, period: tuple[int, int] = (25, 26)) -> datetime | None:
    window = IngestionWindow(day(period[0]), day(period[1]))
    return last_recorded_success(ledger, [KEY], period=window, owner=OWN, get_run=get_run)


@pytest.mark.parametrize("last", [2, 5, 12, 25, 26])
def test_ledger_has_the_last_success(last):
    """The window starts where the last ingested one ends, however long ago that is."""
    ledger = ledger_of((1, 2, EntryState.INGESTED, "a"), (last, last + 1, EntryState.INGESTED, "b"))
    assert min(day(last + 1), day(27)) == recorded_end(ledger, period=(26, 27))


def test_ledger_without_a_success():
    assert recorded_end(MemoryLedger()) is None
    assert recorded_end(ledger_of((3, 4, EntryState.CLAIMED, None))) is None
    assert recorded_end(ledger_of((25, 26, EntryState.INGESTED, "own"), owner=OWN)) is None
    assert recorded_end(ledger_of((27, 28, EntryState.INGESTED, "later"))) is None


def test_created_entry_is_read():
    """Its flow run decides; an active one is an error, since it may still ingest its window."""
    ledger = ledger_of((2, 3, EntryState.INGESTED, "a"), (5, 6, EntryState.CREATED, "b"))
    assert day(6) == recorded_end(ledger, get_run=lambda _: run_of(5, 6, "success"))
    assert day(3) == recorded_end(ledger, get_run=lambda _: run_of(5, 6, "failed"))
    with pytest.raises(FlowRunActiveError, match="may still ingest"):
        recorded_end(ledger, get_run=lambda _: run_of(5, 6, "inProgress"))


def test_window_that_is_being_restated_is_ingested():
    earlier = (EarlierRun(flow_run_id="old", replaced_at=1.0, replaced_by=OWN),)
    assert day(6) == recorded_end(ledger_of((5, 6, EntryState.CREATED, "new"), earlier=earlier))
