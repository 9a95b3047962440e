# SPDX-License-Identifier: Apache-2.0
"""Verify the SQL ledger's migration, errors and time limits."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa
from raw_server import RawServer

from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowServiceError,
    LedgerConflictError,
    LedgerUnavailableError,
)
from airflow_flowservice.ledger import sql_engine
from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.ledger.sql_schema import SCHEMA_VERSION, Migration
from airflow_flowservice.windows.window import IngestionWindow

SECRET = "p8e/very secret"
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
ENTRY = LedgerEntry(
    dataflow=DataflowKey("ORG@AdobeOrg", "prod", "orders"),
    window=IngestionWindow(BEGIN, BEGIN + timedelta(days=1)),
    state=EntryState.CLAIMED,
    owner="dag/run/task/-1",
)


def error_of(work: Callable[[], Any]) -> FlowServiceError:
    """Return the error of a function, after verifying that its traceback does not contain the password."""
    with pytest.raises(FlowServiceError) as caught:
        work()
    text = "".join(traceback.format_exception(caught.value))
    assert [] == [form for form in (SECRET, "p8e", "very%20secret", "very+secret") if form in text]
    assert caught.value.__context__ is None
    return caught.value


def test_migration_is_idempotent(sql_url: str) -> None:
    """The first migration creates the tables, the second one keeps the entries."""
    ledger = SqlLedger(sql_url)
    assert Migration(before=None, after=SCHEMA_VERSION) == ledger.migrate()
    stored = ledger.put(ENTRY)
    assert Migration(before=SCHEMA_VERSION, after=SCHEMA_VERSION) == ledger.migrate()
    assert [stored] == list(ledger.entries())


def test_migrations_at_the_same_time(sql_url: str) -> None:
    """Migrations that start at the same time all succeed."""
    done: list[Migration] = []
    threads = [Thread(target=lambda: done.append(SqlLedger(sql_url).migrate())) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [SCHEMA_VERSION] * 6 == [each.after for each in done]
    assert 1 == [each.before for each in done].count(None)
    assert 1 == SqlLedger(sql_url).put(ENTRY).version


@pytest.mark.parametrize("code", [1213, 1412, 1684])
def test_conflict_of_mysql(sqlite_url: str, code: int) -> None:
    """A deadlock, or a table that another migration is changing, is a conflict, so a migration is repeated."""

    def work(_connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("SELECT 1", {}, Exception(code, "text of MySQL"))

    assert isinstance(
        error_of(lambda: sql_engine.in_transaction(sql_engine.create_limited_engine(sqlite_url), work)),
        LedgerConflictError,
    )


def test_tables_of_a_later_version(sql_url: str) -> None:
    """A migration does not change the tables of a later version."""
    SqlLedger(sql_url).migrate()
    engine = sa.create_engine(sql_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE flowservice_ledger_schema SET version = 99")
    engine.dispose()
    assert "have version 99" in error_of(SqlLedger(sql_url).migrate).message


def test_missing_tables_name_the_command(sql_url: str) -> None:
    """Without tables, each method fails without a retry, and the remedy names the command."""
    ledger = SqlLedger(sql_url)
    methods = [
        lambda: ledger.get(*ENTRY.key),
        lambda: ledger.put(ENTRY),
        lambda: ledger.remove(ENTRY),
        lambda: list(ledger.entries()),
        lambda: ledger.overlapping([ENTRY.dataflow], ENTRY.window),
    ]
    for method in methods:
        error = error_of(method)
        assert isinstance(error, ConfigurationError)
        assert "airflow flowservice ledger migrate" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg2://user:{SECRET}@127.0.0.1:port/database",
        f"not a url {SECRET}",
        f"oracle://user:{SECRET}@127.0.0.1/database",
        f"nosuchdatabase+driver://user:{SECRET}@127.0.0.1/database",
        f"mysql+nosuchdriver://user:{SECRET}@127.0.0.1/database",
        f"postgresql+asyncmy://user:{SECRET}@127.0.0.1/database",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_invalid_url(url: str) -> None:
    """An invalid URL is an error of the configuration, and no message contains the password."""
    assert isinstance(error_of(lambda: SqlLedger(url)), ConfigurationError)


def test_wrong_password_is_not_shown(postgres_url: str) -> None:
    """The error states the driver's reason without the password."""
    url = sa.engine.make_url(postgres_url).set(password=SECRET)
    error = error_of(lambda: SqlLedger(url).get(*ENTRY.key))
    assert isinstance(error, LedgerUnavailableError)
    assert "password authentication failed" in error.message


def test_unreachable_database() -> None:
    """A refused connection is a retryable error."""
    url = sa.engine.URL.create("postgresql+psycopg2", "user", SECRET, "127.0.0.1", 1, "database")
    error = error_of(lambda: SqlLedger(url).put(ENTRY))
    assert error.retryable
    assert isinstance(error, LedgerUnavailableError)


def test_unwritable_folder(tmp_path: Path) -> None:
    """An SQLite file that cannot be opened is a retryable error."""
    error = error_of(lambda: SqlLedger(f"sqlite:///{tmp_path / 'missing' / 'ledger.db'}").get(*ENTRY.key))
    assert isinstance(error, LedgerUnavailableError)


def test_server_that_never_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts connections and sends nothing ends with the connection's time limit."""
    monkeypatch.setattr(sql_engine, "CONNECT_TIMEOUT_S", 2)
    with RawServer(lambda request: [300.0]) as server:
        url = sa.engine.URL.create("postgresql+psycopg2", "user", SECRET, "127.0.0.1", server.port, "database")
        began = time.monotonic()
        assert isinstance(error_of(lambda: SqlLedger(url).put(ENTRY)), LedgerUnavailableError)
    assert time.monotonic() - began < 30


def test_server_that_stops_responding(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction ends after its time limit, also if the server does not end it."""
    monkeypatch.setattr(sql_engine, "TRANSACTION_TIMEOUT_S", 1)
    engine = sql_engine.create_limited_engine(postgres_url)
    began = time.monotonic()
    error = error_of(
        lambda: sql_engine.in_transaction(engine, lambda connection: connection.exec_driver_sql("SELECT pg_sleep(300)"))
    )
    assert isinstance(error, LedgerUnavailableError)
    assert time.monotonic() - began < 30


def test_lock_of_another_transaction(empty_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change waits for the lock of another transaction only until its time limit."""
    monkeypatch.setattr(sql_engine, "LOCK_TIMEOUT_S", 1)
    ledger = SqlLedger(empty_postgres)
    ledger.migrate()
    stored = ledger.put(ENTRY)
    engine = sa.create_engine(empty_postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT * FROM flowservice_ledger FOR UPDATE")
        assert "lock" in error_of(lambda: ledger.put(stored)).message
    engine.dispose()
    assert 2 == ledger.put(stored).version


def test_text_that_the_database_refuses(empty_postgres: str) -> None:
    """PostgreSQL stores no NUL; the error is not retried."""
    from dataclasses import replace

    ledger = SqlLedger(empty_postgres)
    ledger.migrate()
    error = error_of(lambda: ledger.put(replace(ENTRY, owner="a\0b")))
    assert isinstance(error, ConfigurationError)


def test_tables_on_mysql() -> None:
    """The statements for MySQL have a binary collation, long texts, and a key that fits an index."""
    from sqlalchemy.dialects import mysql
    from sqlalchemy.schema import CreateTable

    from airflow_flowservice.ledger.sql_schema import ledger_table

    statement = str(CreateTable(ledger_table()).compile(dialect=mysql.dialect()))
    for expected in ("MEDIUMTEXT", "utf8mb4_bin", "InnoDB", "PRIMARY KEY (dataflow_digest, window_start, window_end)"):
        assert expected in statement
