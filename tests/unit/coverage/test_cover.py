"""Coverage: windows asked for and flow runs that are known become spans, each with one state."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.coverage.cover import Asked, Coverage, KnownRun, State, cover, gaps, known_runs
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SUCCESS, FAILED, ACTIVE, UNKNOWN = (
    FlowRunStatus.SUCCESS,
    FlowRunStatus.FAILED,
    FlowRunStatus.IN_PROGRESS,
    FlowRunStatus.UNKNOWN,
)


def window(start: int, end: int | None = None) -> IngestionWindow:
    """Hours since the begin."""
    return IngestionWindow(BEGIN + start * HOUR, BEGIN + (start + 1 if end is None else end) * HOUR)


def asked(start: int, end: int | None = None, **fields: Any) -> Asked:
    return Asked(window=window(start, end), **fields)


def run(name: str, start: int | None = None, end: int | None = None, **fields: Any) -> KnownRun:
    fields.setdefault("status", SUCCESS)
    return KnownRun(id=name, window=None if start is None else window(start, end), **fields)


def told(coverage: Coverage) -> list[tuple[int, int, str]]:
    """Start and end in hours, and the state."""
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
            ([FAILED, FAILED, SUCCESS], "ingested"),
            ([FAILED, ACTIVE], "running"),
            ([FAILED, UNKNOWN], "unknown"),
            ([SUCCESS, ACTIVE], "running"),
            ([SUCCESS, UNKNOWN], "ingested"),
            ([SUCCESS, SUCCESS], "twice"),
            ([SUCCESS, SUCCESS, ACTIVE], "twice"),
        ],
    )
    def test_of_its_runs(self, statuses: list[FlowRunStatus], state: str) -> None:
        """Twice is told before all else; a run under way may yet make it so."""
        runs = [run(str(number), 0, status=status) for number, status in enumerate(statuses)]
        assert [(0, 1, state)] == told(cover([asked(0)], runs))

    @pytest.mark.parametrize(
        ("dag_run_state", "state"), [("queued", "running"), ("running", "running"), ("failed", "missing")]
    )
    def test_a_task_that_was_not_come_to_yet(self, dag_run_state: str, state: str) -> None:
        """While its DAG run goes on, it is on its way."""
        each = asked(0, dag_run_id="r", dag_run_state=dag_run_state)
        assert [(0, 1, state)] == told(cover([each], []))

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
    def test_of_its_task_when_there_is_no_run(self, task_state: str | None, state: str) -> None:
        """A task that succeeded without a flow run has not ingested anything."""
        assert [(0, 1, state)] == told(cover([asked(0, dag_run_id="r", task_state=task_state)], []))

    def test_a_task_that_goes_on_after_a_failed_run_is_running(self) -> None:
        """It is being tried again."""
        assert [(0, 1, "running")] == told(
            cover([asked(0, dag_run_id="r", task_state="up_for_retry")], [run("a", 0, status=FAILED)])
        )

    def test_a_task_that_failed_over_a_run_that_succeeded_is_in(self) -> None:
        """The data are there, whatever failed afterwards."""
        assert [(0, 1, "ingested")] == told(cover([asked(0, dag_run_id="r", task_state="failed")], [run("a", 0)]))

    def test_what_cannot_be_read_is_unknown(self) -> None:
        """Nobody can say that it is missing."""
        assert [(0, 1, "unknown")] == told(cover([asked(0, dag_run_id="r", task_state="success", readable=False)], []))

    def test_a_run_from_outside_is_in_but_not_ours(self) -> None:
        """With one of ours beside it, the window is in twice."""
        outside = run("b", 0, outside=True)
        assert [(0, 1, "outside")] == told(cover([asked(0)], [outside]))
        assert [(0, 1, "twice")] == told(cover([asked(0)], [run("a", 0), outside]))


class TestTimeLine:
    def test_windows_stay_apart(self) -> None:
        """Two windows that are in are two spans."""
        assert [(0, 1, "ingested"), (1, 2, "ingested")] == told(cover([asked(0), asked(1)], [run("a", 0), run("b", 1)]))

    def test_a_part_that_is_in_twice_is_told_by_itself(self) -> None:
        """Windows that overlap without being equal."""
        assert [(0, 2, "ingested"), (2, 3, "twice"), (3, 5, "ingested")] == told(
            cover([], [run("a", 0, 3), run("b", 2, 5)])
        )

    def test_time_that_nobody_asked_for_has_no_span(self) -> None:
        """There is nothing to say of it."""
        assert [(0, 1, "ingested"), (5, 6, "ingested")] == told(cover([], [run("a", 0), run("b", 5)]))

    def test_a_span_that_is_asked_for_as_a_whole_shows_its_gaps(self) -> None:
        """Without a DAG: the whole time is asked for."""
        assert [(0, 1, "ingested"), (1, 5, "missing"), (5, 6, "ingested")] == told(
            cover([asked(0, 6)], [run("a", 0), run("b", 5)])
        )

    def test_what_lies_outside_is_cut_off(self) -> None:
        """Whoever looks at a day sees that day."""
        coverage = cover([asked(0, 4), asked(9)], [run("a", 0, 4), run("b", 6, 8)], within=window(2, 7))
        assert [(2, 4, "ingested"), (6, 7, "ingested")] == told(coverage)

    def test_the_schedule_gives_way_to_the_dag_run(self) -> None:
        """Whoever looks at a window wants to see the run that has it."""
        (span,) = cover([asked(0, dag_id="d"), asked(0, dag_id="d", dag_run_id="r")], []).spans
        assert ["r"] == [each.dag_run_id for each in span.asked]

    def test_runs_without_a_window_are_told_apart(self) -> None:
        """Nobody knows what they hold."""
        assert ["a"] == [each.id for each in cover([asked(0)], [run("a")]).unplaced]


class TestGaps:
    def test_neighbours_are_one_gap(self) -> None:
        """Missing and failed alike; a window that is in parts them."""
        runs = [run("a", 1, status=FAILED), run("b", 3)]
        found = gaps(cover([asked(number) for number in range(6)], runs))
        assert [[0, 1, 2], [4, 5]] == [[(s.window.start - BEGIN) // HOUR for s in group] for group in found]

    @pytest.mark.parametrize("state", [State.MISSING, State.FAILED, State.TWICE])
    def test_it_is_whole_without_them(self, state: State) -> None:
        """And without anything that is in twice."""
        runs = {
            State.MISSING: [],
            State.FAILED: [run("a", 1, status=FAILED)],
            State.TWICE: [run("a", 1), run("b", 1)],
        }[state]
        ok = run("ok", 0)
        assert cover([asked(0)], [ok]).whole
        assert not cover([asked(0), asked(1)], [ok, *runs]).whole


class TestKnownRuns:
    def test_the_service_knows_the_status_better(self) -> None:
        """And the task knows the window that it asked for, whatever the service shows."""
        found = FlowRun(id="a", status=FAILED, output_records=7, window=IngestionWindow(BEGIN, BEGIN + HOUR))
        (known,) = known_runs([_summary("a", 5, "created")], [found])
        assert (window(5), FAILED, 7, False) == (known.window, known.status, known.records, known.outside)

    @pytest.mark.parametrize("order", [1, -1])
    def test_the_sensor_knows_the_status_better_than_who_created(self, order: int) -> None:
        """In whatever order they are read."""
        (known,) = known_runs([_summary("a", 0, "created"), _summary("a", None, "success")][::order])
        assert (window(0), SUCCESS) == (known.window, known.status)

    def test_one_that_only_the_service_has_was_made_outside(self) -> None:
        """By hand, by another tool, or by a task that was cleared since."""
        (known,) = known_runs([], [FlowRun(id="a", status=SUCCESS)])
        assert (True, None) == (known.outside, known.window)


_hours = st.integers(0, 20)
_windows = st.tuples(_hours, st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
_runs = st.lists(st.tuples(_windows, st.sampled_from([SUCCESS, FAILED, ACTIVE, UNKNOWN]), st.booleans()), max_size=8)


@given(wanted=st.lists(_windows, max_size=8), had=_runs)
def test_every_moment_is_told_as_by_counting(wanted: list[tuple[int, int]], had: Any) -> None:
    """Hour by hour, against the definition."""
    runs = [
        run(str(number), *span, status=status, outside=outside) for number, (span, status, outside) in enumerate(had)
    ]
    spans = told(cover([asked(*each) for each in wanted], runs))
    for hour in range(27):
        here = [r for r, (span, _, _) in zip(runs, had, strict=True) if span[0] <= hour < span[1]]
        by_hour = [state for start, end, state in spans if start <= hour < end]
        assert len(by_hour) == int(bool(here) or any(start <= hour < end for start, end in wanted))
        successes = [each for each in here if each.status is SUCCESS]
        assert ("twice" in by_hour) == (len(successes) > 1)
        if by_hour and not here:
            assert ["missing"] == by_hour


@given(wanted=st.lists(_windows, max_size=8), had=_runs)
def test_spans_are_in_order_and_apart(wanted: list[tuple[int, int]], had: Any) -> None:
    """And their lengths are those of the totals."""
    runs = [run(str(number), *span, status=status) for number, (span, status, _) in enumerate(had)]
    coverage = cover([asked(*each) for each in wanted], runs)
    windows = [span.window for span in coverage.spans]
    assert windows == sorted(windows)
    assert not any(one.overlaps(other) for one, other in pairwise(windows))
    assert sum(each.seconds for each in windows) == sum(total.seconds for total in coverage.totals.values())


def _summary(name: str, start: int | None, status: str) -> FlowRunSummary:
    return FlowRunSummary(id=name, status=status, window=None if start is None else window(start))
