"""Windows that start at the end of the last success."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.exceptions import FlowRunActiveError, FlowRunOutcomeUnknownError, WindowError
from airflow_flowservice.runs.since_last import extend_window, last_success, require_not_ingested
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
