# SPDX-License-Identifier: Apache-2.0
"""Connections of the SQL ledger: time limits, short transactions, and errors without secrets.

SQLAlchemy is imported when a connection is made, because DAG files import parts of this package.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from threading import Timer
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, quote_plus

from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowServiceError,
    LedgerConflictError,
    LedgerUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Connection, Engine

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 20
TRANSACTION_TIMEOUT_S = 30
"""Limit of a transaction including its connection, also if the server stops responding."""

CONFLICT = "another process changed this window's entry in the ledger"
MIGRATE_REMEDY = (
    "run `airflow flowservice ledger migrate` with the same ledger connection "
    "(before Airflow 3.2: `python -m airflow_flowservice ledger migrate`)"
)

_NO_TABLE = frozenset({"42P01", "42703", 1146, 1054})
_NOT_PERMITTED = frozenset({"42501", 1142, 1143, 1044})
# The last two: MySQL reports a table that another migration is changing.
_LOST_TO_ANOTHER = frozenset({"40001", "40P01", 1213, 1412, 1684})
_NO_SQLITE_TABLE = re.compile(r"no such (table|column)|has no column named")
_REASON_LENGTH = 300
_SECRET_OPTION = re.compile(r"pass|secret|token|key", re.IGNORECASE)


def create_limited_engine(url: str | URL) -> Engine:
    """Return an engine whose connections and transactions have time limits.

    Each transaction has a separate connection: a task that waits for hours keeps none open, and a forked process
    cannot use its parent's connection.

    :raises ConfigurationError: the URL is invalid, or the driver is not installed; the message has no part of the URL.
    """
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    failure: ConfigurationError
    try:
        parsed = make_url(url)
        engine = create_engine(parsed, poolclass=NullPool, hide_parameters=True, **_limits_of(parsed))
        event.listen(engine, "connect", _start_deadline, insert=True)
        event.listen(engine, "close", _end_deadline)
        return engine
    except ImportError as error:
        failure = ConfigurationError(
            f"the driver of the ledger's database is not installed: Python cannot import {error.name or 'it'}",
            remedy="install it where tasks, the triggerer and the API server run: psycopg2-binary or PyMySQL",
        )
    except (SQLAlchemyError, ValueError) as error:
        failure = ConfigurationError(
            f"the ledger's database URL is invalid ({type(error).__name__})",
            remedy="correct the ledger's connection; its type is postgres, mysql or sqlite",
        )
    # Outside of `except`, so that no traceback contains SQLAlchemy's message, which quotes the URL.
    raise failure


def _limits_of(url: URL) -> dict[str, Any]:
    """Return the arguments of `create_engine` that limit the time of a connection.

    :raises ConfigurationError: the database is an SQLite database in memory.
    """
    dialect = url.get_backend_name()
    if dialect == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigurationError(
                "the ledger's SQLite database has no file", remedy="set the host of the connection to the file's path"
            )
        # SQLite has one lock for the whole file, and does not serve waiting processes in their order.
        return {"connect_args": {"timeout": TRANSACTION_TIMEOUT_S}}
    if dialect == "postgresql":
        known = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "airflow-flowservice"}
        # A stricter level, which can be a default of the database, would refuse concurrent changes.
        return {"connect_args": _defaults(known, url), "isolation_level": "READ COMMITTED"}
    if dialect in ("mysql", "mariadb"):
        known = {"connect_timeout": CONNECT_TIMEOUT_S}
        if url.get_driver_name() in ("mysqldb", "pymysql"):
            known |= {"read_timeout": STATEMENT_TIMEOUT_S, "write_timeout": STATEMENT_TIMEOUT_S}
        return {"connect_args": _defaults(known, url)}
    raise ConfigurationError(
        f"the ledger's database is of the unknown kind {dialect[:40]!r}",
        remedy="use PostgreSQL, MySQL, MariaDB or SQLite",
    )


def _defaults(known: dict[str, Any], url: URL) -> dict[str, Any]:
    return {name: value for name, value in known.items() if name not in url.query}


def in_transaction(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Open a connection, return the result of `work` with it, and commit.

    :raises LedgerUnavailableError: the database cannot be reached, or did not respond within the time limit.
    :raises LedgerConflictError: the transaction lost to another one; nothing was changed.
    :raises ConfigurationError: the tables are missing or not permitted, or the database cannot store a value.
    """
    from sqlalchemy.exc import SQLAlchemyError

    failure: FlowServiceError
    try:
        with engine.begin() as connection:
            _limit_statements(connection)
            return work(connection)
    # SQLAlchemy does not wrap the driver's errors while it initializes a connection.
    except (SQLAlchemyError, getattr(engine.dialect.dbapi, "Error", SQLAlchemyError)) as error:
        failure = _ledger_error(error, secrets=_secrets_of(engine.url))
    # Outside of `except`, so that no traceback contains the driver's error, which may quote the connection's settings.
    raise failure


def _limit_statements(connection: Connection) -> None:
    """Set the time limits of the server for this transaction.

    PgBouncer refuses them as startup parameters, and would pass those of a session to other users.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        settings = {"statement_timeout": STATEMENT_TIMEOUT_S, "lock_timeout": LOCK_TIMEOUT_S}
        calls = ", ".join(f"set_config('{name}', '{seconds}s', true)" for name, seconds in settings.items())
        connection.exec_driver_sql(f"SELECT {calls}")
    elif dialect in ("mysql", "mariadb"):
        connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}")


def _start_deadline(connection: Any, record: Any) -> None:
    """End the connection's socket after the time limit.

    The server's own limits do not work if the server, or the network to it, stops responding.
    """
    if not hasattr(connection, "fileno"):
        return
    # The duplicate stays valid if the driver closes the connection and its descriptor is used again.
    duplicate = socket.socket(fileno=os.dup(connection.fileno()))
    timer = Timer(TRANSACTION_TIMEOUT_S, _shut_down, args=(duplicate,))
    timer.daemon = True
    record.info["deadline"] = timer, duplicate
    timer.start()


def _end_deadline(_connection: Any, record: Any) -> None:
    timer, duplicate = record.info.pop("deadline", (None, None))
    if timer is not None:
        timer.cancel()
        duplicate.close()


def _shut_down(duplicate: socket.socket) -> None:
    with suppress(OSError):
        duplicate.shutdown(socket.SHUT_RDWR)
    duplicate.close()


def _ledger_error(error: Exception, *, secrets: tuple[str, ...]) -> FlowServiceError:
    from sqlalchemy.exc import DataError, IntegrityError

    reason = _reason_of(error, secrets=secrets)
    codes = _codes_of(error)
    if isinstance(error, IntegrityError) or codes & _LOST_TO_ANOTHER:
        return LedgerConflictError(CONFLICT)
    if codes & _NO_TABLE or _NO_SQLITE_TABLE.search(reason):
        return ConfigurationError(f"the ledger's tables are missing or old ({reason})", remedy=MIGRATE_REMEDY)
    if codes & _NOT_PERMITTED:
        return ConfigurationError(
            f"the ledger's database user may not use its tables ({reason})",
            remedy="grant SELECT, INSERT, UPDATE and DELETE on flowservice_ledger to the user of the connection",
        )
    if isinstance(error, DataError):
        return ConfigurationError(f"the ledger's database cannot store a value ({reason})")
    return LedgerUnavailableError(f"the ledger's database cannot be used ({reason})")


def _codes_of(error: Exception) -> set[Any]:
    """Return the SQLSTATE of PostgreSQL, or the error number of MySQL."""
    original = getattr(error, "orig", error)
    first = original.args[:1] if isinstance(original, BaseException) else ()
    found = (getattr(original, "pgcode", None), getattr(original, "sqlstate", None), *first)
    return {code for code in found if isinstance(code, str | int)}


def _reason_of(error: Exception, *, secrets: tuple[str, ...]) -> str:
    """Return the class and the first line of the driver's message, with `***` for secrets.

    SQLAlchemy's message is not used: it contains the statement.
    """
    original = getattr(error, "orig", error)
    # The messages of MySQL's drivers are `(number, text)`.
    text = str(original.args[-1]) if isinstance(original, BaseException) and original.args else ""
    line = text.strip().partition("\n")[0]
    for secret in secrets:
        line = line.replace(secret, "***")
    return f"{type(original or error).__name__}: {line[:_REASON_LENGTH]}".rstrip(": ")


def _secrets_of(url: URL) -> tuple[str, ...]:
    """Return the password and other secrets of a URL, in their spellings, the longest first."""
    values = [str(url.password)] if url.password else []
    values += [str(value) for name, value in url.query.items() if _SECRET_OPTION.search(name)]
    spellings = {form for value in values if value for form in (value, quote(value, safe=""), quote_plus(value))}
    return tuple(sorted(spellings, key=len, reverse=True))
