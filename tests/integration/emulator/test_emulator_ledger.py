# SPDX-License-Identifier: Apache-2.0
"""Tests of the ledger."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.emulator.instants import format_utc, to_epoch_s
from airflow_flowservice.emulator.ledger import minutes, tally
from airflow_flowservice.emulator.settings import FILE_FLOW_ID, TABLE_FLOW_ID

seconds = st.integers(min_value=-4_000, max_value=4_000)
windows = st.lists(st.tuples(seconds, seconds), max_size=12)


@given(windows=windows, start=seconds, end=seconds)
def test_tally_equals_count_of_each_minute(windows, start, end):
    """The counts of missing and duplicated records equal a count of every single record."""
    wanted = [second for second in range(start, end) if second % 60 == 0]
    arrived = Counter(second for low, high in windows for second in range(low, high) if second % 60 == 0)

    counted = tally([minutes(low, high) for low, high in windows], within=minutes(start, end))

    assert len(wanted) == counted.expected
    assert sum(arrived[second] == 0 for second in wanted) == counted.missing
    assert sum(arrived[second] > 1 for second in wanted) == counted.duplicated


@given(st.integers(min_value=0, max_value=7_258_118_400))
def test_instant_round_trip(second):
    """An instant formatted as ISO 8601 text is parsed as the same second."""
    assert second == to_epoch_s(format_utc(second)) == to_epoch_s(second) == to_epoch_s(str(second))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-01T01:00:00", 3_600),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T01:00:00 01:00", 0),
        ("90.5", 91),
        (datetime(1970, 1, 1, 1, tzinfo=timezone.utc), 3_600),
    ],
)
def test_instants_default_to_utc(value, expected):
    """Dates, datetimes with and without an offset, epoch seconds and datetime objects are accepted."""
    assert expected == to_epoch_s(value)


@pytest.mark.parametrize("value", ["tomorrow", "", "inf", "nan", "2025-13-01"])
def test_invalid_instant_is_rejected(value):
    with pytest.raises(ValueError, match="Not an ISO 8601"):
        to_epoch_s(value)


def test_contiguous_windows_have_no_missing_or_duplicated_records(client):
    """A window includes its start and excludes its end."""
    for hour in range(5):
        client.create(windowStartTime=hour * 3600, windowEndTime=hour * 3600 + 3600)
    client.clock.advance(30)
    account = client.emulator.ledger(TABLE_FLOW_ID, 0, 5 * 3600)

    assert (300, 0, 0, 5) == (
        account["expected"],
        account["missing"],
        account["duplicated"],
        len(account["runs"]),
    )


def test_gaps_are_missing_and_overlaps_are_duplicated(client):
    """The ledger counts records, one for each minute."""
    for start, end in ((0, 600), (540, 1200), (1800, 2400)):
        client.create(windowStartTime=start, windowEndTime=end)
    client.clock.advance(30)
    account = client.emulator.ledger(TABLE_FLOW_ID, "1970-01-01", "1970-01-01T01:00:00Z")

    assert (60, 30, 1) == (account["expected"], account["missing"], account["duplicated"])
    assert ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z") == (account["from"], account["to"])


def test_active_runs_have_not_ingested(client):
    """Active runs are listed and counted, but their records are still missing."""
    client.create()
    account = client.emulator.ledger(TABLE_FLOW_ID)

    assert (60, 60, 1, "scheduled") == (
        account["expected"],
        account["missing"],
        account["active"],
        account["runs"][0]["status"],
    )


def test_ledger_lists_runs_of_every_flow(client):
    """Each run has a window in ISO 8601 (UTC) and a number of records."""
    run_id = client.created(FILE_FLOW_ID, windowStartTime=60, windowEndTime=180)
    client.clock.advance(30)
    flows = client.emulator.ledger()["flows"]

    expected = {
        "id": run_id,
        "status": "success",
        "window_start": "1970-01-01T00:01:00Z",
        "window_end": "1970-01-01T00:03:00Z",
        "created_at": "2025-06-15T15:07:00Z",
        "records": 2,
        "parent_flow_run_id": None,
    }
    assert [expected] == flows[FILE_FLOW_ID]["runs"]
    assert 2 == flows[FILE_FLOW_ID]["ingested_records"]
    assert [] == flows[TABLE_FLOW_ID]["runs"]


def test_requests_are_counted_by_kind(client):
    """Rejected requests are counted also, but requests to control routes are not."""
    run_id = client.created()
    client.create("none")
    client.get(f"/runs/{run_id}")
    client.get("/runs")
    client.retrigger(run_id)
    client.get("/flows/none")
    client.get("/nowhere")
    client.request_token()

    assert {
        "GET /flows/{id}": 1,
        "GET /runs": 1,
        "GET /runs/{id}": 1,
        "POST /ims/token/v3": 1,
        "POST /runs": 2,
        "POST /runs/{id}/action": 1,
        "other": 1,
    } == client.emulator.ledger()["requests"]


def test_tally_of_a_year_of_hourly_windows(client):
    """The cost of a tally depends on the number of windows."""
    spans = [minutes(hour * 3600, hour * 3600 + 3600) for hour in range(24 * 366)]

    assert 0 == tally(spans, within=(0, 24 * 366 * 60)).missing


@pytest.mark.parametrize("arguments", [("none", None, None), (TABLE_FLOW_ID, "someday", None), (None, 0, 60)])
def test_invalid_ledger_request_is_rejected(client, arguments):
    """An unknown flow, an invalid instant or a range without a flow raises an error."""
    with pytest.raises(ValueError, match=r"no flow|Not an ISO 8601|need a flow_id"):
        client.emulator.ledger(*arguments)


def test_reset_restores_initial_state(client):
    """A reset deletes runs, plans, counts, added flows and the delta column. Tokens stay valid."""
    client.create()
    client.emulator.add_flow(id="mine")
    client.emulator.plan_outcome(status="failed")
    client.emulator.plan_fault(action="close")
    client.emulator.reset()

    ledger = client.emulator.ledger()
    assert ({}, 4) == (ledger["requests"], len(ledger["flows"]))
    assert "1383-400" == client.create(deltaColumn=None).json()["error-chain"][0]["errorCode"]
    run_id = client.created()
    client.clock.advance(30)
    assert "success" == client.status(run_id)
