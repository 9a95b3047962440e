"""Who may see what, with Airflow's simple auth manager: what a plugin mounts is open until it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.plugins.conftest import FLOW, HIDDEN_DAG, RANGE

DATAFLOWS = "/flowservice/data/dataflows"
COVERAGE = "/flowservice/data/coverage"
ROLES = ("viewer", "user", "op", "admin")


@pytest.fixture
def one_dag(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may read the hidden DAG; Airflow's simple auth manager knows no such thing."""
    from airflow.api_fastapi.app import get_auth_manager

    manager = get_auth_manager()
    whole = manager.is_authorized_dag

    def is_authorized_dag(*, details: Any = None, **asked: Any) -> bool:
        return (details is None or details.id != HIDDEN_DAG) and whole(details=details, **asked)

    monkeypatch.setattr(manager, "is_authorized_dag", is_authorized_dag)


@pytest.mark.parametrize("path", [DATAFLOWS, f"{COVERAGE}?flow_id={FLOW}", f"{COVERAGE}?flow_id=none"])
def test_nobody_sees_data_without_a_login(as_user: Callable[..., Any], path: str) -> None:
    """Neither a dataflow's windows nor whether there is one; and the answer says what to do."""
    answer = as_user().get(path)
    assert 401 == answer.status_code
    assert {"error", "remedy"} == set(answer.json())
    assert "log in" in answer.json()["remedy"]


def test_a_bad_token_is_refused(as_user: Callable[..., Any]) -> None:
    """With one that nobody signed, nothing is answered."""
    assert as_user().get(DATAFLOWS, headers={"Authorization": "Bearer bad"}).status_code in (401, 403)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_read_dags(as_user: Callable[..., Any], role: str) -> None:
    """All of the simple auth manager's may, so they see the windows too."""
    client = as_user(role)
    assert FLOW in [each["flow_id"] for each in client.get(DATAFLOWS).json()["dataflows"]]
    assert 200 == client.get(COVERAGE, params={"flow_id": FLOW, **RANGE}).status_code


@pytest.mark.parametrize(("role", "expected"), [("viewer", 403), ("user", 403), ("op", 502), ("admin", 502)])
def test_flow_service_is_asked_only_with_a_connection_that_one_may_read(
    as_user: Callable[..., Any], role: str, expected: int
) -> None:
    """Whether there is such a connection is told only to those who may read it."""
    asked = {"flow_id": FLOW, "conn_id": "no_such_connection", **RANGE}
    answer = as_user(role).get(COVERAGE, params=asked)
    assert expected == answer.status_code
    assert ("may not read the connection" in answer.json()["error"]) is (expected == 403)


@pytest.mark.parametrize("dag_id", ["~", "no_such_dag", HIDDEN_DAG, "*", "%"])
@pytest.mark.usefixtures("one_dag")
def test_a_dag_must_be_one_that_the_user_may_read(viewer: Any, dag_id: str) -> None:
    """What Airflow takes for all DAGs is none; one that is hidden looks as if it were not there."""
    answers = [viewer.get(COVERAGE, params={"flow_id": FLOW, "dag_id": each, **RANGE}) for each in (dag_id, "nothing")]
    assert [403, 403] == [answer.status_code for answer in answers]
    assert answers[0].json() == answers[1].json()


@pytest.mark.usefixtures("one_dag")
@pytest.mark.parametrize("path", [DATAFLOWS, COVERAGE])
def test_nothing_of_a_hidden_dag_leaks(viewer: Any, path: str) -> None:
    """Neither its id nor its runs, their records or their number, though it feeds the same dataflow."""
    answer = viewer.get(path, params={"flow_id": FLOW, **RANGE})
    assert 200 == answer.status_code
    assert "page_seen" in answer.text
    assert "hidden" not in answer.text
    if path == COVERAGE:
        assert (7, []) == (answer.json()["totals"]["missing"]["windows"], answer.json()["unplaced"])
        assert 777 not in answer.json()["runs"]["records"]


def test_who_may_read_it_sees_the_same_dag(viewer: Any) -> None:
    """The test before this one would otherwise pass with nothing there to hide."""
    answer = viewer.get(COVERAGE, params={"flow_id": FLOW, **RANGE}).json()
    assert {"page_seen", HIDDEN_DAG} == set(answer["dag_ids"])
    assert (6, 1) == (answer["totals"]["missing"]["windows"], len(answer["unplaced"]))
    assert 777 in answer["runs"]["records"]


def test_without_any_permission_the_answer_says_which_is_needed(
    viewer: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may read DAGs and no XComs."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity

    def no_xcoms(*, access_entity: Any = None, **_: Any) -> bool:
        return access_entity is not DagAccessEntity.XCOM

    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", no_xcoms)
    answer = viewer.get(DATAFLOWS)
    assert 403 == answer.status_code
    assert "XComs" in answer.json()["remedy"]
