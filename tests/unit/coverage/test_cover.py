# SPDX-License-Identifier: Apache-2.0
"""Verify that expected windows and known flow runs become spans with one state each."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, KnownRun, State, cover, gaps, known_runs
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SUCCESS, FAILED, ACTIVE, UNKNOWN, UNCLEAR = (
    FlowRunStatus.SUCCESS,
    FlowRunStatus.FAILED,
    FlowRunStatus.IN_PROGRESS,
    FlowRunStatus.UNKNOWN,
    FlowRunStatus.ENDED_UNCLEAR,
)


def window(start: int, end: int | None = None) -> IngestionWindow:
    """Create a window from hours since the begin."""
    return IngestionWindow(BEGIN + start * HOUR, BEGIN + (start + 1 if end is None else end) * HOUR)


def expected(start: int, end: int | None = None, **fields: Any) -> ExpectedWindow:
    return ExpectedWindow(window=window(start, end), **fields)


def run(name: str, start: int | None = None, end: int | None = None, **fields: Any) -> KnownRun:
    fields.setdefault("status", SUCCESS)
    return KnownRun(id=name, window=None if start is None else window(start, end), **fields)


def states(coverage: Coverage) -> list[tuple[int, int, str]]:
    """Return start and end in hours, and the state of each span."""
    edges = [((s.window.start - BEGIN) // HOUR, (s.window.end - BEGIN) // HOUR) for s in coverage.spans]
    return [(*edge, span.state.value) for edge, span in zip(edges, coverage.spans, strict=True)]


class TestState:
    @pytest.mark.parametrize(
        ("statuses", "state"),
        [
            ([], "missing"),
            ([SUCCESS], "ingested"),
            ([FlowRunStatus.PARTIAL_SUCCESS], "ingested"),
            ([FAILED], "failed"),
            ([ACTIVE], "running"),
            ([FlowRunStatus.SCHEDULED], "running"),
            ([UNKNOWN], "unknown"),
            ([UNCLEAR], "unknown"),
            ([UNCLEAR, FAILED], "unknown"),
            ([UNCLEAR, ACTIVE], "running"),
            ([UNCLEAR, SUCCESS], "ingested"),
            ([FAILED, FAILED, SUCCESS], "ingested"),
            ([FAILED, ACTIVE], "running"),
            ([FAILED, UNKNOWN], "unknown"),
            ([SUCCESS, ACTIVE], "running"),
            ([SUCCESS, UNKNOWN], "ingested"),
            ([SUCCESS, SUCCESS], "twice"),
            ([SUCCESS, SUCCESS, ACTIVE], "twice"),
        ],
    )
    def test_state_from_flow_runs(self, statuses: list[FlowRunStatus], state: str) -> None:
        """A duplicated window stays duplicated; an active run has precedence over one success."""
        runs = [run(str(number), 0, status=status) for number, status in enumerate(statuses)]
        assert [(0, 1, state)] == states(cover([expected(0)], runs))

    @pytest.mark.parametrize(
        ("dag_run_state", "state"), [("queued", "running"), ("running", "running"), ("failed", "missing")]
    )
    def test_task_that_has_not_started(self, dag_run_state: str, state: str) -> None:
        """The window is running while the DAG run is active."""
        each = expected(0, dag_run_id="r", dag_run_state=dag_run_state)
        assert [(0, 1, state)] == states(cover([each], []))

    @pytest.mark.parametrize(
        ("task_state", "state"),
        [
            (None, "missing"),
            ("success", "missing"),
            ("skipped", "missing"),
            ("removed", "missing"),
            ("failed", "failed"),
            ("upstream_failed", "failed"),
            ("queued", "running"),
            ("deferred", "running"),
            ("up_for_retry", "running"),
        ],
    )
    def test_state_from_the_task_without_flow_run(self, task_state: str | None, state: str) -> None:
        """A task that succeeded without a flow run has not ingested anything."""
        assert [(0, 1, state)] == states(cover([expected(0, dag_run_id="r", task_state=task_state)], []))

    def test_retrying_task_after_failed_run_is_running(self) -> None:
        """The task is about to retry."""
        assert [(0, 1, "running")] == states(
            cover([expected(0, dag_run_id="r", task_state="up_for_retry")], [run("a", 0, status=FAILED)])
        )

    def test_failed_task_with_successful_run_is_ingested(self) -> None:
        """The data is ingested even if the task failed afterwards."""
        assert [(0, 1, "ingested")] == states(cover([expected(0, dag_run_id="r", task_state="failed")], [run("a", 0)]))

    def test_unreadable_xcom_is_unknown(self) -> None:
        """A window with an unreadable XCom may be ingested."""
        assert [(0, 1, "unknown")] == states(
            cover([expected(0, dag_run_id="r", task_state="success", readable=False)], [])
        )

    def test_external_run_is_outside(self) -> None:
        """With a successful run of a task, the window is duplicated."""
        outside = run("b", 0, outside=True)
        assert [(0, 1, "outside")] == states(cover([expected(0)], [outside]))
        assert [(0, 1, "twice")] == states(cover([expected(0)], [run("a", 0), outside]))


class TestTimeLine:
    def test_adjacent_windows_stay_separate(self) -> None:
        """Two contiguous ingested windows are two spans."""
        assert [(0, 1, "ingested"), (1, 2, "ingested")] == states(
            cover([expected(0), expected(1)], [run("a", 0), run("b", 1)])
        )

    def test_overlap_is_a_separate_span(self) -> None:
        """Only the common part of two windows is duplicated."""
        assert [(0, 2, "ingested"), (2, 3, "twice"), (3, 5, "ingested")] == states(
            cover([], [run("a", 0, 3), run("b", 2, 5)])
        )

    def test_unexpected_time_has_no_span(self) -> None:
        """Time that is neither expected nor ingested has no state."""
        assert [(0, 1, "ingested"), (5, 6, "ingested")] == states(cover([], [run("a", 0), run("b", 5)]))

    def test_long_expected_window_has_gaps(self) -> None:
        """Without a DAG, the whole range is expected as one window."""
        assert [(0, 1, "ingested"), (1, 5, "missing"), (5, 6, "ingested")] == states(
            cover([expected(0, 6)], [run("a", 0), run("b", 5)])
        )

    def test_spans_are_cut_to_the_range(self) -> None:
        """The coverage of a range has no time outside it."""
        coverage = cover([expected(0, 4), expected(9)], [run("a", 0, 4), run("b", 6, 8)], within=window(2, 7))
        assert [(2, 4, "ingested"), (6, 7, "ingested")] == states(coverage)

    def test_dag_run_replaces_the_schedule(self) -> None:
        """If a DAG run expects the window, the span has only the DAG run."""
        (span,) = cover([expected(0, dag_id="d"), expected(0, dag_id="d", dag_run_id="r")], []).spans
        assert ["r"] == [each.dag_run_id for each in span.expected]

    def test_runs_without_a_window_are_separate(self) -> None:
        """A run without a known window belongs to no span."""
        assert ["a"] == [each.id for each in cover([expected(0)], [run("a")]).unplaced]


class TestGaps:
    def test_contiguous_spans_are_one_gap(self) -> None:
        """A gap has missing and failed spans; an ingested window separates two gaps."""
        runs = [run("a", 1, status=FAILED), run("b", 3)]
        found = gaps(cover([expected(number) for number in range(6)], runs))
        assert [[0, 1, 2], [4, 5]] == [[(s.window.start - BEGIN) // HOUR for s in group] for group in found]

    @pytest.mark.parametrize("state", [State.MISSING, State.FAILED, State.DUPLICATED])
    def test_coverage_is_whole_without_gaps_and_duplicates(self, state: State) -> None:
        """A missing, failed or duplicated window makes the coverage incomplete."""
        runs = {
            State.MISSING: [],
            State.FAILED: [run("a", 1, status=FAILED)],
            State.DUPLICATED: [run("a", 1), run("b", 1)],
        }[state]
        ok = run("ok", 0)
        assert cover([expected(0)], [ok]).whole
        assert not cover([expected(0), expected(1)], [ok, *runs]).whole


class TestKnownRuns:
    def test_status_is_from_flow_service(self) -> None:
        """The window is from the task, even if Flow Service reports another one."""
        found = FlowRun(id="a", status=FAILED, output_records=7, window=IngestionWindow(BEGIN, BEGIN + HOUR))
        (known,) = known_runs([_summary("a", 5, "created")], [found])
        assert (window(5), FAILED, 7, False) == (known.window, known.status, known.records, known.outside)

    @pytest.mark.parametrize("order", [1, -1])
    def test_status_is_from_the_sensor(self, order: int) -> None:
        """The sensor's status replaces that of the creating task, in any order of the XComs."""
        (known,) = known_runs([_summary("a", 0, "created"), _summary("a", None, "success")][::order])
        assert (window(0), SUCCESS) == (known.window, known.status)

    @pytest.mark.parametrize("status", ["success", "failed"])
    def test_an_unclear_end_replaces_no_known_end(self, status: str) -> None:
        """A known end of one source is more certain, whichever source has it."""
        unclear = FlowRun(id="a", status=UNCLEAR)
        (known,) = known_runs([_summary("a", 0, status)], [unclear])
        assert status == known.status.value
        (known,) = known_runs([_summary("a", 0, "ended_unclear")], [FlowRun(id="a", status=FlowRunStatus(status))])
        assert status == known.status.value

    def test_an_unclear_end_replaces_an_unread_status(self) -> None:
        (known,) = known_runs([_summary("a", 0, "created"), _summary("a", None, "ended_unclear")])
        assert UNCLEAR is known.status

    def test_run_only_at_flow_service_is_outside(self) -> None:
        """Another client, or a task that was cleared since, created the run."""
        (known,) = known_runs([], [FlowRun(id="a", status=SUCCESS)])
        assert (True, None) == (known.outside, known.window)


_hours = st.integers(0, 20)
_windows = st.tuples(_hours, st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
_runs = st.lists(st.tuples(_windows, st.sampled_from([SUCCESS, FAILED, ACTIVE, UNKNOWN]), st.booleans()), max_size=8)


@given(requested=st.lists(_windows, max_size=8), existing=_runs)
def test_spans_agree_with_counting_by_hour(requested: list[tuple[int, int]], existing: Any) -> None:
    """The state of each hour agrees with the definition."""
    runs = [
        run(str(number), *span, status=status, outside=outside)
        for number, (span, status, outside) in enumerate(existing)
    ]
    spans = states(cover([expected(*each) for each in requested], runs))
    for hour in range(27):
        here = [r for r, (span, _, _) in zip(runs, existing, strict=True) if span[0] <= hour < span[1]]
        by_hour = [state for start, end, state in spans if start <= hour < end]
        assert len(by_hour) == int(bool(here) or any(start <= hour < end for start, end in requested))
        successes = [each for each in here if each.status is SUCCESS]
        assert ("twice" in by_hour) == (len(successes) > 1)
        if by_hour and not here:
            assert ["missing"] == by_hour


@given(requested=st.lists(_windows, max_size=8), existing=_runs)
def test_spans_are_sorted_without_overlaps(requested: list[tuple[int, int]], existing: Any) -> None:
    """The lengths of the spans add up to the totals."""
    runs = [run(str(number), *span, status=status) for number, (span, status, _) in enumerate(existing)]
    coverage = cover([expected(*each) for each in requested], runs)
    windows = [span.window for span in coverage.spans]
    assert windows == sorted(windows)
    assert not any(one.overlaps(other) for one, other in pairwise(windows))
    assert sum(each.seconds for each in windows) == sum(total.seconds for total in coverage.totals.values())


@given(requested=st.lists(_windows, max_size=8), existing=_runs, most=st.integers(1, 3))
def test_limit_of_entries_changes_no_state(requested: list[tuple[int, int]], existing: Any, most: int) -> None:
    """Each span has the first entries, and the number of the others."""
    runs = [run(str(number), *span, status=status) for number, (span, status, _) in enumerate(existing)]
    windows = [expected(*each, dag_run_id=str(number)) for number, each in enumerate(requested)]
    for whole, limited in zip(cover(windows, runs).spans, cover(windows, runs, most_entries=most).spans, strict=True):
        assert (whole.window, whole.state) == (limited.window, limited.state)
        assert (whole.expected[:most], whole.runs[:most]) == (limited.expected, limited.runs)
        assert len(whole.expected) == len(limited.expected) + limited.more_expected
        assert len(whole.runs) == len(limited.runs) + limited.more_runs


def test_nested_windows_have_a_linear_number_of_entries() -> None:
    """Twice the number of month-to-date windows has twice the number of entries, not four times."""

    def entries(count: int) -> int:
        spans = cover([], [run(f"{n:05}", 0, n + 1) for n in range(count)], most_entries=20).spans
        assert [count - 1 - n for n in range(count)] == [len(each.runs) + each.more_runs - 1 for each in spans]
        return sum(len(each.runs) for each in spans)

    assert entries(2000) <= 2.1 * entries(1000)


def _summary(name: str, start: int | None, status: str) -> FlowRunSummary:
    return FlowRunSummary(id=name, status=status, window=None if start is None else window(start))


@pytest.mark.parametrize("derived", [True, False])
def test_derived_counts_stay_marked(derived: bool) -> None:
    """The mark belongs to the record whose count is used, from XComs and from Flow Service."""
    pushed = FlowRunSummary(id="run", status="success", failed_records=3, failed_records_derived=derived)
    without_count = KnownRun(id="run", status=FlowRunStatus.SUCCESS)
    (joined,) = known_runs([pushed], recorded=[without_count])
    assert (3, derived) == (joined.failed_records, joined.failed_records_derived)
    found = FlowRun(id="run", failed_records=3, failed_records_derived=derived)
    (listed,) = known_runs([], [found])
    assert (3, derived) == (listed.failed_records, listed.failed_records_derived)
