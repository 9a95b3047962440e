# SPDX-License-Identifier: Apache-2.0
"""Verify which ledger a connection and Airflow's options select."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_flowservice._airflow import ledgers
from airflow_flowservice.exceptions import ConfigurationError


def connection(conn_type: str, *, extra: Any = None, **fields: Any) -> SimpleNamespace:
    """Return a connection as Airflow has it."""
    known = {"conn_id": "ledger", "host": None, "port": None, "schema": None, "login": None, "password": None}
    return SimpleNamespace(conn_type=conn_type, extra_dejson=extra or {}, **{**known, **fields})


@pytest.mark.parametrize("conn_type", ["postgres", "postgresql", "POSTGRES"])
def test_url_of_postgres(conn_type: str) -> None:
    """All fields are used; of the extra, only the driver's options."""
    extra = {"sslmode": "require", "cursor": "dictcursor"}
    fields = {"host": "db", "port": 5433, "schema": "ledger", "login": "me", "password": "p@ss/word"}
    url = ledgers.ledger_url(connection(conn_type, extra=extra, **fields))
    assert "postgresql+psycopg2://me:p%40ss%2Fword@db:5433/ledger?sslmode=require" == url.render_as_string(False)


@pytest.mark.parametrize(
    ("host", "schema", "path"),
    [
        ("/data/l.db", None, "/data/l.db"),
        ("", "data/l.db", "/data/l.db"),
        (None, "/data/l.db", "/data/l.db"),
        ("data", "l.db", "data/l.db"),
        ("l.db", "", "l.db"),
    ],
)
def test_file_of_sqlite(host: str | None, schema: str | None, path: str) -> None:
    """The path is in the host, or is split into host and schema if the connection is a URI."""
    assert path == ledgers.ledger_url(connection("sqlite", host=host, schema=schema)).database


@pytest.mark.parametrize("conn_type", ["mysql", "mariadb"])
def test_url_of_mysql(conn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The character set is utf8mb4; Airflow's `ssl` object is passed to the driver."""
    monkeypatch.setattr(ledgers, "find_spec", lambda module: module == "pymysql")
    url = ledgers.ledger_url(connection(conn_type, host="db", schema="ledger", extra={"ssl": {"ca": "/ca.pem"}}))
    assert ("mysql+pymysql", {"charset": "utf8mb4", "ssl_ca": "/ca.pem"}) == (url.drivername, dict(url.query))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (connection("http", host="db"), "has the type 'http'"),
        (connection("postgres", host="db"), "names no database"),
        (connection("postgres", host="db", schema="x", extra={"iam": True}), "IAM authentication"),
    ],
)
def test_unusable_connection(made: Any, expected: str) -> None:
    """A connection that names no database of the ledger is an error."""
    with pytest.raises(ConfigurationError, match=expected):
        ledgers.ledger_url(made)


def test_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the connection, and the remedy the packages."""
    monkeypatch.setattr(ledgers, "find_spec", lambda module: None)
    with pytest.raises(ConfigurationError, match=r"'ledger' is not installed.*PyMySQL"):
        ledgers.ledger_url(connection("mysql", host="db", schema="x"))


@pytest.mark.parametrize(
    ("extra", "option", "expected"),
    [
        (None, None, None),
        (None, "of-option", "of-option"),
        ({"ledger_conn_id": " of-extra "}, "of-option", "of-extra"),
        ({"ledger_conn_id": ""}, "of-option", "of-option"),
        ({"ledger_conn_id": None}, "  ", None),
    ],
)
def test_choice_of_the_ledger(extra: Any, option: str | None, expected: str | None, monkeypatch: Any) -> None:
    """The extra of the Flow Service connection precedes Airflow's option."""
    if option is not None:
        monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", option)
    assert expected == ledgers.ledger_conn_id(extra)
