# SPDX-License-Identifier: Apache-2.0
"""Run `airflow flowservice coverage --flow-id F --conn-id C` with a ledger, and with a lost history at Flow Service."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice.ledger.entry import EarlierRun, EntryState
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from tests.integration.cli.test_coverage import make_run, session, states
from tests.integration.cli.test_coverage_ledger import entry, store
from tests.integration.coverage.conftest import FLOW

__all__ = ["make_run", "session", "store"]
LOST = "99999999-0000-4000-8000-000000000000"


@pytest.fixture
def coverage(command: Any, connect: Any) -> Any:
    """Return a function that runs the command for five days."""

    def run(output: str = "json", **extra: Any) -> Any:
        options = ("--flow-id", FLOW, "--conn-id", connect(extra=extra), "--from", "2026-01-01", "--to", "2026-01-06")
        return command("coverage", *options, f"--output={output}")

    return run


@pytest.fixture
def sql_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlLedger:
    """Return the empty ledger of the connection `ledger`."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.migrate()
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}))
    return ledger


@pytest.fixture(params=["variables", "sql"])
def put(request: Any) -> Any:
    """Return a function that stores entries in each ledger, and the connection's extra that selects it."""
    if request.param == "variables":
        return request.getfixturevalue("store"), {}
    ledger = request.getfixturevalue("sql_ledger")
    return lambda *entries: [ledger.put(each) for each in entries], {"ledger_conn_id": "ledger"}


def test_window_that_flow_service_lost_is_ingested(put: Any, coverage: Any, make_run: Any) -> None:
    """The ledger has the windows 2 and 4; no record has the windows 3 and 5."""
    store, extra = put
    made = make_run(1)
    store(entry(1, flow_run_id=made), entry(2), entry(4))
    shown = coverage(**extra)
    assert ["ingested", "ingested", "missing", "ingested", "missing"] == states(shown)
    assert (1, True, []) == (shown.status, shown.json["ledger_read"], shown.json["notices"])
    assert [1, 1] == [len(span["flow_runs"]) for span in shown.json["spans"][:2]]
    assert "Flow Service and ledger" in coverage("table", **extra).out.splitlines()[0]


def test_restated_window_is_not_duplicated(put: Any, coverage: Any, make_run: Any) -> None:
    """Flow Service lists both flow runs of the window."""
    store, extra = put
    old, new = make_run(1), make_run(1)
    earlier = EarlierRun(flow_run_id=old, replaced_at=1767400000.0, replaced_by="daily/manual/ingest/-1")
    store(entry(1, flow_run_id=new, earlier=(earlier,)))
    assert "restated" == states(coverage(**extra))[0]


def test_claims_are_not_missing(put: Any, coverage: Any) -> None:
    """A recent claim is running. An earlier one is unknown, with its owner. A created flow run is unknown."""
    store, extra = put
    claim = replace(entry(1), state=EntryState.CLAIMED, flow_run_id=None)
    store(
        replace(claim, updated_at=time.time()),
        replace(claim, window=entry(2).window),
        entry(3, state=EntryState.CREATED, flow_run_id=LOST),
    )
    shown = coverage(**extra)
    assert ["running", "unknown", "unknown", "missing"] == states(shown)
    assert "claimed by daily/" in shown.json["spans"][1]["reason"]


def test_other_dataflows_and_sandboxes_do_not_count(put: Any, coverage: Any) -> None:
    store, extra = put
    other = replace(entry(2), dataflow=replace(entry(2).dataflow, flow_id="c9cef9cb-c934-4467-8ef9-cbc934546742"))
    store(entry(1, sandbox="dev"), other, entry(3))
    assert ["missing", "ingested", "missing"] == states(coverage(**extra))


def test_unreadable_ledger(coverage: Any, sql_ledger: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missing, a notice states why, and the exit status is 2."""
    make_run(1)
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": "/nowhere/ledger.db"}))
    shown = coverage(ledger_conn_id="ledger")
    assert (["ingested", "unknown"], 2, False) == (states(shown), shown.status, shown.json["ledger_read"])
    assert "the ledger cannot be read" == shown.json["spans"][1]["reason"]
    assert "The ledger of ingested windows cannot be read" in shown.json["notices"][0]


@pytest.mark.parametrize("ledger", ["airflow", "sql"])
def test_without_airflows_database(
    coverage: Any, sql_ledger: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch, ledger: str
) -> None:
    """A SQL ledger is read without it. Otherwise, only Flow Service is queried, and a notice states it."""
    from airflow.utils import session
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker

    # The command imports the function when it runs.
    absent = sessionmaker(create_engine("sqlite:////nowhere/airflow.db"))
    monkeypatch.setattr(session, "create_session", lambda: absent())
    make_run(1)
    sql_ledger.put(entry(2))
    shown = coverage(**({"ledger_conn_id": "ledger"} if ledger == "sql" else {}))
    if ledger == "sql":
        assert ["ingested", "ingested", "missing"] == states(shown)
        assert [] == shown.json["notices"]
    else:
        assert ["ingested", "missing"] == states(shown)
        assert "Only Flow Service was queried" in shown.json["notices"][0]
    assert (1, ledger == "sql") == (shown.status, shown.json["ledger_read"])


def test_disabled_ledger_is_not_read(store: Any, coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER", "none")
    store(entry(1))
    shown = coverage()
    assert (["missing"], []) == (states(shown), shown.json["notices"])
    assert "Flow Service only" in coverage("table").out.splitlines()[0]
