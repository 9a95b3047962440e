"""Responses of the endpoint with all dataflows, and who may see which."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice._airflow.variable_ledger import ledger_key
from airflow_flowservice.ledger.entry import DataflowKey
from airflow_flowservice.plugins import page_app, read_slots
from tests.integration.plugins.conftest import FLOW, HIDDEN_DAG, HOSTILE, SECRET_FLOW, day
from tests.integration.plugins.test_ledger_data import entry as entry_of_flow
from tests.integration.plugins.test_permissions import hidden_dag_denied

__all__ = ["hidden_dag_denied"]
FLEET = "/flowservice/data/fleet"


def entry(number: int, *, flow_id: str = FLOW, owner: str) -> Any:
    return replace(entry_of_flow(number, owner=owner), dataflow=DataflowKey("ORG@AdobeOrg", "prod", flow_id))


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the present time of the page to the eleventh day."""
    monkeypatch.setattr(versions, "utc_now", lambda: day(10) + timedelta(hours=2))


@pytest.fixture
def fleet(viewer: Any, database: str) -> Callable[[], dict[str, Any]]:
    """Return a function that requests all dataflows and returns them by id."""

    def get() -> dict[str, Any]:
        response = viewer.get(FLEET)
        assert 200 == response.status_code, response.text
        return {row["flow_id"]: row for row in response.json()["dataflows"]}

    return get


@pytest.fixture
def store(database: str) -> Iterator[Callable[..., None]]:
    """Return a function that stores entries in Airflow's Variables; remove them afterwards."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    def put(*entries: Any) -> None:
        with create_session() as session:
            for each in entries:
                text = json.dumps(each.to_json())
                session.add(Variable(key=ledger_key(*each.key), val=text, description=text))

    yield put
    with create_session() as session:
        session.execute(delete(Variable))


def test_rows(viewer: Any, fleet: Any) -> None:
    """A row has the judgement of the coverage, the last window, and the DAGs."""
    row = fleet()[FLOW]
    parameters = {"flow_id": FLOW, "from": "2025-12-01T00:00:00Z", "to": "2026-01-11T02:00:00Z"}
    totals = viewer.get("/flowservice/data/coverage", params=parameters).json()["totals"]
    assert row["windows"] == {state: totals.get(state, {"windows": 0})["windows"] for state in row["windows"]}
    assert ("twice", True, None) == (row["state"], row["wrong"], row["flow_name"])
    assert (1, 1) == (row["windows"]["twice"], row["windows"]["failed"])
    assert "2026-01-06T00:00:00Z" == row["last_window"]["end"]
    assert [HIDDEN_DAG, "page_hostile", "page_seen"] == [dag["dag_id"] for dag in row["dags"]]


def test_row_has_the_name_in_the_ledger(fleet: Any, store: Any) -> None:
    """The name is that of the entry that changed last, and Flow Service is not queried."""
    owner = "page_seen/run/ingest/-1"
    store(
        replace(entry(1, owner=owner), intent={"flow_name": "Old"}, updated_at=1.0),
        replace(entry(2, owner=owner), intent={"flow_name": "Orders <b>"}, updated_at=2.0),
        replace(entry(3, owner=owner), updated_at=3.0),
    )
    assert "Orders <b>" == fleet()[FLOW]["flow_name"]


@pytest.mark.usefixtures("hidden_dag_denied")
def test_hidden_dag_is_not_revealed(viewer: Any, store: Any) -> None:
    """Neither the DAG, its windows in Airflow's history, nor a dataflow that only it ingests into is in the response.

    The ledger's state of a window is that of the coverage, without its flow run.
    """
    store(
        entry(4, owner=f"{HIDDEN_DAG}/run/ingest/-1"),
        entry(1, owner=f"{HIDDEN_DAG}/run/ingest/-1", flow_id=SECRET_FLOW),
    )
    response = viewer.get(FLEET)
    assert "page_seen" in response.text
    assert not [text for text in ("hidden", SECRET_FLOW, "run-4") if text in response.text]


def test_permitted_user_sees_the_hidden_dag(fleet: Any, store: Any) -> None:
    store(entry(1, owner=f"{HIDDEN_DAG}/run/ingest/-1", flow_id=SECRET_FLOW))
    assert [HIDDEN_DAG] == [dag["dag_id"] for dag in fleet()[SECRET_FLOW]["dags"]]


def test_dataflow_without_a_readable_dag_is_omitted(fleet: Any, store: Any) -> None:
    """No permission applies to a DAG that was deleted, so only the command line shows its dataflow."""
    store(entry(1, owner="deleted/run/ingest/-1", flow_id=SECRET_FLOW))
    assert SECRET_FLOW not in fleet()


def test_login_and_permission_are_required(as_user: Any, viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.app import get_auth_manager

    assert 401 == as_user().get(FLEET).status_code
    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", lambda **_: False)
    response = viewer.get(FLEET)
    assert (403, True) == (response.status_code, "XComs" in response.json()["remedy"])


def test_unreadable_ledger(viewer: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notice has no detail, and nothing is missing."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "secret_ledger")
    notice = viewer.get(FLEET).json()["notice"]
    assert "cannot be read" in notice
    assert "secret_ledger" not in notice
    assert 0 == fleet()[FLOW]["windows"]["missing"]


def test_hostile_ids_are_data(viewer: Any, fleet: Any) -> None:
    """The response is JSON, so no id is markup."""
    assert HOSTILE in fleet()
    assert "application/json" == viewer.get(FLEET).headers["content-type"]


def test_reading_occupies_a_slot(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy server responds with 503 instead of starting another read."""
    from threading import BoundedSemaphore

    full = BoundedSemaphore(1)
    full.acquire()
    monkeypatch.setattr(read_slots, "_RUNNING_OR_WAITING", full)
    assert 503 == viewer.get(FLEET).status_code


def test_event_loop_is_not_blocked() -> None:
    """FastAPI runs a plain function in a thread."""
    from inspect import iscoroutinefunction

    assert not iscoroutinefunction(page_app.read_all)
