# SPDX-License-Identifier: Apache-2.0
"""Preview of a fill: response, permissions, and requests that Airflow's API accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.plugins.conftest import FLOW, HIDDEN_DAG, RANGE

FILL = "/flowservice/data/fill"
SELECTION = {"flow_id": FLOW, "dag_id": "page_seen", **RANGE}


@pytest.fixture
def preview(viewer: Any) -> Callable[..., Any]:
    """Return a function that requests the preview as viewer."""

    def get(**parameters: Any) -> Any:
        return viewer.get(FILL, params={**SELECTION, **parameters})

    return get


def actions_of(document: Any) -> list[tuple[str, int]]:
    """Return the action and the number of windows of each step."""
    return [(step["action"], len(step["windows"])) for step in document["steps"]]


def starts_of(document: Any) -> list[str]:
    return [each["window_start"][:10] for step in document["steps"] for each in step["windows"]]


def test_preview_lists_exactly_the_open_windows(preview: Any) -> None:
    """Day 2 failed, day 3 is duplicated, and the rest is missing."""
    document = preview().json()
    assert ([("backfill", 1), ("backfill", 7)], 8) == (actions_of(document), document["dag_runs"])
    assert ["2026-01-02", *[f"2026-01-{day:02}" for day in range(4, 11)]] == starts_of(document)
    (window,) = document["steps"][0]["windows"]
    assert "scheduled__2026-01-03T00:00:00+00:00" == window["dag_run_id"]
    (request,) = document["steps"][1]["requests"]
    assert ("POST", "/api/v2/backfills") == (request["method"], request["path"])
    assert ("2026-01-05T00:00:00+00:00", "2026-01-11T00:00:00+00:00", "none") == (
        request["body"]["from_date"],
        request["body"]["to_date"],
        request["body"]["reprocess_behavior"],
    )
    assert " fill --dag-id page_seen --from 2026-01-01T00:00:00Z " in document["command"]
    assert (document["paused"], document["unknown"]) in [(True, 0), (False, 0)]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"purpose": "retry"}, ["2026-01-02"]),
        ({"purpose": "restate"}, ["2026-01-01", "2026-01-03"]),
        ({"from": "2026-01-04T12:00:00Z", "to": "2026-01-06T00:00:00Z"}, ["2026-01-04", "2026-01-05"]),
        ({"chunk": "3d"}, ["2026-01-02", "2026-01-04", "2026-01-07", "2026-01-10"]),
    ],
    ids=["retry", "restate", "part", "chunks"],
)
def test_selection(preview: Any, parameters: dict[str, str], expected: list[str]) -> None:
    """A window across the edge of the selection is filled completely."""
    assert expected == starts_of(preview(**parameters).json())


def test_restate_has_the_key_in_the_conf(preview: Any) -> None:
    requests = [request for step in preview(purpose="restate").json()["steps"] for request in step["requests"]]
    assert requests
    for request in requests:
        if request["path"] == "/api/v2/backfills":
            assert {"flowservice": {"restate": [FLOW]}} == request["body"]["dag_run_conf"]


@pytest.mark.parametrize(
    ("parameters", "status", "message"),
    [
        ({"chunk": "5y"}, 400, "no length of a chunk"),
        ({"purpose": "delete"}, 400, "purpose"),
        ({"from": "yesterday"}, 400, "from"),
        ({"from": "2026-01-11T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, 400, "range"),
        ({"flow_id": "other"}, 404, "No task that you may read"),
        ({"dag_id": "~"}, 403, "There is no such DAG"),
        ({"conn_id": "no_such_connection"}, 403, "may not read the connection"),
        ({"conn_id": "nul\0"}, 400, "no connection id can have"),
    ],
    ids=["chunk", "purpose", "time", "order", "flow", "wildcard", "connection", "nul"],
)
def test_invalid_requests(preview: Any, parameters: dict[str, str], status: int, message: str) -> None:
    response = preview(**parameters)
    assert status == response.status_code
    assert message in response.json()["error"]


def test_preview_requires_login(as_user: Callable[..., Any]) -> None:
    assert 401 == as_user().get(FILL, params=SELECTION).status_code


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_route_changes_nothing(as_user: Callable[..., Any], method: str) -> None:
    """The route only reads, also for an administrator."""
    assert 405 == getattr(as_user("admin"), method)(FILL).status_code


@pytest.mark.parametrize(("role", "is_refused"), [("viewer", True), ("user", False), ("op", False), ("admin", False)])
def test_refusal_names_the_missing_permission(as_user: Callable[..., Any], role: str, is_refused: bool) -> None:
    """The page disables its buttons with this sentence; Airflow's API refuses the same users."""
    client = as_user(role)
    refusal = client.get(FILL, params=SELECTION).json()["refusal"]
    coverage = client.get("/flowservice/data/coverage", params=SELECTION).json()
    assert {"page_seen": refusal} == coverage["fill_refusals"]
    assert is_refused == (refusal is not None)
    if is_refused:
        assert "You may not create runs of DAG page_seen" in refusal
    dry_run = client.get(FILL, params=SELECTION).json()["steps"][0]["requests"][0]["body"]
    response = client.post("/api/v2/backfills/dry_run", json=dry_run)
    assert is_refused == (response.status_code == 403), response.text


def test_hidden_dag_cannot_be_previewed(viewer: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.app import get_auth_manager

    manager = get_auth_manager()
    original = manager.is_authorized_dag

    def is_authorized_dag(*, details: Any = None, **arguments: Any) -> bool:
        return (details is None or details.id != HIDDEN_DAG) and original(details=details, **arguments)

    monkeypatch.setattr(manager, "is_authorized_dag", is_authorized_dag)
    response = viewer.get(FILL, params={**SELECTION, "dag_id": HIDDEN_DAG})
    assert 403 == response.status_code
    assert "hidden" not in response.text


@pytest.fixture
def clean_backfills() -> Iterator[None]:
    """Remove the DAG runs that a test creates."""
    yield
    from airflow.models.backfill import Backfill, BackfillDagRun
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    with create_session() as session:
        created = select(DagRun.run_id).where(DagRun.run_type.in_(["backfill"]) | DagRun.run_id.like("flowservice%"))
        session.execute(delete(TaskInstance).where(TaskInstance.run_id.in_(created)))
        session.execute(delete(BackfillDagRun))
        session.execute(delete(DagRun).where(DagRun.run_id.in_(created)))
        session.execute(delete(Backfill))


@pytest.mark.usefixtures("clean_backfills")
def test_airflow_accepts_the_requests_once(as_user: Callable[..., Any]) -> None:
    """A second backfill is refused with 409, and so is a second DAG run with the same window."""
    admin = as_user("admin")
    part = {**SELECTION, "from": "2026-01-05T00:00:00Z", "to": "2026-01-07T00:00:00Z"}
    chunked = admin.get(FILL, params={**part, "chunk": "1w"}).json()["steps"][0]["requests"][0]
    statuses = [admin.post(chunked["path"], json=chunked["body"]).status_code for _ in range(2)]
    assert [200, 409] == statuses
    # The windows are running now, so a new preview does not list them.
    assert [] == admin.get(FILL, params=part).json()["steps"]
    later = {**SELECTION, "from": "2026-01-08T00:00:00Z", "to": "2026-01-10T00:00:00Z"}
    (backfill,) = admin.get(FILL, params=later).json()["steps"][0]["requests"]
    statuses = [admin.post(backfill["path"], json=backfill["body"]).status_code for _ in range(2)]
    assert [200, 409] == statuses
    assert [] == admin.get(FILL, params=later).json()["steps"]
