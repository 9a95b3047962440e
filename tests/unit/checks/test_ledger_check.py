# SPDX-License-Identifier: Apache-2.0
"""Verify the comparison of the ledger with Flow Service."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.checks.ledger_check import compare_ledger
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def window(day):
    return IngestionWindow(BEGIN + timedelta(days=day), BEGIN + timedelta(days=day + 1))


def entry(day=0, flow_run_id="r", state=EntryState.INGESTED, **values):
    dataflow = DataflowKey("o", "s", "f")
    return LedgerEntry(
        dataflow=dataflow, window=window(day), state=state, owner="task", flow_run_id=flow_run_id, **values
    )


def run(flow_run_id="r", status=FlowRunStatus.SUCCESS, day=0):
    return FlowRun(id=flow_run_id, status=status, window=None if day is None else window(day))


def differences(entries, runs, *, find=lambda _: None, within=None):
    return [(each.flow_run_id, each.problem) for each in compare_ledger(entries, runs, find=find, within=within)]


VANISHED = "ingested in the ledger, but Flow Service does not have the flow run"
UNKNOWN = "succeeded, but is not in the ledger"


def test_ingested_entry_whose_flow_run_failed():
    found = differences([entry()], [run(status=FlowRunStatus.FAILED)])
    assert [("r", "ingested in the ledger, but the flow run is failed at Flow Service")] == found


def test_flow_run_that_the_list_lacks_is_read():
    """Only a flow run that cannot be read either is reported."""
    assert [] == differences([entry()], [], find=run)
    assert [("r", VANISHED)] == differences([entry()], [])


@pytest.mark.parametrize("state", [EntryState.CLAIMED, EntryState.CREATED])
def test_unfinished_entries_are_not_compared(state):
    assert [] == differences([entry(state=state), entry(1, None, state)], [run(status=FlowRunStatus.FAILED)])


def test_flow_runs_without_an_entry():
    """Only successes are reported, also without a known window."""
    earlier = (EarlierRun(flow_run_id="earlier", replaced_at=0.0, replaced_by="task"),)
    runs = [run(), run("earlier"), run("failed", FlowRunStatus.FAILED), run("x"), run("hidden", day=None)]
    assert [("x", UNKNOWN), ("hidden", UNKNOWN)] == differences([entry(earlier=earlier)], runs)


def test_only_windows_in_the_range_are_compared():
    """The flow runs of other entries are not reported as missing in the ledger."""
    entries = [entry(0), entry(1, "second")]
    runs = [run("hidden", day=None), run("x", day=1), run("y", day=0)]
    found = differences(entries, runs, within=window(1))
    assert [("second", VANISHED), ("hidden", UNKNOWN), ("x", UNKNOWN)] == found
