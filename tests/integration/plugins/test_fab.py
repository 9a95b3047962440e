# SPDX-License-Identifier: Apache-2.0
"""Access control with the roles of the FAB auth manager; runs in a separate environment with FAB."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.plugins.conftest import FLOW, HIDDEN_DAG, RANGE

os.environ["AIRFLOW__CORE__AUTH_MANAGER"] = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"

DATAFLOWS = "/flowservice/data/dataflows"
COVERAGE = "/flowservice/data/coverage"
DAG_RESOURCES = ("DAG Runs", "Task Instances", "XComs")
CUSTOM_ROLES = {
    "OneDag": ("DAG:page_seen", *DAG_RESOURCES),
    "NoXComs": ("DAG:page_seen", "DAG Runs", "Task Instances"),
    "PluginReader": ("DAGs", *DAG_RESOURCES, "Plugins"),
}
COVERAGE_PARAMETERS = {"flow_id": FLOW, **RANGE}


@pytest.fixture(scope="module")
def client(server: Any, as_user: Callable[..., Any]) -> Callable[[str], Any]:
    """Return a factory of clients with one role: a role of Airflow, or one of `CUSTOM_ROLES`."""
    from airflow.api_fastapi.app import get_auth_manager

    manager: Any = get_auth_manager()

    def client_of_role(name: str) -> Any:
        with manager.flask_app.app_context():
            security = manager.security_manager
            role = security.find_role(name) or security.add_role(name)
            for resource in CUSTOM_ROLES.get(name, ()):
                security.add_permission_to_role(role, security.create_permission("can_read", resource))
            user = security.find_user(username=name) or security.add_user(
                username=name, first_name=name, last_name=name, email=f"{name}@example.org", role=role, password=name
            )
            return as_user(user=user)

    return client_of_role


@pytest.mark.parametrize("path", [DATAFLOWS, COVERAGE])
def test_data_requires_login(as_user: Callable[..., Any], path: str) -> None:
    assert 401 == as_user().get(path, params=COVERAGE_PARAMETERS).status_code


@pytest.mark.parametrize("path", [DATAFLOWS, COVERAGE])
@pytest.mark.parametrize(
    ("role", "expected"),
    [("Public", 403), ("NoXComs", 403), ("Viewer", 200), ("User", 200), ("Op", 200), ("Admin", 200), ("OneDag", 200)],
)
def test_roles_read_only_permitted_data(client: Callable[[str], Any], role: str, expected: int, path: str) -> None:
    """A role needs permission to read a DAG, its runs, task instances and XComs."""
    assert expected == client(role).get(path, params=COVERAGE_PARAMETERS).status_code


@pytest.mark.parametrize(("role", "expected"), [("Viewer", 403), ("OneDag", 403), ("Op", 502), ("Admin", 502)])
def test_querying_flow_service_requires_permission_to_read_the_connection(
    client: Callable[[str], Any], role: str, expected: int
) -> None:
    """Only a user who may read connections learns that the connection does not exist."""
    response = client(role).get(COVERAGE, params={**COVERAGE_PARAMETERS, "conn_id": "no_such_connection"})
    assert expected == response.status_code


@pytest.mark.parametrize("path", [DATAFLOWS, COVERAGE])
def test_user_with_one_dag_sees_only_that_dag(client: Callable[[str], Any], path: str) -> None:
    """The other DAG stays hidden although it ingests into the same dataflow."""
    response = client("OneDag").get(path, params=COVERAGE_PARAMETERS)
    assert "page_seen" in response.text
    assert "hidden" not in response.text
    if path == COVERAGE:
        assert (7, []) == (response.json()["totals"]["missing"]["windows"], response.json()["unplaced"])


@pytest.mark.parametrize("dag_id", ["~", HIDDEN_DAG, "no_such_dag"])
def test_unreadable_dag_is_refused(client: Callable[[str], Any], dag_id: str) -> None:
    """The wildcard `~`, a hidden DAG and a missing DAG get the same status."""
    response = client("OneDag").get(COVERAGE, params={**COVERAGE_PARAMETERS, "dag_id": dag_id})
    assert 403 == response.status_code
    assert "hidden" not in response.text


@pytest.mark.parametrize(("role", "expected"), [("Viewer", 403), ("PluginReader", 200)])
def test_menu_entry_requires_permission_to_read_plugins(client: Callable[[str], Any], role: str, expected: int) -> None:
    """A Viewer needs an additional permission, as docs/coverage.md states."""
    assert expected == client(role).get("/api/v2/plugins").status_code
