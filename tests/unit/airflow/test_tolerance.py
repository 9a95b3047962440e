# SPDX-License-Identifier: Apache-2.0
"""Successful runs that a task accepts: by failed records, by their share, and by `on_empty`."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice._airflow.tolerance import Tolerance
from airflow_flowservice.exceptions import FlowRunEmptyError, FlowRunIncompleteError
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow

WINDOW = "2026-01-30T00:00:00Z/2026-01-31T00:00:00Z"
COUNTS = st.integers(min_value=0, max_value=10**12)
MAYBE = st.none() | COUNTS


def summary(
    *, read: int | None = None, written: int | None = None, failed: int | None = None, status: str = "success"
) -> FlowRunSummary:
    return FlowRunSummary(
        id="run-1",
        flow_id="flow-1",
        status=status,
        window=IngestionWindow.parse(WINDOW),
        input_records=read,
        output_records=written,
        failed_records=failed,
        url="https://experience.adobe.com/run-1",
    )


class TestRatio:
    @given(failed=MAYBE, read=MAYBE, written=MAYBE)
    def test_ratio_is_between_0_and_1_or_unknown(
        self, failed: int | None, read: int | None, written: int | None
    ) -> None:
        """It is unknown only if a needed count is unknown."""
        ratio = summary(failed=failed, read=read, written=written).failed_ratio
        unknown = failed is None or (failed > 0 and read is None and written is None)
        assert unknown == (ratio is None)
        assert ratio is None or 0.0 <= ratio <= 1.0

    @given(good=COUNTS, failed=COUNTS)
    def test_sum_of_written_and_failed_replaces_an_unknown_input(self, good: int, failed: int) -> None:
        """Both calculations give the same ratio."""
        known = summary(failed=failed, read=good + failed).failed_ratio
        assert known == summary(failed=failed, written=good).failed_ratio

    @given(failed=st.integers(0, 10**6), more=st.integers(0, 10**6), read=st.integers(1, 10**6))
    def test_ratio_grows_with_failures(self, failed: int, more: int, read: int) -> None:
        """A higher limit never refuses what a lower one accepts."""
        fewer, many = (summary(failed=count, read=read).failed_ratio for count in (failed, failed + more))
        assert fewer is not None
        assert many is not None
        assert fewer <= many

    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ({"failed": 5, "read": 100, "written": 90}, 0.05),
            ({"failed": 5, "written": 95}, 0.05),
            ({"failed": 0}, 0.0),
            ({"failed": 0, "read": 0}, 0.0),
            ({"failed": 3, "read": 0}, 1.0),
            ({"failed": 3, "written": 0}, 1.0),
            ({"failed": 3}, None),
            ({"read": 100, "written": 95}, None),
        ],
    )
    def test_examples(self, counts: dict[str, int], expected: float | None) -> None:
        """The ratio is not estimated from differences of counts."""
        assert expected == summary(**counts).failed_ratio


class TestLimits:
    @given(failed=COUNTS, limit=COUNTS)
    def test_max_failed_records_is_inclusive(self, failed: int, limit: int) -> None:
        """As many as the limit are accepted, one more is not."""
        assert (failed <= limit) == is_accepted(
            Tolerance(max_failed_records=limit), summary(failed=failed, read=failed)
        )

    @given(failed=COUNTS, good=COUNTS, limit=st.floats(0, 1))
    def test_max_failed_ratio_is_inclusive(self, failed: int, good: int, limit: float) -> None:
        """A share equal to the limit is accepted."""
        found = summary(failed=failed, read=failed + good, status="partial_success")
        assert ((found.failed_ratio or 0.0) <= limit) == is_accepted(Tolerance(max_failed_ratio=limit), found)

    @given(failed=MAYBE, read=MAYBE, status=st.sampled_from(["success", "partial_success"]))
    def test_without_limits_everything_is_accepted(self, failed: int | None, read: int | None, status: str) -> None:
        """By default, Adobe's status decides."""
        assert is_accepted(Tolerance(), summary(failed=failed, read=read, status=status))

    @pytest.mark.parametrize("limit", [{"max_failed_records": 10}, {"max_failed_ratio": 0.1}])
    def test_success_without_a_count_is_accepted(self, limit: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
        """Adobe reports a full success; the log has a warning."""
        caplog.set_level(logging.WARNING)
        assert is_accepted(Tolerance(**limit), summary(read=5))
        [line] = caplog.messages
        assert f"does not report how many records failed; assuming that {next(iter(limit))}" in line

    @pytest.mark.parametrize("limit", [{"max_failed_records": 10}, {"max_failed_ratio": 0.1}])
    def test_partial_success_without_a_count_is_refused(self, limit: dict[str, Any]) -> None:
        """Some records failed, and their number is unknown."""
        with pytest.raises(FlowRunIncompleteError, match=f"it is not known whether {next(iter(limit))}, .* is kept"):
            Tolerance(**limit).require(summary(status="partial_success"))

    @pytest.mark.parametrize("status", ["success", "partial_success"])
    def test_unknown_ratio_of_failed_records_is_refused(self, status: str) -> None:
        """Some records failed, and the total is unknown."""
        with pytest.raises(FlowRunIncompleteError, match="3 records failed, of an unknown number, so it is not known"):
            Tolerance(max_failed_ratio=0.1).require(summary(status=status, failed=3))

    def test_incomplete_error_has_counts_limit_and_run(self) -> None:
        """The message is enough to decide what to do."""
        with pytest.raises(FlowRunIncompleteError) as caught:
            Tolerance(max_failed_records=3).require(summary(failed=5, read=1440, written=1435))
        error = caught.value
        expected = "5 records failed, a share of 0.00347222 (1,440 read, 1,435 written), over max_failed_records, 3"
        assert expected == error.message
        fields = (error.flow_id, error.window, error.flow_run_id, error.url, error.retryable)
        assert ("flow-1", WINDOW, "run-1", "https://experience.adobe.com/run-1", False) == fields
        assert "the valid records are duplicated" in (error.remedy or "")

    def test_derived_failures_are_marked(self) -> None:
        """A number that Flow Service does not report is compared, and the message states its source."""
        found = replace(summary(read=100, written=70, failed=30), failed_records_derived=True)
        with pytest.raises(
            FlowRunIncompleteError, match="30 records failed \\(derived from the other counts\\), a share"
        ):
            Tolerance(max_failed_records=29).require(found)
        assert is_accepted(Tolerance(max_failed_records=30), found)


class TestEmpty:
    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ({"read": 0}, True),
            ({"read": 0, "written": 0, "failed": 0}, True),
            ({"written": 0}, True),
            ({"read": 7, "written": 0, "failed": 0}, True),
            ({}, False),
            ({"failed": 0}, False),
            ({"read": 7}, False),
            ({"read": 0, "written": 7}, False),
            ({"read": 7, "written": 0, "failed": 7}, False),
            ({"written": 0, "status": "partial_success"}, False),
        ],
    )
    def test_empty_runs(self, counts: dict[str, Any], expected: bool) -> None:
        """Unknown counts are not zero, and a run whose records all failed is not empty."""
        assert expected == summary(**counts).is_empty

    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ({"output_bytes": 0, "output_files": 0}, True),
            ({"input_bytes": 0, "output_bytes": 0, "input_files": 1, "output_files": 0}, True),
            ({"input_bytes": 0, "input_files": 0}, True),
            ({"input_bytes": 0}, False),
            ({"output_files": 0}, False),
            ({"input_bytes": 7, "output_bytes": 0, "output_files": 1}, False),
            ({"output_bytes": 0, "output_files": 0, "input_records": 3}, False),
            ({"output_bytes": 0, "output_files": 0, "failed_records": 3}, False),
            ({"input_records": 1, "output_records": 0, "updated_records": 1}, False),
            ({"output_records": 0, "deleted_records": 1}, False),
            ({"output_records": 0, "updated_records": 0, "deleted_records": 0}, True),
            ({"input_records": 3, "output_records": 0, "skipped_records": 3}, True),
        ],
    )
    def test_empty_runs_by_other_counts(self, counts: dict[str, int], expected: bool) -> None:
        """Bytes and files decide only without counts of records; updated and deleted records are records."""
        assert expected == FlowRunSummary(id="run-1", status="success", **counts).is_empty

    @pytest.mark.parametrize(("on_empty", "expected"), [("succeed", True), ("skip", False), ("fail", False)])
    def test_on_empty(self, on_empty: str, expected: bool) -> None:
        """Only `succeed` accepts an empty run; the task turns the error into a skip."""
        assert expected == is_accepted(Tolerance(on_empty=on_empty), summary(read=0))
        assert is_accepted(Tolerance(on_empty=on_empty), summary(read=1))

    def test_empty_error_has_the_run(self) -> None:
        """It has flow, window and page, and is not retryable."""
        with pytest.raises(FlowRunEmptyError) as caught:
            Tolerance(on_empty="fail").require(summary(read=0))
        error = caught.value
        assert ("flow-1", WINDOW, "run-1", False) == (error.flow_id, error.window, error.flow_run_id, error.retryable)


def is_accepted(tolerance: Tolerance, found: FlowRunSummary) -> bool:
    try:
        tolerance.require(found)
    except (FlowRunIncompleteError, FlowRunEmptyError):
        return False
    return True
