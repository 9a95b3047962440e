# SPDX-License-Identifier: Apache-2.0
"""Verify the summary of a dataflow: its lag, its counts, its bar and its place among the others."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, KnownRun, State, cover
from airflow_flowservice.coverage.fleet import (
    BAR_CELLS,
    DagStatus,
    DataflowStatus,
    complete_until,
    dataflow_status,
    merged_runs,
    worst_first,
)
from airflow_flowservice.ledger.entry import DataflowKey
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
KEY = DataflowKey("ORG@AdobeOrg", "prod", "orders")
NOW = BEGIN + 10 * HOUR
RANGE = IngestionWindow(BEGIN, NOW)
WINDOWS = st.builds(
    lambda start, length: window(start, start + length), st.integers(0, 30), st.integers(1, 6) | st.just(1)
)


def window(start: int, end: int | None = None) -> IngestionWindow:
    """Create a window from hours since the begin."""
    return IngestionWindow(BEGIN + start * HOUR, BEGIN + (start + 1 if end is None else end) * HOUR)


def run(index: int, of: IngestionWindow, status: FlowRunStatus = FlowRunStatus.SUCCESS) -> KnownRun:
    return KnownRun(id=str(index), window=of, status=status)


def covered(*ingested: int, expected: range = range(10), **reasons: str) -> Coverage:
    """Return the coverage of expected hours, of which some are ingested; `h3="reason"` makes one unknown."""
    windows = [ExpectedWindow(window=window(hour), reason=reasons.get(f"h{hour}")) for hour in expected]
    return cover(windows, [run(hour, window(hour)) for hour in ingested])


def status(coverage: Coverage, **fields: Any) -> DataflowStatus:
    return dataflow_status(KEY, coverage, **{"within": RANGE, "now": NOW, "last": None, **fields})


def states_by_hour(coverage: Coverage) -> list[State | None]:
    """Return the state of each hour; each span has whole hours."""
    states: list[State | None] = [None] * 40
    for span in coverage.spans:
        for hour in range((span.window.start - BEGIN) // HOUR, (span.window.end - BEGIN) // HOUR):
            states[hour] = span.state
    return states


@given(st.lists(WINDOWS, max_size=12), st.lists(WINDOWS, max_size=12), st.lists(WINDOWS, max_size=4))
def test_merged_runs_have_the_same_coverage(
    ingested: list[IngestionWindow], expected: list[IngestionWindow], failed: list[IngestionWindow]
) -> None:
    """Each instant has the same state, and the number of windows that are not ingested exactly once stays the same."""
    windows = [ExpectedWindow(window=each) for each in expected]
    others = [run(1000 + index, each, FlowRunStatus.FAILED) for index, each in enumerate(failed)]
    plain = cover(windows, [*(run(index, each) for index, each in enumerate(ingested)), *others])
    merged = cover(windows, [*merged_runs(ingested), *others])
    assert states_by_hour(plain) == states_by_hour(merged)
    for state in (State.MISSING, State.DUPLICATED):
        assert plain.totals[state].seconds == merged.totals[state].seconds
    if not failed:
        assert plain.totals[State.MISSING].spans == merged.totals[State.MISSING].spans
        assert plain.totals[State.DUPLICATED].spans == merged.totals[State.DUPLICATED].spans


@given(st.integers(2, 400))
def test_contiguous_windows_are_one_run(number: int) -> None:
    assert [window(0, number)] == [each.window for each in merged_runs(map(window, range(number)))]


class TestLag:
    @pytest.mark.parametrize(
        ("ingested", "until"),
        [(range(10), 10), (range(4), 4), ([0, 1, 2, 5, 6], 3), ([2, 3], 0), ([], 0)],
        ids=["whole", "behind", "gap", "gap first", "nothing"],
    )
    def test_gap_ends_the_ingested_time(self, ingested: list[int], until: int) -> None:
        assert BEGIN + until * HOUR == complete_until(covered(*ingested).spans)
        assert (10 - until) * HOUR == status(covered(*ingested)).lag

    def test_unknown_begin_does_not_count(self) -> None:
        """Airflow's history of that time may have been deleted. Later, an unknown window is a gap."""
        unknown = {f"h{hour}": "deleted" for hour in range(3)}
        assert BEGIN + 10 * HOUR == complete_until(covered(*range(3, 10), **unknown).spans)
        assert BEGIN + 5 * HOUR == complete_until(covered(3, 4, *range(6, 10), **unknown, h5="deleted").spans)

    def test_time_that_was_not_requested_is_no_gap(self) -> None:
        assert BEGIN + 10 * HOUR == complete_until(covered(0, 1, 8, 9, expected=range(0)).spans)

    def test_ingested_before_the_range(self) -> None:
        """The lag of a dataflow whose DAG was deleted grows."""
        before = IngestionWindow(BEGIN - 50 * HOUR, BEGIN - 49 * HOUR)
        assert 59 * HOUR == status(cover([], []), last=before).lag

    def test_never_ingested(self) -> None:
        """A note explains the lag, or that there is none."""
        due, unknown, new = (
            status(covered()),
            status(covered(**{f"h{hour}": "deleted" for hour in range(10)})),
            status(cover([], [])),
        )
        assert (10 * HOUR, None, None) == (due.lag, unknown.lag, new.lag)
        assert "never ingested; the lag counts from" in due.lag_note
        assert "no record shows" in unknown.lag_note
        assert "no window was due" in new.lag_note
        assert [True, True, False] == [each.is_late(HOUR) for each in (due, unknown, new)]

    def test_schedule_that_cannot_be_decoded(self) -> None:
        """A dataflow that was never ingested is not fresh only because its missing windows are not known."""
        dags = [DagStatus(dag_id="a"), DagStatus(dag_id="b", is_decoded=False)]
        row = status(cover([], []), dags=dags)
        assert (None, True, ["b"]) == (row.lag, row.is_late(HOUR), row.to_json()["undecoded_schedules"])
        assert row.lag_note.startswith("never ingested; missing windows are not known")
        assert "DAG b " in row.lag_note
        deleted = status(cover([], []), dags=[DagStatus(dag_id="b", is_decoded=False, is_stale=True)])
        assert (False, []) == (deleted.is_late(HOUR), deleted.to_json()["undecoded_schedules"])

    def test_limit_of_the_lag(self) -> None:
        row = status(covered(*range(4)))
        assert (False, True) == (row.is_late(6 * HOUR), row.is_late(6 * HOUR - timedelta(seconds=1)))


def test_worst_first() -> None:
    """The most urgent state comes first, and then the longest lag."""
    duplicated = status(cover([], [run(1, window(0)), run(2, window(0))]))
    late, later = status(covered(*range(8))), status(covered(*range(2)))
    whole = status(covered(*range(10)))
    empty = status(cover([], []))
    assert [duplicated, later, late, whole, empty] == worst_first([empty, whole, late, later, duplicated])
    assert [True, True, True, False, False] == [row.is_wrong for row in (duplicated, later, late, whole, empty)]
    assert (State.DUPLICATED, State.INGESTED, None) == (duplicated.state, whole.state, empty.state)


def test_bar_and_counts() -> None:
    """The bar has the range; its length does not depend on the number of windows."""
    row = status(covered(*range(5)))
    assert ((State.INGESTED,) * 20 + (State.MISSING,) * 20, BAR_CELLS) == (row.bar, len(row.bar))
    assert 5 == row.counts[State.MISSING]
    assert {"missing": 5, "failed": 0, "twice": 0, "running": 0, "unknown": 0} == row.to_json()["windows"]


@pytest.mark.parametrize(
    ("dags", "expected"),
    [
        ([], (False, True)),
        ([DagStatus(dag_id="a")], (False, False)),
        ([DagStatus(dag_id="a", is_paused=True)], (True, False)),
        ([DagStatus(dag_id="a", is_paused=True), DagStatus(dag_id="b")], (False, False)),
        ([DagStatus(dag_id="a", is_paused=True), DagStatus(dag_id="b", is_stale=True)], (True, False)),
        ([DagStatus(dag_id="b", is_stale=True)], (False, True)),
    ],
    ids=["none", "active", "paused", "one active", "paused and deleted", "deleted"],
)
def test_paused_and_stale(dags: list[DagStatus], expected: tuple[bool, bool]) -> None:
    row = status(cover([], []), dags=dags)
    assert expected == (row.is_paused, row.is_stale)


def test_next_due_and_tags() -> None:
    """A paused DAG has no next DAG run. The tags are those of all DAGs."""
    dags = [
        DagStatus(dag_id="a", is_paused=True, next_due=NOW, tags=("daily",)),
        DagStatus(dag_id="b", next_due=NOW + HOUR, tags=("aep", "daily")),
    ]
    row = status(cover([], []), dags=dags)
    assert (NOW + HOUR, ("aep", "daily")) == (row.next_due, row.tags)


def test_texts_from_outside_are_printable() -> None:
    """The JSON has no control characters and bounded ids."""
    row = dataflow_status(
        DataflowKey("O\x1b[31m", "p\n", "f" * 500),
        cover([], []),
        within=RANGE,
        now=NOW,
        last=None,
        name="a\x00b",
        dags=[DagStatus(dag_id="d\x1b", tags=("t\n",))],
    ).to_json()
    names = ("organization", "sandbox", "flow_id", "flow_name")
    texts = (*(row[name] for name in names), row["dags"][0]["dag_id"], *row["tags"])
    assert all(text.isprintable() and len(text) <= 1000 for text in texts)
