# SPDX-License-Identifier: Apache-2.0
"""Times and errors of flow runs in shapes that Adobe's pages do not show."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus

DAY = datetime(2026, 1, 2, tzinfo=timezone.utc)


def run_of(**summaries):
    return FlowRun.parse({"id": "run-1", "metrics": summaries})


@pytest.mark.parametrize(
    "instant",
    [1767312000, 1767312000000, 1767312000000000, "2026-01-02T00:00:00Z", "2026-01-02T01:00:00.000+01:00"],
    ids=str,
)
def test_run_that_has_ended_is_not_scheduled(instant):
    """A completion time in any unit or as ISO 8601 ends the wait for a flow run without a status."""
    run = run_of(durationSummary={"completedAtUTC": instant})
    assert (FlowRunStatus.ENDED_UNCLEAR, DAY) == (run.status, run.completed_at)


@pytest.mark.parametrize(
    "instant",
    [
        "2026-01-02T00:00:00",
        "2026-01-02",
        "2026-13-02T00:00:00Z",
        "1969-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:00",
        10**17,
    ],
    ids=str,
)
def test_unreadable_instant_is_none(instant):
    """Without an offset, a time could be in any time zone."""
    assert None is run_of(durationSummary={"completedAtUTC": instant}).completed_at


def test_window_as_iso_8601():
    """The window is recognized, so that a lost flow run is found."""
    params = {"windowStartTime": "2026-01-01T00:00:00Z", "windowEndTime": "2026-01-02T00:00:00.000Z"}
    run = FlowRun.parse({"id": "run-1", "params": params})
    assert "2026-01-01T00:00:00Z/2026-01-02T00:00:00Z" == str(run.window)


@pytest.mark.parametrize(
    ("errors", "texts"),
    [
        ([{"code": "C-1", "message": ["disk full", "job aborted"]}], ["C-1: disk full; job aborted"]),
        ([{"code": "C-1", "detail": "disk full"}], ["C-1: disk full"]),
        ([{"error_code": "C-1", "error_description": "disk full"}], ["C-1: disk full"]),
        ([{"title": "disk full"}], ["disk full"]),
        ([{"error": {"code": "C-1", "message": "disk full"}}], ["C-1: disk full"]),
        ({"errors": [{"code": "C-1", "message": "a"}, {"code": "C-2", "message": "b"}]}, ["C-1: a", "C-2: b"]),
        ({"CONNECTOR-1001-500": "disk full"}, ["CONNECTOR-1001-500: disk full"]),
        ({"CONNECTOR-1001-500": {"message": "disk full"}}, ["CONNECTOR-1001-500: disk full"]),
        ([{"code": "C-1", "message": {"text": "disk full"}}], ["C-1: no message"]),
        ({"name": "disk", "count": 3}, []),
        ([[[[{"message": "too deep"}]]]], []),
        ([{"error": {"error": {"error": {"error": {"message": "too deep"}}}}}], []),
    ],
    ids=str,
)
def test_errors_in_other_shapes(errors, texts):
    """The useful sentence is in the message of the failed task."""
    assert texts == [str(each) for each in run_of(statusSummary={"status": "failed", "errors": errors}).errors]
