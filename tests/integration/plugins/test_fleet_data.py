# SPDX-License-Identifier: Apache-2.0
"""Responses of the endpoint with all dataflows, and who may see which."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from threading import Event, current_thread
from typing import Any

import pytest

from airflow_flowservice._airflow import fleet_reader, versions
from airflow_flowservice._airflow.variable_ledger import ledger_key
from airflow_flowservice.ledger.entry import DataflowKey
from airflow_flowservice.plugins import fleet_reading, permissions, read_slots
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
    for each in (fleet_reading.ingesting, fleet_reading.summaries):
        each.clear()


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


@pytest.mark.parametrize("count", [1, 40])
def test_unreadable_ledger_that_no_task_uses(
    viewer: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """The warning has no detail and no more text for more ledgers; the log has the reasons. The result is complete."""
    before = fleet()
    assert viewer.get(FLEET).json()["warning"] is None
    for number in range(count):
        connection = {"conn_type": "flowservice", "extra": {"ledger_conn_id": f"secret_ledger_{number}"}}
        monkeypatch.setenv(f"AIRFLOW_CONN_FORMER_{number}", json.dumps(connection))
    fleet_reading.summaries.clear()
    shown = viewer.get(FLEET).json()
    assert (None, True) == (shown["notice"], "connection that no task uses" in shown["warning"])
    assert "secret_ledger" not in str(shown)
    assert len(shown["warning"]) < 250
    assert f"secret_ledger_{count - 1}" in caplog.text
    assert before == {row["flow_id"]: row for row in shown["dataflows"]}


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


def test_event_loop_is_not_blocked(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The permissions and the summaries are read in separate threads, not in those of Airflow."""
    threads = []
    for module, name in ((fleet_reader, "read_fleet"), (permissions, "readable_dag_ids")):
        original = getattr(module, name)

        def noted(*arguments: Any, original: Any = original, **named: Any) -> Any:
            threads.append(current_thread().name.partition("_")[0])
            return original(*arguments, **named)

        monkeypatch.setattr(module, name, noted)
    assert 200 == viewer.get(FLEET).status_code
    assert ["flowservice-permissions", "flowservice-reading"] == threads


def test_kept_result_is_only_for_the_same_permissions(
    viewer: Any, store: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A person who may not see a DAG does not receive the result of one who may, or of an earlier permission."""
    ends, original = [0.0], fleet_reader.read_fleet

    def slow(*arguments: Any, **named: Any) -> Any:
        ends.append(ends[-1] + 60)
        return original(*arguments, **named)

    monkeypatch.setattr(fleet_reader, "read_fleet", slow)
    monkeypatch.setattr(fleet_reading.summaries, "monotonic", lambda: ends[-1])
    store(entry(1, owner=f"{HIDDEN_DAG}/run/ingest/-1", flow_id=SECRET_FLOW))
    for _ in range(2):
        assert SECRET_FLOW in viewer.get(FLEET).text
    assert [0.0, 60.0] == ends
    request.getfixturevalue("hidden_dag_denied")
    response = viewer.get(FLEET)
    assert "page_seen" in response.text
    assert not [text for text in ("hidden", SECRET_FLOW) if text in response.text]


def test_many_people_wait_for_one_reading(
    viewer: Any, server: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty requests at once get their response, from one reading, and none of them is refused."""
    import asyncio

    import httpx

    calls, original = [], fleet_reader.read_fleet

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        assert all_wait.wait(60)
        return original(*arguments, **named)

    all_wait = Event()
    monkeypatch.setattr(fleet_reader, "read_fleet", counted)
    waiting = []
    original_get = fleet_reading.summaries.get

    async def get(*arguments: Any) -> bytes:
        waiting.append(1)
        if len(waiting) == 50:
            all_wait.set()
        return await original_get(*arguments)

    monkeypatch.setattr(fleet_reading.summaries, "get", get)

    async def run() -> list[Any]:
        transport = httpx.ASGITransport(app=server)
        headers = {"Authorization": viewer.headers["Authorization"]}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return await asyncio.gather(*(client.get(FLEET, timeout=60) for _ in range(50)))

    responses = asyncio.run(run())
    assert ([200] * 50, 1) == ([each.status_code for each in responses], len(calls))
    assert 1 == len({each.content for each in responses})
