# SPDX-License-Identifier: Apache-2.0
"""Fixtures for Airflow's API server with its database, its auth manager, and the plugin loaded by Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice._airflow import versions
from tests.dag_history import DagHistory

# The FAB auth manager conflicts with the other pinned versions, so its tests run in a separate environment.
collect_ignore = [] if find_spec("airflow.providers.fab") else ["test_fab.py"]
# Airflow before 3.1 does not show pages of plugins.
collect_ignore_glob = ["test_*.py"] if versions.version() < (3, 1) else []

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
FLOW = "c9cef9cb-c934-4467-8ef9-cbc934546741"
SECRET_FLOW = "0e0e0e0e-0000-4000-8000-000000000000"
HOSTILE = "<img src=x onerror=alert(1)>"
RANGE = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-11T00:00:00Z"}
HIDDEN_DAG = "page_hidden"
PAGE_DAGS = ("page_seen", HIDDEN_DAG, "page_hostile")

_DAGS = f"""
import pendulum
from airflow.sdk import DAG
from airflow_flowservice.operators import OnDemandFlowRunOperator

for dag_id, schedule in (("page_seen", "@daily"), ("{HIDDEN_DAG}", "@daily"), ("page_hostile", None)):
    with DAG(dag_id=dag_id, schedule=schedule, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        OnDemandFlowRunOperator(task_id="ingest", flow_id="{FLOW}")
    globals()[dag_id] = dag
"""


def day(number: int) -> datetime:
    """Return the start of a day, counted from `BEGIN`."""
    return BEGIN + number * DAY


def window(number: int) -> tuple[datetime, datetime]:
    """Return the window of a day; the daily DAG's run with the logical date of the next day ingests it."""
    return day(number), day(number + 1)


@pytest.fixture(scope="module", autouse=True)
def database(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Fill the metadata database with three DAGs and their past; return its URL.

    The dataflow's first days: ingested, failed, duplicated, missing, ingested by the hidden DAG, then missing.
    All of it is removed after the module, because other modules count the dataflows of this database.
    """
    from airflow.api.common.delete_dag import delete_dag

    yield _filled(airflow_db, tmp_path_factory)
    for dag_id in PAGE_DAGS:
        delete_dag(dag_id)


def _filled(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    _register_dags(tmp_path_factory.mktemp("dags"))
    url = f"sqlite:///{airflow_db}"
    seen = DagHistory(dag_id="page_seen", flow_id=FLOW)
    seen.add_run(day(1), window=window(0), failed_records=3, failed_records_derived=True)
    seen.add_run(day(2), window=window(1), state="failed", status="failed")
    seen.add_run(day(3), window=window(2))
    seen.add_run(day(3), window=window(2), manual=True)
    seen.write(url)
    hidden = DagHistory(dag_id=HIDDEN_DAG, flow_id=FLOW)
    hidden.add_run(day(5), window=window(4), output_records=777)
    hidden.add_run(day(6), window=None, run_id="hidden_without_a_window", manual=True)
    hidden.write(url)
    hostile = DagHistory(dag_id="page_hostile", flow_id=HOSTILE)
    hostile.add_run(
        day(1), window=window(0), manual=True, run_id=HOSTILE, id="<script>alert(2)</script>", url="javascript:3"
    )
    hostile.write(url)
    return url


def _register_dags(folder: Path) -> None:
    """Write the DAGs to the database with the functions that the dag-processor uses."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag, sync_bag_to_db

    (folder / "page.py").write_text(_DAGS)
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(DagBag(dag_folder=str(folder), bundle_path=folder), "dags-folder", None)


@pytest.fixture(scope="session")
def server(airflow_db: Path) -> Any:
    """Return the application that `airflow api-server` serves."""
    from airflow.api_fastapi.app import create_app

    return create_app(apps="core")


@pytest.fixture(scope="session")
def as_user(server: Any) -> Callable[..., Any]:
    """Return a factory of clients with the token of a role (simple auth manager) or of a user."""
    from fastapi.testclient import TestClient

    def client(role: str | None = None, *, user: Any = None) -> Any:
        headers = {}
        if role or user:
            headers["Authorization"] = f"Bearer {_token(role, user=user)}"
        return TestClient(server, headers=headers, raise_server_exceptions=False)

    return client


def _token(role: str | None, *, user: Any) -> str:
    from airflow.api_fastapi.app import get_auth_manager

    return get_auth_manager().generate_jwt(user or _simple_user(role))


def _simple_user(role: str | None) -> Any:
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    return SimpleAuthManagerUser(username="test", role=role)


@pytest.fixture
def viewer(as_user: Callable[..., Any]) -> Iterator[Any]:
    """Create a client with the role `viewer`, which may read all DAGs."""
    client = as_user("viewer")
    yield client
    client.close()
