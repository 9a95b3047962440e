# SPDX-License-Identifier: Apache-2.0
"""Run `ledger migrate|export|import|forget` on an SQLite file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
ORDERS = DataflowKey("ORG@AdobeOrg", "prod", "orders")
RANGE = ("--from", "2026-01-02T00:00:00Z", "--to", "2026-01-04T00:00:00Z")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlLedger:
    """Return a ledger without tables, which is Airflow's connection `ledger` and the option's value."""
    file = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "ledger")
    monkeypatch.setenv("AIRFLOW_CONN_FLOWSERVICE_DEFAULT", '{"conn_type": "flowservice"}')
    return SqlLedger(f"sqlite:///{file}")


@pytest.fixture
def filled(ledger: SqlLedger) -> SqlLedger:
    """Return the ledger with five days."""
    ledger.migrate()
    for day in range(5):
        window = IngestionWindow(BEGIN + day * DAY, BEGIN + (day + 1) * DAY)
        ledger.put(LedgerEntry(dataflow=ORDERS, window=window, state=EntryState.INGESTED, owner="dag/run/task/-1"))
    return ledger


def test_migrate(ledger: SqlLedger, command: Callable[..., Any]) -> None:
    """The first call creates the tables; the second one changes nothing."""
    first = command("ledger", "migrate")
    assert (0, "The ledger's tables in 'ledger' are created (version 1).\n") == (first.status, first.out)
    second = command("ledger", "migrate", "-o", "json")
    assert (0, "up to date") == (second.status, second.json["result"])


def test_missing_tables(ledger: SqlLedger, command: Callable[..., Any]) -> None:
    """The error names the command that creates the tables."""
    printed = command("ledger", "export")
    assert (2, "") == (printed.status, printed.out)
    assert "airflow flowservice ledger migrate" in printed.err


def test_connection_of_the_extra(ledger: SqlLedger, command: Callable[..., Any], monkeypatch: Any) -> None:
    """The extra of the Flow Service connection selects the database."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "other")
    extra = {"org_id": "ORG@AdobeOrg", "ledger_conn_id": "ledger"}
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "flowservice", "extra": extra}))
    assert 0 == command("ledger", "migrate", "--conn-id", "mine").status


def test_export_and_import(filled: SqlLedger, command: Callable[..., Any], tmp_path: Path) -> None:
    """An export has one entry a line, and restores the entries that were removed."""
    printed = command("ledger", "export")
    before = list(filled.entries())
    assert [each.to_json() for each in before] == [json.loads(line) for line in printed.out.splitlines()]
    file = tmp_path / "export.jsonl"
    file.write_text(printed.out)
    filled.remove(before[0])
    preview = command("ledger", "import", str(file), "-o", "json")
    assert (0, {"new": 1, "equal": 4, "different": 0}) == (preview.status, preview.json)
    assert before[1:] == list(filled.entries())
    assert 0 == command("ledger", "import", str(file), "--confirm").status
    assert before == list(filled.entries())


def test_import_keeps_different_entries(filled: SqlLedger, command: Callable[..., Any], tmp_path: Path) -> None:
    """An entry that differs is kept, and the exit status is 1."""
    stored = next(filled.entries())
    file = tmp_path / "export.jsonl"
    file.write_text(json.dumps({**stored.to_json(), "owner": "another/run/task/-1"}))
    assert 1 == command("ledger", "import", str(file), "--confirm").status
    assert stored == next(filled.entries())


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_import_of_a_file_without_entries(
    text: str, ledger: SqlLedger, command: Callable[..., Any], tmp_path: Path
) -> None:
    """The command before a pipe may have failed."""
    file = tmp_path / "export.jsonl"
    file.write_text(text, encoding="utf-8")
    printed = command("ledger", "import", str(file), "--confirm")
    assert (2, True) == (printed.status, "has no entry" in printed.err)


def test_import_of_a_file_with_a_byte_order_mark(
    filled: SqlLedger, command: Callable[..., Any], tmp_path: Path
) -> None:
    """It is ignored."""
    file = tmp_path / "export.jsonl"
    file.write_text(f"\ufeff{command('ledger', 'export').out}", encoding="utf-8")
    assert {"new": 0, "equal": 5, "different": 0} == command("ledger", "import", str(file), "-o", "json").json


@pytest.mark.parametrize(
    "option", ["--ledger-conn-id", "--conn-id", "--sandbox"], ids=lambda option: option.removeprefix("--")
)
def test_empty_option_is_refused(filled: SqlLedger, command: Callable[..., Any], option: str) -> None:
    """An option whose variable is not set in a script must not select another ledger, or all sandboxes."""
    arguments = ("ledger", "forget", "--flow-id", "orders", *RANGE, "--confirm", option, "")
    assert 2 == command(*arguments).status
    assert 5 == len(list(filled.entries()))


@pytest.mark.parametrize("text", ["[]", "{", '{"state": "ingested"}', "null", "[" * 100_000], ids=lambda text: text[:9])
def test_import_of_another_file(text: str, ledger: SqlLedger, command: Callable[..., Any], tmp_path: Path) -> None:
    """A line that is no entry is refused with its number."""
    file = tmp_path / "export.jsonl"
    file.write_text(f"\n{text}\n")
    printed = command("ledger", "import", str(file), "--confirm")
    assert 2 == printed.status
    assert "line 2 of" in printed.err


def test_forget(filled: SqlLedger, command: Callable[..., Any]) -> None:
    """Only with --confirm are the entries removed whose windows are between the dates."""
    arguments = ("ledger", "forget", "--flow-id", "orders", *RANGE)
    preview = command(*arguments, "-o", "json")
    assert (0, 2, 5) == (preview.status, len(preview.json), len(list(filled.entries())))
    assert "add --confirm" in preview.err
    assert 0 == command(*arguments, "--confirm").status
    assert [1, 4, 5] == [entry.window.start.day for entry in filled.entries()]
    assert 2 == command(*arguments, "--confirm").status


def test_forget_of_an_ambiguous_dataflow(filled: SqlLedger, command: Callable[..., Any]) -> None:
    """If two sandboxes have the dataflow's id, one has to be chosen, and nothing is removed."""
    window = IngestionWindow(BEGIN + DAY, BEGIN + 2 * DAY)
    dev = DataflowKey("ORG@AdobeOrg", "dev", "orders")
    filled.put(LedgerEntry(dataflow=dev, window=window, state=EntryState.CLAIMED, owner="dag/run/task/-1"))
    arguments = ("ledger", "forget", "--flow-id", "orders", *RANGE, "--confirm")
    assert 2 == command(*arguments).status
    assert 6 == len(list(filled.entries()))
    assert 0 == command(*arguments, "--sandbox", "dev").status
    assert 5 == len(list(filled.entries()))


@pytest.mark.parametrize("output", ["table", "json", "yaml", "plain"])
def test_output_of_export(output: str, filled: SqlLedger, command: Callable[..., Any]) -> None:
    """Each format of Airflow has all entries."""
    printed = command("ledger", "export", "-o", output, *RANGE)
    assert 0 == printed.status
    assert 2 == printed.out.count("orders")
