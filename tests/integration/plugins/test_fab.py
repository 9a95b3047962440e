"""Who may see what, with the roles of the FAB auth manager; run by itself, where that is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.plugins.conftest import FLOW, HIDDEN_DAG, RANGE

os.environ["AIRFLOW__CORE__AUTH_MANAGER"] = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"

DATAFLOWS = "/flowservice/data/dataflows"
COVERAGE = "/flowservice/data/coverage"
OF_A_DAG = ("DAG Runs", "Task Instances", "XComs")
OWN_ROLES = {
    "OneDag": ("DAG:page_seen", *OF_A_DAG),
    "NoXComs": ("DAG:page_seen", "DAG Runs", "Task Instances"),
    "Seer": ("DAGs", *OF_A_DAG, "Plugins"),
}
COVERED = {"flow_id": FLOW, **RANGE}


@pytest.fixture(scope="module")
def client(server: Any, as_user: Callable[..., Any]) -> Callable[[str], Any]:
    """A client of a user with one role: Airflow's own, or one of these tests'."""
    from airflow.api_fastapi.app import get_auth_manager

    manager: Any = get_auth_manager()

    def of_role(name: str) -> Any:
        with manager.flask_app.app_context():
            security = manager.security_manager
            role = security.find_role(name) or security.add_role(name)
            for resource in OWN_ROLES.get(name, ()):
                security.add_permission_to_role(role, security.create_permission("can_read", resource))
            user = security.find_user(username=name) or security.add_user(
                username=name, first_name=name, last_name=name, email=f"{name}@example.org", role=role, password=name
            )
            return as_user(user=user)

    return of_role


@pytest.mark.parametrize("path", [DATAFLOWS, COVERAGE])
def test_nobody_sees_data_without_a_login(as_user: Callable[..., Any], path: str) -> None:
    """401, whatever is asked."""
    assert 401 == as_user().get(path, params=COVERED).status_code


@pytest.mark.parametrize("path", [DATAFLOWS, COVERAGE])
@pytest.mark.parametrize(
    ("role", "expected"),
    [("Public", 403), ("NoXComs", 403), ("Viewer", 200), ("User", 200), ("Op", 200), ("Admin", 200), ("OneDag", 200)],
)
def test_roles_see_what_they_may_read(client: Callable[[str], Any], role: str, expected: int, path: str) -> None:
    """A DAG, its runs, task instances and XComs are needed."""
    assert expected == client(role).get(path, params=COVERED).status_code


@pytest.mark.parametrize(("role", "expected"), [("Viewer", 403), ("OneDag", 403), ("Op", 502), ("Admin", 502)])
def test_flow_service_is_asked_only_with_a_connection_that_one_may_read(
    client: Callable[[str], Any], role: str, expected: int
) -> None:
    """Those who may read connections are told that there is none of this name."""
    answer = client(role).get(COVERAGE, params={**COVERED, "conn_id": "no_such_connection"})
    assert expected == answer.status_code


@pytest.mark.parametrize("path", [DATAFLOWS, COVERAGE])
def test_a_user_with_one_dag_sees_that_one_alone(client: Callable[[str], Any], path: str) -> None:
    """Though the other one feeds the same dataflow."""
    answer = client("OneDag").get(path, params=COVERED)
    assert "page_seen" in answer.text
    assert "hidden" not in answer.text
    if path == COVERAGE:
        assert (7, []) == (answer.json()["totals"]["missing"]["windows"], answer.json()["unplaced"])


@pytest.mark.parametrize("dag_id", ["~", HIDDEN_DAG, "no_such_dag"])
def test_a_dag_must_be_one_that_the_user_may_read(client: Callable[[str], Any], dag_id: str) -> None:
    """Also the one that Airflow takes for all; the one that is there and the one that is not look alike."""
    answer = client("OneDag").get(COVERAGE, params={**COVERED, "dag_id": dag_id})
    assert 403 == answer.status_code
    assert "hidden" not in answer.text


@pytest.mark.parametrize(("role", "expected"), [("Viewer", 403), ("Seer", 200)])
def test_airflows_menu_has_the_page_for_those_who_may_read_plugins(
    client: Callable[[str], Any], role: str, expected: int
) -> None:
    """As docs/coverage.md says: a Viewer needs one permission more."""
    assert expected == client(role).get("/api/v2/plugins").status_code
