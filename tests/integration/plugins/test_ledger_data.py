# SPDX-License-Identifier: Apache-2.0
"""Responses of the page's data endpoints with entries in the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from airflow_flowservice._airflow import database as database_module
from airflow_flowservice._airflow import history_start
from airflow_flowservice._airflow.variable_ledger import ledger_key
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.plugins.conftest import FLOW, HIDDEN_DAG, RANGE, day, window
from tests.integration.plugins.test_data import COVERAGE, states_of


def entry(number: int, *, owner: str = "page_seen/deleted/ingest/-1", **fields: Any) -> LedgerEntry:
    start, end = window(number)
    defaults = {"flow_run_id": f"run-{number}", "output_records": 555, "updated_at": day(number + 1).timestamp()}
    return LedgerEntry(
        dataflow=DataflowKey("ORG@AdobeOrg", "prod", FLOW),
        window=IngestionWindow(start, end),
        state=EntryState.INGESTED,
        owner=owner,
        **{**defaults, **fields},
    )


@pytest.fixture
def store(database: str) -> Iterator[Callable[..., None]]:
    """Return a function that stores entries in Airflow's Variables; remove them afterwards."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    def put(*entries: LedgerEntry) -> None:
        with create_session() as session:
            for each in entries:
                text = json.dumps(each.to_json())
                session.add(Variable(key=ledger_key(*each.key), val=text, description=text))

    yield put
    with create_session() as session:
        session.execute(delete(Variable).where(Variable.key.startswith("flowservice.ledger.")))


@pytest.fixture
def coverage(viewer: Any) -> Callable[..., dict[str, Any]]:
    """Return a function that requests the coverage of the dataflow for one DAG."""

    def get(**parameters: Any) -> Any:
        response = viewer.get(COVERAGE, params={"flow_id": FLOW, "dag_id": "page_seen", **RANGE, **parameters})
        assert 200 == response.status_code
        return response.json()

    return get


def test_restated_window(store: Any, coverage: Any) -> None:
    """The third window has two successful runs: the ledger has one as replaced on request."""
    scheduled, manual = (
        str(uuid5(NAMESPACE_URL, f"page_seen/{kind}__{day(3).isoformat()}")) for kind in ("scheduled", "manual")
    )
    earlier = EarlierRun(flow_run_id=scheduled, replaced_at=1.0, replaced_by="page_seen/manual/ingest/-1")
    store(entry(2, flow_run_id=manual, earlier=(earlier,)))
    response = coverage()
    assert ["ingested", "failed", "restated"] == states_of(response)[:3]
    assert {"windows": 1, "seconds": 86_400} == response["totals"]["restated"]
    runs = response["spans"]["runs"][2]
    assert {scheduled: True, manual: False} == {
        response["runs"]["id"][number]: response["runs"]["replaced"][number] for number in runs
    }


def test_dataflow_has_its_name(store: Any, coverage: Any) -> None:
    """The name is in the ledger's entries; without one, it is null."""
    assert coverage()["flow_name"] is None
    store(entry(3, intent={"flow_name": "Orders"}), entry(4))
    assert "Orders" == coverage()["flow_name"]


def test_deleted_history_is_ingested(store: Any, coverage: Any) -> None:
    """Windows in the ledger are ingested without a DAG run, and no command fills them."""
    store(*(entry(number) for number in range(3, 10)))
    response = coverage()
    assert ["ingested", "failed", "twice", *["ingested"] * 7] == states_of(response)
    assert ["run-3"] == [response["runs"]["id"][number] for number in response["spans"]["runs"][3]]
    assert not [each for each in response["commands"] if "--from-date 2026-01-05" in each["command"]]
    assert [] == response["notices"]


def test_windows_of_an_earlier_dataflow_count(store: Any, coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task continues another dataflow, which the ledger has also with its id in upper case."""
    earlier = "a1b2c3d4-0000-4000-8000-000000000000"
    read = database_module.dag_schedule_of

    def schedule_of(session: Any, dag_id: str) -> Any:
        schedule = read(session, dag_id)
        assert schedule is not None
        tasks = tuple(replace(task, continues=(earlier,)) for task in schedule.tasks)
        return replace(schedule, tasks=tasks)

    of_earlier = [
        replace(entry(number), dataflow=DataflowKey("ORG@AdobeOrg", "prod", flow_id))
        for number, flow_id in ((3, earlier), (4, earlier.upper()))
    ]
    store(*of_earlier)
    assert ["missing"] * 7 == states_of(coverage())[3:]
    monkeypatch.setattr(database_module, "dag_schedule_of", schedule_of)
    assert ["ingested"] * 2 + ["missing"] * 5 == states_of(coverage())[3:]


def test_window_of_hidden_dag_has_no_details(store: Any, coverage: Any) -> None:
    """The window is ingested, but the response has neither the flow run, its DAG nor its records."""
    store(entry(4, owner=f"{HIDDEN_DAG}/run/ingest/-1", output_records=777))
    response = coverage()
    assert ("ingested", []) == (states_of(response)[4], response["spans"]["runs"][4])
    assert not [text for text in ("run-4", HIDDEN_DAG, "777") if text in json.dumps(response)]


def test_unreadable_ledger(coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No window is missing, no command is shown, and a notice refers to the log. It has no detail of the ledger."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "secret_ledger")
    response = coverage()
    assert ["ingested", "failed", "twice", *["unknown"] * 7] == states_of(response)
    assert [] == response["commands"]
    (notice,) = response["notices"]
    assert "The ledger of ingested windows cannot be read" in notice
    assert "secret_ledger" not in notice


def test_windows_before_the_history_are_unknown(coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no command, and a notice shows where the history of the DAG begins."""
    start = history_start.HistoryStart(tasks=day(8), outputs=day(1))
    monkeypatch.setattr(history_start, "history_start", lambda *_: start)
    response = coverage()
    assert ["ingested", "failed", "twice", *["unknown"] * 4, *["missing"] * 3] == states_of(response)
    (notice,) = response["notices"]
    assert "history of DAG page_seen begins at 2026-01-09T00:00:00Z" in notice
    assert not [each for each in response["commands"] if "--from-date 2026-01-05" in each["command"]]
