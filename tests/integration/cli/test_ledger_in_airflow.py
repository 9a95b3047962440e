# SPDX-License-Identifier: Apache-2.0
"""Run `ledger export|import|forget|migrate` on the Variables of Airflow's metadata database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice._airflow.metadata_ledger import StoredLedger
from airflow_flowservice._airflow.variable_ledger import LEDGER_PREFIX, ledger_key
from airflow_flowservice.exceptions import LedgerConflictError, LedgerUnavailableError
from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
ORDERS = DataflowKey("ORG@AdobeOrg", "prod", "orders")
RANGE = ("--from", "2026-01-02T00:00:00Z", "--to", "2026-01-04T00:00:00Z")


def entry(day: int, **values: Any) -> LedgerEntry:
    window = IngestionWindow(BEGIN + day * DAY, BEGIN + (day + 1) * DAY)
    return LedgerEntry(
        dataflow=ORDERS, window=window, **{"state": EntryState.INGESTED, "owner": "dag/run/task/-1", **values}
    )


@pytest.fixture
def sessions(airflow_db: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Return Airflow's `create_session`, and remove the ledger's Variables afterwards."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    monkeypatch.setenv("AIRFLOW_CONN_FLOWSERVICE_DEFAULT", '{"conn_type": "flowservice"}')
    yield create_session
    with create_session() as cleaning:
        # SQLAlchemy 1.4 of Airflow 3.0 cannot evaluate `startswith` in Python.
        options = {"synchronize_session": False}
        cleaning.execute(delete(Variable).where(Variable.key.startswith(LEDGER_PREFIX)), execution_options=options)


@pytest.fixture
def ledger(sessions: Any) -> Iterator[StoredLedger]:
    """Return the empty ledger."""
    with sessions() as session:
        yield StoredLedger(session)


@pytest.fixture
def filled(ledger: StoredLedger) -> StoredLedger:
    """Return the ledger with five days."""
    for day in range(5):
        ledger.put(entry(day))
    return ledger


def test_put_get_and_remove(ledger: StoredLedger) -> None:
    """Each change needs the stored version, and the value can be read as a task reads it."""
    from airflow.models.variable import Variable

    first = ledger.put(entry(0))
    assert (1, first, [first]) == (first.version, ledger.get(*first.key), list(ledger.entries()))
    second = ledger.put(entry(0, version=1, flow_run_id="r"))
    assert second == ledger.get(*first.key)
    stored = json.loads(Variable.get(ledger_key(*first.key)))
    assert ("r", 2) == (stored["flow_run_id"], stored["version"])
    for stale in (entry(0), first):
        with pytest.raises(LedgerConflictError):
            ledger.put(stale)
        with pytest.raises(LedgerConflictError):
            ledger.remove(stale)
    ledger.remove(second)
    assert ([], None) == (ledger.overlapping([ORDERS], first.window), ledger.get(*first.key))


@pytest.mark.parametrize("day", [0, 1])
def test_change_between_comparison_and_writing(
    day: int, ledger: StoredLedger, sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a task writes after the comparison, its entry stays. Day 0 has an entry before; day 1 has none."""
    before = ledger.put(entry(0)) if day == 0 else entry(1)
    read = StoredLedger._require_version

    def then_another_writes(self: StoredLedger, key: str, each: LedgerEntry) -> Any:
        stored = read(self, key, each)
        monkeypatch.undo()
        self.session.rollback()
        with sessions(scoped=False) as other:
            StoredLedger(other).put(entry(day, version=before.version, owner="other"))
        return stored

    monkeypatch.setattr(StoredLedger, "_require_version", then_another_writes)
    with pytest.raises(LedgerConflictError):
        ledger.put(before)
    assert ["other"] == [each.owner for each in ledger.entries()]


def test_variable_that_is_no_entry_is_kept(ledger: StoredLedger, sessions: Any) -> None:
    """A Variable that a user changed is neither read as missing nor overwritten."""
    from airflow.models.variable import Variable

    with sessions(scoped=False) as other:
        other.add(Variable(key=ledger_key(*entry(0).key), val="changed"))
    for change in (ledger.put, ledger.remove, lambda each: ledger.get(*each.key)):
        with pytest.raises(LedgerUnavailableError):
            change(entry(0))


def test_export_and_import(filled: StoredLedger, command: Callable[..., Any], tmp_path: Path) -> None:
    """An export restores a removed entry, only with --confirm."""
    before = list(filled.entries())
    printed = command("ledger", "export")
    assert [each.to_json() for each in before] == [json.loads(line) for line in printed.out.splitlines()]
    file = tmp_path / "export.jsonl"
    file.write_text(printed.out)
    filled.remove(before[0])
    preview = command("ledger", "import", str(file), "-o", "json")
    assert (0, {"new": 1, "equal": 4, "different": 0}) == (preview.status, preview.json)
    assert before[1:] == list(filled.entries())
    assert 0 == command("ledger", "import", str(file), "--confirm").status
    assert before == list(filled.entries())


def test_import_into_a_database(
    filled: StoredLedger, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries of the Variables can be moved to a SQL database."""
    database = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")})
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", database)
    file = tmp_path / "export.jsonl"
    file.write_text(command("ledger", "export").out)
    assert 0 == command("ledger", "migrate", "--ledger-conn-id", "ledger").status
    assert 0 == command("ledger", "import", str(file), "--confirm", "--ledger-conn-id", "ledger").status
    assert file.read_text() == command("ledger", "export", "--ledger-conn-id", "ledger").out


def test_forget(filled: StoredLedger, command: Callable[..., Any]) -> None:
    """Only with --confirm are the entries removed whose windows are between the dates."""
    arguments = ("ledger", "forget", "--flow-id", "orders", *RANGE)
    assert (0, 5) == (command(*arguments).status, len(list(filled.entries())))
    assert 0 == command(*arguments, "--confirm").status
    assert [1, 4, 5] == [each.window.start.day for each in filled.entries()]


def test_migrate_is_not_needed(sessions: Any, command: Callable[..., Any]) -> None:
    """The command states that Variables need no migration, and how to select a database."""
    printed = command("ledger", "migrate")
    assert (0, "The ledger is in Airflow's Variables, which need no migration.\n") == (printed.status, printed.out)
    assert "--ledger-conn-id" in printed.err
    assert "not needed" == command("ledger", "migrate", "-o", "json").json["result"]


def test_disabled_ledger(sessions: Any, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With `[flowservice] ledger = none`, the Variables are neither read nor changed."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER", "none")
    printed = command("ledger", "export")
    assert (2, "") == (printed.status, printed.out)
    assert "disabled" in printed.err
