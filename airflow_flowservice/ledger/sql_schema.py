# SPDX-License-Identifier: Apache-2.0
"""Tables of the SQL ledger, and their migration. SQLAlchemy is imported when a table is used."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import ConfigurationError, FlowServiceError, LedgerConflictError
from airflow_flowservice.ledger.sql_engine import in_transaction

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Engine, Table

SCHEMA_VERSION = 1
"""Version of the tables that this version of the package reads and writes."""

# MySQL needs about a second to create a table on a busy machine.
_MIGRATION_ATTEMPTS = 20
_MIGRATION_PAUSE_S = 0.2
_EXISTS = re.compile(r"already exists|duplicate key name", re.IGNORECASE)


@dataclass(frozen=True)
class Migration:
    """Result of a migration.

    :param before: version of the tables before; None if there were none.
    :param after: version of the tables now.
    """

    before: int | None
    after: int


@cache
def ledger_table() -> Table:
    """Return the table `flowservice_ledger`, with one row for each window of a dataflow.

    Windows are epoch seconds. The key has the dataflow's digest, because an index of MySQL (utf8mb4) has at most 768
    characters.
    """
    from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, SmallInteger, String, Table

    return Table(
        "flowservice_ledger",
        MetaData(),
        Column("dataflow_digest", String(16), primary_key=True),
        Column("window_start", BigInteger, primary_key=True, autoincrement=False),
        Column("window_end", BigInteger, primary_key=True, autoincrement=False),
        Column("organization", String(255), nullable=False),
        Column("sandbox", String(255), nullable=False),
        Column("flow_id", String(255), nullable=False),
        Column("state", String(16), nullable=False),
        _text_column("owner", nullable=False),
        Column("flow_run_id", String(255)),
        Column("delivered", SmallInteger, nullable=False),
        _text_column("intent"),
        Column("output_records", BigInteger),
        _text_column("earlier"),
        Column("updated_at", Float(53), nullable=False),
        Column("version", Integer, nullable=False),
        Index("ix_flowservice_ledger_window_end", "dataflow_digest", "window_end"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


@cache
def schema_table() -> Table:
    """Return the table `flowservice_ledger_schema`, whose only row has the version of the tables."""
    from sqlalchemy import Column, Integer, MetaData, Table

    return Table(
        "flowservice_ledger_schema",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("version", Integer, nullable=False),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )


def _text_column(name: str, *, nullable: bool = True) -> Column[Any]:
    """Return a column for text of any length; `TEXT` of MySQL has at most 64 KiB."""
    from sqlalchemy import Column, Text
    from sqlalchemy.dialects.mysql import MEDIUMTEXT

    kind = Text().with_variant(MEDIUMTEXT(), "mysql").with_variant(MEDIUMTEXT(), "mariadb")
    return Column(name, kind, nullable=nullable)


def migrate_tables(engine: Engine) -> Migration:
    """Create or upgrade the tables; change nothing if they are up to date.

    If two migrations run at the same time, one of them creates the tables and the other finds them.

    :raises ConfigurationError: a later version of the package created the tables.
    :raises LedgerUnavailableError: the database cannot be reached.
    """
    for _ in range(_MIGRATION_ATTEMPTS - 1):
        try:
            return in_transaction(engine, _migrate)
        except FlowServiceError as error:
            if not isinstance(error, LedgerConflictError) and not _EXISTS.search(error.message):
                raise
            time.sleep(_MIGRATION_PAUSE_S)
    return in_transaction(engine, _migrate)


def _migrate(connection: Connection) -> Migration:
    for table in (schema_table(), ledger_table()):
        table.create(connection, checkfirst=True)
        # MySQL commits each statement, so a migration can end between the table and its index.
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    before = connection.execute(schema_table().select()).first()
    if before is None:
        connection.execute(schema_table().insert().values(id=1, version=SCHEMA_VERSION))
        return Migration(before=None, after=SCHEMA_VERSION)
    if before.version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"the ledger's tables have version {before.version}; this package knows version {SCHEMA_VERSION}",
            remedy="upgrade airflow-flowservice on this machine; nothing was changed",
        )
    return Migration(before=before.version, after=SCHEMA_VERSION)
