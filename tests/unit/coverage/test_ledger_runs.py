# SPDX-License-Identifier: Apache-2.0
"""Verify that the ledger's entries become known flow runs and claimed windows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, State, cover, gaps, known_runs
from airflow_flowservice.coverage.ledger_runs import (
    RECENT_CLAIM_S,
    LedgerRecords,
    claimed_windows,
    recorded_runs,
    split_restated,
)
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.runs.intent import Intent
from airflow_flowservice.runs.ledger_intents import LedgerIntents, LedgerPolicy, deliver
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def window(number: int) -> IngestionWindow:
    return IngestionWindow(BEGIN + number * DAY, BEGIN + (number + 1) * DAY)


def entry(number: int = 0, **fields: Any) -> LedgerEntry:
    """Create an ingested entry of a day, stored when the day ended."""
    defaults = {
        "dataflow": DataflowKey("ORG@AdobeOrg", "prod", "flow"),
        "window": window(number),
        "state": EntryState.INGESTED,
        "owner": "daily/run/ingest/-1",
        "flow_run_id": f"r{number}",
        "updated_at": window(number).end.timestamp(),
    }
    return LedgerEntry(**{**defaults, **fields})


def restated(*earlier: str, **fields: Any) -> LedgerEntry:
    runs = tuple(EarlierRun(flow_run_id=each, replaced_at=1.0, replaced_by="daily/run/ingest/-1") for each in earlier)
    return entry(earlier=runs, **fields)


def coverage(*entries: LedgerEntry, pushed: Any = (), found: Any = (), **expected: Any) -> Coverage:
    records = LedgerRecords(entries=entries)
    recorded = recorded_runs(entries, url_of=lambda _, run: f"https://experience.adobe.com/{run}")
    windows = [*claimed_windows(records, now=NOW), ExpectedWindow(window=window(0), **expected)]
    return cover(windows, known_runs(pushed, found, recorded=recorded))


def state(*entries: LedgerEntry, **options: Any) -> str:
    (span,) = coverage(*entries, **options).spans
    return span.state.value


def summary(run: str, status: str) -> FlowRunSummary:
    return FlowRunSummary(id=run, status=status, window=window(0))


CREATED = {"state": EntryState.CREATED}
CLAIMED = {"state": EntryState.CLAIMED, "flow_run_id": None}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "ingested"),
        (CREATED, "unknown"),
        ({**CLAIMED, "updated_at": NOW.timestamp() - RECENT_CLAIM_S + 60}, "running"),
        ({**CLAIMED, "updated_at": NOW.timestamp() + 3600}, "running"),
        ({**CLAIMED, "updated_at": NOW.timestamp() - RECENT_CLAIM_S - 60}, "unknown"),
    ],
)
@pytest.mark.parametrize("task", [{}, {"dag_run_id": "r", "task_state": "failed"}])
def test_state_of_an_entry(fields: dict[str, Any], expected: str, task: dict[str, Any]) -> None:
    """Without other records, the ledger determines the state. A claim has precedence over a failed task."""
    assert expected == state(entry(**fields), **task)


@pytest.mark.parametrize(
    ("status", "expected"), [("success", "ingested"), ("failed", "failed"), ("created", "unknown")]
)
def test_history_completes_a_created_entry(status: str, expected: str) -> None:
    assert expected == state(entry(**CREATED), pushed=[summary("r0", status)])


def test_flow_service_completes_a_created_entry() -> None:
    """The ledger has the window of a run that Flow Service shows without one."""
    shown = coverage(entry(**CREATED), found=[FlowRun(id="r0", flow_id="flow", status=FlowRunStatus.SUCCESS)])
    assert ([State.INGESTED], ()) == ([span.state for span in shown.spans], shown.unplaced)


def test_xcom_keeps_its_exact_status() -> None:
    (span,) = coverage(entry(output_records=7), pushed=[summary("r0", "partial_success")]).spans
    assert (FlowRunStatus.PARTIAL_SUCCESS, 7) == (span.runs[0].status, span.runs[0].records)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "restated"),
        ({"state": EntryState.CREATED}, "ingested"),
        ({**CLAIMED, "updated_at": NOW.timestamp()}, "ingested"),
        ({**CLAIMED, "updated_at": 0.0}, "ingested"),
    ],
)
def test_window_ingested_again_on_request(fields: dict[str, Any], expected: str) -> None:
    """Until the new flow run has succeeded, the window is ingested once."""
    assert expected == state(restated("old", **fields))


def test_restated_window_is_not_incomplete() -> None:
    """Airflow's XComs and Flow Service report the replaced run also. It is neither duplicated nor external."""
    old = FlowRun(id="old", flow_id="flow", status=FlowRunStatus.SUCCESS, window=window(0))
    shown = coverage(restated("old"), pushed=[summary("old", "success")], found=[old])
    assert [State.RESTATED] == [span.state for span in shown.spans]
    assert [(False, True), (False, False)] == [(run.outside, run.replaced) for run in shown.spans[0].runs]
    assert shown.whole
    assert [] == gaps(shown)


def test_run_that_was_not_requested_is_duplicated() -> None:
    """Another successful run beside the restated ones duplicates the window."""
    assert "twice" == state(restated("old"), pushed=[summary("other", "success")])


def test_active_run_of_a_restated_window() -> None:
    assert "running" == state(restated("old", **CREATED), pushed=[summary("r0", "in_progress")])


def test_unreadable_entry_is_unknown() -> None:
    """Its window is not missing."""
    records = LedgerRecords(unreadable=(window(0),))
    (span,) = cover([*claimed_windows(records, now=NOW), ExpectedWindow(window=window(0))], []).spans
    assert State.UNKNOWN is span.state


def test_reason_replaces_missing_only() -> None:
    """A window that may be ingested without a record is unknown; a failed task stays failed."""
    assert "unknown" == state(reason="before Airflow's history")
    assert "failed" == state(reason="before Airflow's history", dag_run_id="r", task_state="failed")
    assert "missing" == state()


def test_concealed_run_determines_the_state() -> None:
    """The span has no flow run, unless another record shows it."""
    concealed = list(recorded_runs([entry()], url_of=lambda *_: "", conceals=lambda owner: True))
    (span,) = cover([], known_runs((), recorded=concealed)).spans
    assert (State.INGESTED, ()) == (span.state, span.runs)
    (span,) = cover([], known_runs([summary("r0", "success")], recorded=concealed)).spans
    assert ["r0"] == [run.id for run in span.runs]


HOUR = timedelta(hours=1)
PLACES = st.tuples(st.integers(0, 7), st.integers(1, 8)).map(
    lambda place: IngestionWindow(BEGIN + place[0] * HOUR, BEGIN + (place[0] + place[1]) * HOUR)
)


@dataclass
class Ingesting:
    """Tasks of one dataflow with a ledger, and the number of their flow runs for each hour."""

    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    runs: dict[str, IngestionWindow] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)

    def ingest(self, window: IngestionWindow) -> None:
        """Ingest a window, on request if it was ingested before, as an operator does."""
        dataflow, number = DataflowKey("ORG@AdobeOrg", "prod", "flow"), len(self.runs)
        policy = LedgerPolicy(ledger=self.ledger, dataflow=dataflow, owner=f"d/{number}/t/-1", restate=True)
        intents = LedgerIntents(policy=policy, window=window, order="o", now=lambda: number)
        if intents.entry is not None and intents.entry.flow_run_id:
            intents.replaces(intents.entry.flow_run_id)
        intent = Intent(order="o", max_tries=0, token="t", written_at=number)
        intents.write(intent)
        self.runs[f"r{number}"] = window
        intents.complete(intent, flow_run_id=f"r{number}")
        deliver(self.ledger, dataflow=dataflow, window=window, flow_run_id=f"r{number}", owner=policy.owner)
        self.counts.update(hours(window))

    def coverage(self, *others: IngestionWindow) -> Coverage:
        """Return the coverage, if these windows were also ingested without the ledger."""
        entries = list(self.ledger.entries())
        runs = {**self.runs, **{f"other{number}": window for number, window in enumerate(others)}}
        found = [FlowRun(id=each, flow_id="flow", status=FlowRunStatus.SUCCESS, window=runs[each]) for each in runs]
        known = known_runs((), found, recorded=recorded_runs(entries, url_of=lambda *_: ""))
        return cover([], split_restated(known, entries=entries))


def hours(window: IngestionWindow) -> range:
    return range((window.start - BEGIN) // HOUR, (window.end - BEGIN) // HOUR)


def state_by_hour(shown: Coverage) -> dict[int, str]:
    return {hour: span.state.value for span in shown.spans for hour in hours(span.window)}


@given(st.lists(PLACES, min_size=1, max_size=6), st.lists(PLACES, max_size=2))
def test_only_requested_parts_are_restated(windows: list[IngestionWindow], others: list[IngestionWindow]) -> None:
    """Each hour that was ingested again on request is restated, and any flow run beside these duplicates it."""
    tasks, strays = Ingesting(), Counter(hour for window in others for hour in hours(window))
    for each in windows:
        tasks.ingest(each)

    def expected(hour: int) -> str:
        if tasks.counts[hour] == 0:
            return "outside" if strays[hour] == 1 else "twice"
        if strays[hour]:
            return "twice"
        return "ingested" if tasks.counts[hour] == 1 else "restated"

    shown = state_by_hour(tasks.coverage(*others))
    assert {hour: expected(hour) for hour in {*tasks.counts, *strays}} == shown


def test_restated_part_of_a_larger_window() -> None:
    """The part names the request, the rest is ingested once, and nothing is duplicated."""
    tasks = Ingesting()
    whole, part = IngestionWindow(BEGIN, BEGIN + 4 * HOUR), IngestionWindow(BEGIN + HOUR, BEGIN + 2 * HOUR)
    tasks.ingest(whole)
    tasks.ingest(part)
    shown = tasks.coverage()
    assert ["ingested", "restated", "ingested"] == [span.state.value for span in shown.spans]
    assert [("r0", "d/1/t/-1"), ("r1", None)] == [(run.id, run.replaced_by) for run in shown.spans[1].runs]
    assert shown.whole


def test_recorded_time_begins_with_the_first_stored_window() -> None:
    """An old window that was stored later does not extend it: windows in between may be older than the ledger."""
    late = entry(2, updated_at=NOW.timestamp())
    recorded = LedgerRecords(entries=(late, entry(10), entry(11), entry(15))).recorded
    assert IngestionWindow(window(10).start, window(15).end) == recorded
    assert LedgerRecords().recorded is None
