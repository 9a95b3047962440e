# SPDX-License-Identifier: Apache-2.0
"""Run `ledger check` and `ledger import --from-history` on Airflow's tables, with the emulator over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice._airflow.pages import ExperiencePages
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.windows.window import IngestionWindow
from tests.dag_history import delete_history
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, ran, summary

__all__ = ["ran"]
PAGES = ExperiencePages(organization="EMULATOR@AdobeOrg", sandbox="prod")


def window(day: int) -> IngestionWindow:
    return IngestionWindow(BEGIN + day * DAY, BEGIN + (day + 1) * DAY)


def entry(day: int, flow_run_id: str, **values: Any) -> LedgerEntry:
    given = {"state": EntryState.INGESTED, "owner": "dag/run/task/-1", **values}
    return LedgerEntry(
        dataflow=DataflowKey("EMULATOR@AdobeOrg", "prod", FLOW), window=window(day), flow_run_id=flow_run_id, **given
    )


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlLedger:
    """Return an empty ledger, which the configuration names."""
    file = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "ledger")
    ledger = SqlLedger(f"sqlite:///{file}")
    ledger.migrate()
    return ledger


@pytest.fixture
def make_run(connect: Callable[..., str]) -> Callable[[int], str]:
    """Return a function that ingests a day with Flow Service, and returns the flow run's id."""
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.hooks import client_of

    conn_id = connect()

    def make(day: int) -> str:
        start = datetime.now(timezone.utc) - timedelta(seconds=5)
        with client_of(connections.stored_connection(conn_id)) as client:
            return client.create_run(flow_id=FLOW, window=window(day), start_time=start).id

    return make


def test_equal_ledger(ledger: SqlLedger, make_run: Callable[[int], str], command: Callable[..., Any]) -> None:
    """Entries whose flow runs succeeded, and flow runs of entries or earlier ones, do not differ."""
    first, second = make_run(0), make_run(0)
    earlier = (EarlierRun(flow_run_id=first, replaced_at=0.0, replaced_by="dag/run/task/-1"),)
    ledger.put(entry(0, second, earlier=earlier))
    printed = command("ledger", "check", "--conn-id", "doctor")
    assert (0, "") == (printed.status, printed.err)
    assert "0 differences" in printed.out


def test_differences(ledger: SqlLedger, make_run: Callable[[int], str], command: Callable[..., Any]) -> None:
    """A vanished flow run of an ingested entry, and a successful flow run without an entry, are listed."""
    ledger.put(entry(0, make_run(0)))
    ledger.put(entry(1, "vanished"))
    ledger.put(entry(2, "unfinished", state=EntryState.CREATED))
    unknown = make_run(3)
    printed = command("ledger", "check", "--conn-id", "doctor", "--flow-id", FLOW, "-o", "json")
    assert 1 == printed.status
    assert [("vanished", "dag/run/task/-1"), (unknown, None)] == [
        (each["flow_run_id"], each["owner"]) for each in printed.json
    ]
    assert "2026-01-02T00:00:00Z" == printed.json[0]["window_start"]
    ranged = command("ledger", "check", "--conn-id", "doctor", "--to", "2026-01-03T00:00:00Z", "-o", "json")
    assert ["vanished"] == [each["flow_run_id"] for each in ranged.json]


def test_nothing_to_compare(ledger: SqlLedger, make_run: Any, command: Callable[..., Any]) -> None:
    """Without entries and --flow-id, the exit status is 2."""
    assert 2 == command("ledger", "check", "--conn-id", "doctor").status


@pytest.fixture
def session(airflow_db: Any) -> Iterator[Any]:
    """Open a session of the metadata database that the commands read, and empty the tables afterwards."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as opened:
        yield opened
    with create_session() as cleaning:
        delete_history(cleaning, XComModel, TaskInstance, DagRun)


@pytest.fixture
def history(ran: Callable[..., str], session: Any) -> None:
    """Add three ingested days of the DAG `daily`, one of which is of another DAG, and a failed one."""
    for day, dag_id, status in (
        (0, "daily", "success"),
        (1, "daily", "failed"),
        (2, "daily", "success"),
        (3, "b", "success"),
    ):
        pushed = summary(day, BEGIN + day * DAY, status=status, url=PAGES.flow_run(FLOW, str(day)))
        ran(BEGIN + (day + 1) * DAY, dag_id=dag_id, pushed=pushed)
    session.commit()


def test_import_from_history(history: None, ledger: SqlLedger, command: Callable[..., Any]) -> None:
    """Without --confirm, only the numbers are shown. Existing entries are never overwritten."""
    other = ledger.put(entry(0, "other", owner="other"))
    arguments = ("ledger", "import", "--from-history", "-o", "json")
    preview = command(*arguments, "--dag-id", "daily")
    assert (1, {"new": 1, "equal": 0, "different": 1}) == (preview.status, preview.json)
    assert [other] == list(ledger.entries())
    assert 1 == command(*arguments, "--confirm").status
    assert [0, 2, 3] == [(each.window.start - BEGIN).days for each in ledger.entries()]
    assert other == next(ledger.entries())
    assert {"new": 0, "equal": 2, "different": 1} == command(*arguments, "--confirm").json
    last = list(ledger.entries())[-1]
    assert (EntryState.INGESTED, True) == (last.state, last.delivered)
    assert last.owner.startswith("b/scheduled__")


def test_arguments_of_import(ledger: SqlLedger, command: Callable[..., Any]) -> None:
    """A file and --from-history exclude each other, and one of them is needed."""
    for arguments in ((), ("file", "--from-history"), ("file", "--dag-id", "daily")):
        assert 2 == command("ledger", "import", *arguments).status
