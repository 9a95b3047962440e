# SPDX-License-Identifier: Apache-2.0
"""The lag of a dataflow from its ledger and its flow runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import FlowRun
from airflow_flowservice.coverage.lag import LagLimit, lag_of, read_lag
from airflow_flowservice.exceptions import LedgerUnavailableError
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.windows.window import IngestionWindow, epoch_milliseconds

HOUR = timedelta(hours=1)
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
NOW = BEGIN + 100 * HOUR
KEY = DataflowKey("ORG@AdobeOrg", "prod", "orders")
LIMIT = LagLimit(max_lag=2 * HOUR)


def window(start: int, end: int | None = None) -> IngestionWindow:
    """Create a window from hours since the begin."""
    return IngestionWindow(BEGIN + start * HOUR, BEGIN + (start + 1 if end is None else end) * HOUR)


def hours(lag: timedelta | None) -> float | None:
    return None if lag is None else lag / HOUR


@pytest.mark.parametrize(
    ("windows", "lag", "is_late"),
    [
        ([window(97), window(98)], 1, False),
        ([window(98), window(97)], 1, False),
        ([window(97)], 2, False),
        ([window(96)], 3, True),
        ([window(90), window(98)], 9, True),
        ([window(90, 99), window(91)], 1, False),
        ([], None, True),
        ([window(99, 101)], 0, False),
    ],
    ids=["contiguous", "any order", "exactly the limit", "late", "gap", "overlap", "none", "clock behind"],
)
def test_lag_counts_from_the_end_of_the_contiguous_time(
    windows: list[IngestionWindow], lag: float | None, is_late: bool
) -> None:
    found = lag_of(windows, flow_id="orders", limit=LIMIT, now=NOW)
    assert (lag, is_late) == (hours(found.length), found.is_late)


def test_gaps_can_be_ignored() -> None:
    """The lag then counts from the last ingested window."""
    limit = LagLimit(max_lag=2 * HOUR, ignores_gaps=True)
    assert 1 == hours(lag_of([window(90), window(98)], flow_id="orders", limit=limit, now=NOW).length)


def test_gaps_before_the_range_do_not_count() -> None:
    limit = LagLimit(max_lag=2 * HOUR, lookback=5 * HOUR)
    windows = [window(90), *(window(each) for each in range(94, 99))]
    assert 1 == hours(lag_of(windows, flow_id="orders", limit=limit, now=NOW).length)


@pytest.mark.parametrize(("max_lag", "days"), [(HOUR, 7), (timedelta(days=5), 10)], ids=["hour", "days"])
def test_default_range_is_a_week_or_twice_the_limit(max_lag: timedelta, days: int) -> None:
    assert timedelta(days=days) == NOW - LagLimit(max_lag=max_lag).range_before(NOW).start


@given(st.lists(st.integers(0, 98), max_size=20), st.integers(1, 50))
def test_late_means_that_an_hour_before_the_limit_is_not_ingested(starts: list[int], limit: int) -> None:
    """With windows of an hour, the definition can be checked hour by hour."""
    found = lag_of(map(window, starts), flow_id="orders", limit=LagLimit(max_lag=limit * HOUR), now=NOW)
    due = range(min(starts, default=0), 100 - limit)
    is_complete = bool(starts) and set(due) <= set(starts)
    # With a gap after the due hours, the lag is at most the limit.
    assert is_complete is not found.is_late


def test_error_names_dataflow_lag_last_window_and_limit() -> None:
    error = lag_of([window(90), window(98)], flow_id="orders", limit=LIMIT, now=NOW).error()
    assert (
        "dataflow orders is ingested until 2026-01-04T19:00:00Z, which is 9 h ago; a gap follows, and the last "
        "ingested window ends at 2026-01-05T03:00:00Z; the longest accepted lag is 2 h"
    ) == error.message
    assert ("orders", str(window(98))) == (error.flow_id, error.window)
    assert error.retryable
    assert "paused" in str(error.remedy)


def test_error_without_any_window_names_the_range() -> None:
    error = lag_of([], flow_id="orders", limit=LIMIT, now=NOW).error()
    assert error.message.startswith("no window of dataflow orders was ingested since 2025-12-29T04:00:00Z")


class TestReading:
    """Ledger first, then Flow Service."""

    def read(self, *entries: LedgerEntry, runs: tuple[IngestionWindow, ...] = ()) -> tuple[float | None, int]:
        """Return the lag in hours, and the number of requests to Flow Service."""
        ledger, requests = MemoryLedger(), []
        for entry in entries:
            ledger.put(entry)

        def list_runs(*, flow_id: str, created_since: datetime) -> Iterator[FlowRun]:
            requests.append((flow_id, created_since))
            return map(run, runs)

        lag = read_lag(KEY, limit=LIMIT, now=NOW, ledger=ledger, list_runs=list_runs)
        return hours(lag.length), len(requests)

    def test_fresh_ledger_needs_no_request(self) -> None:
        assert (1, 0) == self.read(entry(98))

    def test_flow_runs_supplement_a_late_ledger(self) -> None:
        """Adobe's own schedule, or another deployment, may have ingested the window."""
        assert (1, 1) == self.read(entry(96), runs=(window(97), window(98)))

    def test_window_that_is_not_ingested_does_not_count(self) -> None:
        assert (4, 1) == self.read(entry(95), entry(96, state=EntryState.CREATED))

    def test_window_that_is_ingested_again_counts(self) -> None:
        """It was ingested before, so the dataflow is not late."""
        earlier = (EarlierRun(flow_run_id="first", replaced_at=0.0, replaced_by="a/b/c/-1"),)
        assert (1, 0) == self.read(entry(98, state=EntryState.CREATED, earlier=earlier))

    def test_entries_of_other_dataflows_do_not_count(self) -> None:
        other = DataflowKey("ORG@AdobeOrg", "dev", "orders")
        assert (None, 1) == self.read(entry(98, dataflow=other))

    def test_unreachable_ledger_is_replaced_by_flow_runs(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(MemoryLedger):
            def entries(self, *_: object, **__: object) -> Iterator[LedgerEntry]:
                raise LedgerUnavailableError("no database")

        lag = read_lag(KEY, limit=LIMIT, now=NOW, ledger=Broken(), list_runs=lambda **_: map(run, [window(98)]))
        assert 1 == hours(lag.length)
        assert "no database" in caplog.text


def entry(start: int, **fields: object) -> LedgerEntry:
    values = {"dataflow": KEY, "window": window(start), "state": EntryState.INGESTED, "owner": "a/b/c/-1"}
    return LedgerEntry(**{**values, **fields})  # type: ignore[arg-type]


def run(of: IngestionWindow) -> FlowRun:
    edges = {"windowStartTime": epoch_milliseconds(of.start), "windowEndTime": epoch_milliseconds(of.end)}
    metrics = {"statusSummary": {"status": "success"}}
    return FlowRun.parse({"id": "run", "flowId": "orders", "metrics": metrics, "params": edges})
