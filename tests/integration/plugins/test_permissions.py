# SPDX-License-Identifier: Apache-2.0
"""Access control of the data endpoints with Airflow's simple auth manager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.plugins.conftest import FLOW, HIDDEN_DAG, RANGE

DATAFLOWS = "/flowservice/data/dataflows"
COVERAGE = "/flowservice/data/coverage"
ROLES = ("viewer", "user", "op", "admin")


@pytest.fixture
def hidden_dag_denied(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deny access to the hidden DAG; Airflow's simple auth manager has no permissions per DAG."""
    from airflow.api_fastapi.app import get_auth_manager

    manager = get_auth_manager()
    original = manager.is_authorized_dag

    def is_authorized_dag(*, details: Any = None, **arguments: Any) -> bool:
        return (details is None or details.id != HIDDEN_DAG) and original(details=details, **arguments)

    monkeypatch.setattr(manager, "is_authorized_dag", is_authorized_dag)


@pytest.mark.parametrize("path", [DATAFLOWS, f"{COVERAGE}?flow_id={FLOW}", f"{COVERAGE}?flow_id=none"])
def test_data_requires_login(as_user: Callable[..., Any], path: str) -> None:
    """Without a login, the response reveals nothing about the dataflow and its remedy says to log in."""
    response = as_user().get(path)
    assert 401 == response.status_code
    assert {"error", "remedy"} == set(response.json())
    assert "log in" in response.json()["remedy"]


@pytest.mark.parametrize("path", [DATAFLOWS, "/flowservice/data/fleet"])
def test_invalid_token_is_no_login(as_user: Callable[..., Any], path: str) -> None:
    """Airflow's own status for a revoked token is 403. On the page, it is no missing permission: a login helps."""
    response = as_user().get(path, headers={"Authorization": "Bearer bad"})
    assert (401, True) == (response.status_code, "log in" in response.json()["remedy"])


def test_other_errors_of_the_auth_manager_keep_their_status(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unavailable identity provider is no expired login."""
    from airflow.api_fastapi.app import get_auth_manager
    from fastapi import HTTPException

    async def unavailable(*_: Any) -> None:
        raise HTTPException(503, "the identity provider is unavailable")

    monkeypatch.setattr(get_auth_manager(), "get_user_from_token", unavailable)
    response = viewer.get(DATAFLOWS)
    assert (503, False) == (response.status_code, "log in" in response.json()["remedy"])


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_read_windows(as_user: Callable[..., Any], role: str) -> None:
    """All roles of the simple auth manager may read DAGs, so they may also read the windows."""
    client = as_user(role)
    assert FLOW in [each["flow_id"] for each in client.get(DATAFLOWS).json()["dataflows"]]
    assert 200 == client.get(COVERAGE, params={"flow_id": FLOW, **RANGE}).status_code


@pytest.mark.parametrize(("role", "expected"), [("viewer", 403), ("user", 403), ("op", 502), ("admin", 502)])
def test_querying_flow_service_requires_permission_to_read_the_connection(
    as_user: Callable[..., Any], role: str, expected: int
) -> None:
    """Only a user who may read connections learns that the connection does not exist."""
    parameters = {"flow_id": FLOW, "conn_id": "no_such_connection", **RANGE}
    response = as_user(role).get(COVERAGE, params=parameters)
    assert expected == response.status_code
    assert ("may not read the connection" in response.json()["error"]) is (expected == 403)


@pytest.mark.parametrize("dag_id", ["~", "no_such_dag", HIDDEN_DAG, "*", "%"])
@pytest.mark.usefixtures("hidden_dag_denied")
def test_unreadable_dag_looks_like_missing_dag(viewer: Any, dag_id: str) -> None:
    """Wildcards are no DAG ids. The response to a hidden DAG equals the response to a missing one."""
    responses = [
        viewer.get(COVERAGE, params={"flow_id": FLOW, "dag_id": each, **RANGE}) for each in (dag_id, "nothing")
    ]
    assert [403, 403] == [response.status_code for response in responses]
    assert responses[0].json() == responses[1].json()


@pytest.mark.usefixtures("hidden_dag_denied")
@pytest.mark.parametrize("path", [DATAFLOWS, COVERAGE])
def test_hidden_dag_is_not_revealed(viewer: Any, path: str) -> None:
    """The response contains no id, run or record count of a hidden DAG that ingests into the same dataflow."""
    response = viewer.get(path, params={"flow_id": FLOW, **RANGE})
    assert 200 == response.status_code
    assert "page_seen" in response.text
    assert "hidden" not in response.text
    if path == COVERAGE:
        assert (7, []) == (response.json()["totals"]["missing"]["windows"], response.json()["unplaced"])
        assert 777 not in response.json()["runs"]["records"]


@pytest.mark.parametrize("path", [DATAFLOWS, "/flowservice/data/fleet"])
def test_auth_manager_gets_the_team_of_each_dag(
    as_user: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """An auth manager may decide by the team that owns a DAG's bundle."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.team import Team
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from airflow_flowservice.plugins.fleet_reading import summaries

    with create_session(scoped=False) as session:
        name = session.scalar(select(DagModel.bundle_name).where(DagModel.dag_id == HIDDEN_DAG))
        bundle = session.scalar(select(DagBundleModel).where(DagBundleModel.name == name))
        assert bundle is not None
        bundle.teams = [Team(name="ingestion")]
    teams: set[str | None] = set()

    def is_authorized_dag(*, details: Any = None, **arguments: Any) -> bool:
        if arguments.get("access_entity") and details:
            teams.add(details.team_name)
        return True

    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", is_authorized_dag)
    summaries.clear()
    try:
        assert 200 == as_user("viewer").get(path).status_code
    finally:
        with create_session(scoped=False) as session:
            session.delete(session.scalar(select(Team).where(Team.name == "ingestion")))
    assert {"ingestion"} == teams


def test_permitted_user_sees_the_hidden_dag(viewer: Any) -> None:
    """The hidden DAG has data, so the previous test does not pass by accident.

    Its history begins later than the other DAG's, so one window is unknown instead of missing.
    """
    response = viewer.get(COVERAGE, params={"flow_id": FLOW, **RANGE}).json()
    assert {"page_seen", HIDDEN_DAG} == set(response["dag_ids"])
    totals = response["totals"]
    assert (5, 1) == (totals["missing"]["windows"], totals["unknown"]["windows"])
    assert 1 == len(response["unplaced"])
    assert 777 in response["runs"]["records"]


def test_response_names_the_missing_permission(viewer: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user may read DAGs but no XComs."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity

    def no_xcoms(*, access_entity: Any = None, **_: Any) -> bool:
        return access_entity is not DagAccessEntity.XCOM

    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", no_xcoms)
    response = viewer.get(DATAFLOWS)
    assert 403 == response.status_code
    assert "XComs" in response.json()["remedy"]
