# SPDX-License-Identifier: Apache-2.0
"""Ledgers that Airflow's connections and options select."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import connections, versions
from airflow_flowservice._airflow.variables import can_list_variables
from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

    from airflow_flowservice.ledger.sql_ledger import SqlLedger
    from airflow_flowservice.ledger.store import Ledger

_DIALECTS = {
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
}
# Drivers of SQLAlchemy and their modules; the first that is installed is used.
_DRIVERS = {
    "postgresql": {"psycopg2": "psycopg2", "psycopg": "psycopg"},
    "mysql": {"mysqldb": "MySQLdb", "pymysql": "pymysql"},
    "sqlite": {"pysqlite": "sqlite3"},
}
_INSTALL = {"postgresql": "psycopg2-binary", "mysql": "PyMySQL or mysqlclient", "sqlite": "Python with sqlite3"}
# Keys of the extra that the driver receives. Airflow's hooks have more keys, which have no meaning here.
_OPTIONS = {
    "postgresql": ("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "options", "target_session_attrs"),
    "mysql": ("charset", "ssl_ca", "ssl_cert", "ssl_key", "unix_socket"),
    "sqlite": (),
}


def ledger_conn_id(extra: Any = None) -> str | None:
    """Return the id of the connection of the SQL ledger, or None if the ledger is kept elsewhere.

    :param extra: extra of the Flow Service connection, whose `ledger_conn_id` precedes the option
        `[flowservice] ledger_conn_id` of Airflow.
    """
    value = extra.get("ledger_conn_id") if isinstance(extra, dict) else None
    for found in (value, versions.setting("ledger_conn_id")):
        if isinstance(found, str) and found.strip():
            return found.strip()
    return None


def ledger_of(extra: Any) -> Ledger | None:
    """Return the ledger of a task or trigger: in a database, or in Airflow's Variables. Return None if it is disabled.

    :param extra: extra of the Flow Service connection.
    :raises ConfigurationError: `[flowservice] ledger` has another value than `airflow` and `none`, or the ledger's
        connection is invalid.
    """
    from airflow_flowservice._airflow.variable_ledger import VariableLedger

    if conn_id := ledger_conn_id(extra):
        return sql_ledger(conn_id)
    return VariableLedger() if is_in_variables() else None


def is_in_variables() -> bool:
    """Return whether Airflow's Variables have the ledger if no `ledger_conn_id` is set; False if it is disabled.

    :raises ConfigurationError: `[flowservice] ledger` has another value than `airflow` and `none`.
    """
    kept = versions.setting("ledger") or "airflow"
    if kept not in ("airflow", "none"):
        raise ConfigurationError(
            f"ledger in the section [flowservice] of Airflow's configuration is {kept!r}",
            remedy="use `airflow` or `none`; for a ledger in a database, set ledger_conn_id",
        )
    return kept == "airflow"


def require_overlap_search(ledger: Ledger | None) -> None:
    """Return if a task can find the windows of a ledger that overlap its own window.

    :raises ConfigurationError: there is no ledger, or it is in Variables, which tasks cannot list before Airflow 3.3.
    """
    if ledger is None:
        why = "the ledger is disabled"
    elif listed(ledger) is None:
        why = "before Airflow 3.3, a task cannot list the ledger's Variables"
    else:
        return
    raise ConfigurationError(
        f"on_overlap='rest' requires a ledger in which the task finds ingested parts of its window, and {why}",
        remedy="use a ledger in a database (ledger_conn_id), or another value of on_overlap",
    )


def listed(ledger: Ledger | None) -> Ledger | None:
    """Return the ledger if a task or trigger can list its entries; else None.

    Before Airflow 3.3, a task cannot list Variables.
    """
    from airflow_flowservice._airflow.variable_ledger import VariableLedger

    return None if isinstance(ledger, VariableLedger) and not can_list_variables() else ledger


def sql_ledger(conn_id: str) -> SqlLedger:
    """Return the SQL ledger of an Airflow connection, in a task or in the triggerer.

    :raises ConfigurationError: the connection does not exist or is no database, or a driver is missing.
    """
    return _sql_ledger(conn_id, connections.get_connection)


def stored_sql_ledger(conn_id: str) -> SqlLedger:
    """Return the SQL ledger of an Airflow connection outside of tasks.

    :raises ConfigurationError: the connection does not exist or is no database, or a driver is missing.
    """
    return _sql_ledger(conn_id, connections.stored_connection)


def _sql_ledger(conn_id: str, get: Callable[[str], Any]) -> SqlLedger:
    connection = get(conn_id)
    if connection.password:
        connections.mask(connection.password)
    return _ledger_at(ledger_url(connection))


@lru_cache(maxsize=8)
def _ledger_at(url: URL) -> SqlLedger:
    """Return one ledger for each database, so that the triggers of a process share its connections."""
    from airflow_flowservice.ledger.sql_ledger import SqlLedger

    return SqlLedger(url)


def ledger_url(connection: Any) -> URL:
    """Return the SQLAlchemy URL of a connection of type postgres, mysql or sqlite.

    :raises ConfigurationError: the connection has another type, or lacks its database, or no driver is installed.
    """
    from sqlalchemy.engine import URL

    kind = str(connection.conn_type or "").lower()
    dialect = _DIALECTS.get(kind)
    if dialect is None:
        raise ConfigurationError(
            f"the ledger's connection {connection.conn_id!r} has the type {kind[:60]!r}, for which there is no ledger",
            remedy="set ledger_conn_id to a connection of type postgres, mysql or sqlite",
        )
    driver = f"{dialect}+{_installed_driver(dialect, connection)}"
    if dialect == "sqlite":
        return URL.create(driver, database=_sqlite_file(connection))
    if not connection.schema:
        raise ConfigurationError(
            f"the ledger's connection {connection.conn_id!r} names no database",
            remedy="set the database in the connection's schema (in a URI: the path after the host)",
        )
    return URL.create(
        driver,
        username=connection.login or None,
        password=connection.password or None,
        host=connection.host or None,
        port=connection.port or None,
        database=connection.schema,
        query=_query(dialect, connection),
    )


def _installed_driver(dialect: str, connection: Any) -> str:
    for driver, module in _DRIVERS[dialect].items():
        if find_spec(module):
            return driver
    modules = " and no ".join(_DRIVERS[dialect].values())
    raise ConfigurationError(
        f"the driver of the ledger's connection {connection.conn_id!r} is not installed: there is no {modules}",
        remedy=f"install {_INSTALL[dialect]} where tasks, the triggerer and the API server run",
    )


def _sqlite_file(connection: Any) -> str:
    """Return the path of an SQLite file; Airflow splits a path in a URI into host and schema."""
    host, rest = connection.host or "", (connection.schema or "").lstrip("/")
    return f"{host}/{rest}" if rest else host


def _query(dialect: str, connection: Any) -> dict[str, str]:
    extra = connection.extra_dejson
    if not isinstance(extra, dict):
        return {}
    if dialect == "postgresql" and extra.get("iam"):
        raise ConfigurationError(
            f"the ledger's connection {connection.conn_id!r} uses IAM authentication, which is not supported",
            remedy="use a database user with a password for the ledger",
        )
    found = {name: str(extra[name]) for name in _OPTIONS[dialect] if extra.get(name)}
    if dialect == "mysql":
        found.setdefault("charset", "utf8mb4")
        ssl = extra.get("ssl")
        if isinstance(ssl, dict):
            found |= {f"ssl_{name}": str(ssl[name]) for name in ("ca", "cert", "key") if ssl.get(name)}
    return found
