"""Verify that the ledger's entries become known flow runs and claimed windows."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, State, cover, gaps, known_runs
from airflow_flowservice.coverage.ledger_runs import RECENT_CLAIM_S, LedgerRecords, claimed_windows, recorded_runs
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
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


def test_recorded_time_begins_with_the_first_stored_window() -> None:
    """An old window that was stored later does not extend it: windows in between may be older than the ledger."""
    late = entry(2, updated_at=NOW.timestamp())
    recorded = LedgerRecords(entries=(late, entry(10), entry(11), entry(15))).recorded
    assert IngestionWindow(window(10).start, window(15).end) == recorded
    assert LedgerRecords().recorded is None
