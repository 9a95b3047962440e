# SPDX-License-Identifier: Apache-2.0
"""Verify which JSON is an entry of the ledger."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_flowservice._airflow.variable_ledger import parse_entry
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.sql_ledger import entry_of_row
from airflow_flowservice.windows.window import IngestionWindow

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
EARLIER = EarlierRun(flow_run_id="a", replaced_at=1.0, replaced_by="dag/run/task/-1")
ENTRY = LedgerEntry(
    dataflow=DataflowKey("ORG@AdobeOrg", "prod", "orders"),
    window=IngestionWindow(START, START + timedelta(days=1)),
    state=EntryState.INGESTED,
    owner="dag/run/task/-1",
    flow_run_id="b",
    delivered=True,
    intent={"written_at": 1.0, "restates": ["c"]},
    output_records=0,
    earlier=(EARLIER,),
    updated_at=2.0,
    version=3,
)
NAN, INFINITE = float("nan"), float("inf")


def edited_run(**fields: Any) -> list[dict[str, Any]]:
    return [{"flow_run_id": "a", "replaced_at": 1.0, "replaced_by": "dag/run/task/-1", **fields}]


def test_json_of_an_entry() -> None:
    """The entry is the same, also with unknown fields of a later version."""
    value = {**ENTRY.to_json(), "later": 1, "earlier": edited_run(later=1)}
    assert ENTRY == LedgerEntry.from_json(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    "fields",
    [
        {"organization": None},
        {"organization": "\ud800"},
        {"sandbox": ["prod"]},
        {"flow_id": 5},
        {"owner": None},
        {"flow_run_id": 5},
        {"flow_run_id": ["b"]},
        {"flow_run_id": "\ud800"},
        {"delivered": "false"},
        {"intent": "text"},
        {"intent": [1]},
        {"output_records": "1440"},
        {"output_records": [1440]},
        {"earlier": "text"},
        {"earlier": edited_run(flow_run_id=["a"])},
        {"earlier": edited_run(replaced_by=None)},
        {"earlier": edited_run(replaced_at="yes")},
        {"earlier": edited_run(replaced_at=None)},
        {"earlier": edited_run(replaced_at=1e18)},
        {"earlier": edited_run(replaced_at=NAN)},
        {"updated_at": NAN},
        {"updated_at": INFINITE},
        {"version": INFINITE},
        {"window_start": 1767225600},
        {"window_end": "2026-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_edited_entry(fields: dict[str, Any]) -> None:
    """A value of another type makes it no entry, so that nothing fails later, and no window counts as not ingested."""
    assert LedgerEntry.from_json({**ENTRY.to_json(), **fields}) is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"organization":' + "[" * 100_000, '{"version":' + "9" * 5000 + "}"])
def test_hostile_text(text: str) -> None:
    """Python refuses to parse it."""
    assert parse_entry(text) is None


@pytest.mark.parametrize("intent", ["[1]", '"text"', "[" * 100_000])
@pytest.mark.parametrize("earlier", [None, json.dumps(edited_run(replaced_at=None)), "[" * 100_000])
def test_edited_row(intent: str, earlier: str | None) -> None:
    """The error names the dataflow of the row of a SQL ledger."""
    row = ("digest", 0, 60, "ingested", ENTRY.owner, "b", 1, intent, None, earlier, 2.0, 3)
    with pytest.raises(ConfigurationError, match="orders in sandbox prod"):
        entry_of_row(ENTRY.dataflow, row)
