# SPDX-License-Identifier: Apache-2.0
"""Ledger in a table of PostgreSQL, MySQL, MariaDB or SQLite, which several Airflow deployments can share.

SQLAlchemy is imported when the ledger is used, because DAG files import parts of this package.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import ConfigurationError, LedgerConflictError
from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry, parse_earlier_run, parse_intent
from airflow_flowservice.ledger.sql_engine import CONFLICT, create_limited_engine, in_transaction
from airflow_flowservice.ledger.sql_schema import Migration, ledger_table, migrate_tables
from airflow_flowservice.windows.window import EPOCH, IngestionWindow, epoch_seconds

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

# Dataflows of one query: SQLite before 3.32 accepts at most 999 parameters.
_BATCH = 100
_STATES = {state.value: state for state in EntryState}
_EDGES = itemgetter(1, 2)
COLUMNS = (
    "dataflow_digest",
    "window_start",
    "window_end",
    "state",
    "owner",
    "flow_run_id",
    "delivered",
    "intent",
    "output_records",
    "earlier",
    "updated_at",
    "version",
)


class SqlLedger:
    """Implementation of the protocol `ledger.store.Ledger` with one row for each entry.

    A change is one statement that the unique key or the version in its condition makes atomic. Of several processes
    that claim a window at the same time, one succeeds. The methods block: an event loop calls them in a thread.

    :param engine_or_url: URL of SQLAlchemy, whose connections have time limits (`ledger.sql_engine`); or an engine,
        which is used as it is.
    :raises ConfigurationError: the URL is invalid, or the driver is not installed.
    """

    def __init__(self, engine_or_url: Engine | URL | str) -> None:
        given: Any = engine_or_url
        self._engine: Engine = given if hasattr(given, "begin") else create_limited_engine(given)

    def __repr__(self) -> str:
        return f"SqlLedger({self._engine.dialect.name})"

    def migrate(self) -> Migration:
        """Create or upgrade the tables; change nothing if they are up to date."""
        return migrate_tables(self._engine)

    def get(self, dataflow: DataflowKey, window: IngestionWindow, /) -> LedgerEntry | None:
        """Return the entry of exactly this window, or None."""
        from sqlalchemy import select

        table = ledger_table()
        query = select(*(table.c[name] for name in COLUMNS)).where(*_is_key(dataflow, window))
        row = in_transaction(self._engine, lambda connection: connection.execute(query).first())
        return None if row is None else entry_of_row(dataflow, row)

    def overlapping(self, dataflows: Sequence[DataflowKey], window: IngestionWindow, /) -> list[LedgerEntry]:
        """Return the entries whose windows overlap the window, sorted by window."""
        return sorted(self.entries(dataflows, within=window), key=lambda entry: entry.window)

    def put(self, entry: LedgerEntry, /) -> LedgerEntry:
        """Store the entry if the stored one has the same version, and return it with the next version."""
        stored = replace(entry, version=entry.version + 1)
        table = ledger_table()
        if entry.version == 0:
            # The unique key refuses a second row.
            change: Any = table.insert().values(**_key_values(entry), **_values(stored))
        else:
            change = table.update().where(*_is_version(entry)).values(**_values(stored))
        with suppress(ValueError):  # of the driver, for example because of a NUL
            self._change_one(change)
            return stored
        raise ConfigurationError(
            f"the ledger's database cannot store the ids of the entry of {entry.dataflow}",
            remedy="remove characters that are no text from the ids of the dataflow, the DAG and its run",
        )

    def remove(self, entry: LedgerEntry, /) -> None:
        """Remove the entry if the stored one has the same version."""
        if entry.version:
            self._change_one(ledger_table().delete().where(*_is_version(entry)))
        elif self.get(*entry.key) is not None:
            raise LedgerConflictError(CONFLICT)

    def _change_one(self, statement: Any) -> None:
        """Execute a statement that changes one row.

        :raises LedgerConflictError: it changed none.
        """
        if in_transaction(self._engine, lambda connection: connection.execute(statement).rowcount) != 1:
            raise LedgerConflictError(CONFLICT)

    def entries(
        self, dataflows: Iterable[DataflowKey] | None = None, within: IngestionWindow | None = None
    ) -> Iterator[LedgerEntry]:
        """Yield all entries, or those of the dataflows that overlap `within`, sorted by dataflow and window.

        Each hundred dataflows are read in a transaction, so an entry that changes meanwhile may be new or old.
        """
        for dataflow, rows in self.rows(dataflows, within):
            for row in sorted(rows, key=_EDGES):
                yield entry_of_row(dataflow, row)

    def rows(
        self, dataflows: Iterable[DataflowKey] | None = None, within: IngestionWindow | None = None
    ) -> Iterator[tuple[DataflowKey, list[Sequence[Any]]]]:
        """Yield the rows of the entries of each dataflow, with `COLUMNS`, in any order and without parsing them.

        For many dataflows, this is several times as fast as `entries`.
        """
        remaining = iter(sorted(set(self.dataflows() if dataflows is None else dataflows)))
        while batch := tuple(islice(remaining, _BATCH)):
            yield from self._rows_of(batch, within)

    def changes(self, dataflows: Iterable[DataflowKey]) -> Iterator[tuple[DataflowKey, float, IngestionWindow]]:
        """Yield dataflow, last change and window of all entries of a few dataflows, in any order."""
        from sqlalchemy import select

        columns, by_digest = ledger_table().c, {dataflow.digest: dataflow for dataflow in dataflows}
        query = select(columns.dataflow_digest, columns.updated_at, columns.window_start, columns.window_end)
        query = query.where(columns.dataflow_digest.in_(list(by_digest)))
        for digest, updated_at, *edges in in_transaction(self._engine, lambda each: each.execute(query).fetchall()):
            yield by_digest[digest], updated_at, window_of_seconds(*edges)

    def dataflows(self, flow_id: str | None = None) -> list[DataflowKey]:
        """Return the dataflows of all entries, or those with a dataflow id, which several sandboxes can have."""
        from sqlalchemy import select

        table = ledger_table()
        query = select(table.c.organization, table.c.sandbox, table.c.flow_id).distinct()
        if flow_id is not None:
            query = query.where(table.c.flow_id == flow_id)
        rows = in_transaction(self._engine, lambda connection: connection.execute(query).fetchall())
        # A database may compare without regard to case.
        return [DataflowKey(*row) for row in rows if flow_id in (None, row.flow_id)]

    def owners(self, prefix: str, within: IngestionWindow) -> list[tuple[DataflowKey, str]]:
        """Return dataflow and owner of the entries that overlap `within`, and whose owner begins with a prefix."""
        from sqlalchemy import select

        table = ledger_table()
        query = select(table.c.organization, table.c.sandbox, table.c.flow_id, table.c.owner).distinct()
        query = query.where(table.c.owner.startswith(prefix, autoescape=True), *_overlaps(within))
        rows = in_transaction(self._engine, lambda connection: connection.execute(query).fetchall())
        return [(DataflowKey(*row[:3]), row.owner) for row in rows]

    def _rows_of(
        self, dataflows: tuple[DataflowKey, ...], within: IngestionWindow | None
    ) -> Iterator[tuple[DataflowKey, list[Sequence[Any]]]]:
        from sqlalchemy import select

        table = ledger_table()
        found: dict[str, list[Any]] = {dataflow.digest: [] for dataflow in dataflows}
        query = select(*(table.c[name] for name in COLUMNS)).where(table.c.dataflow_digest.in_(list(found)))
        if within is not None:
            query = query.where(*_overlaps(within))
        rows = in_transaction(self._engine, lambda connection: connection.execute(query).fetchall())
        for row in rows:
            found[row[0]].append(row)
        for dataflow in dataflows:
            yield dataflow, found[dataflow.digest]


def _is_key(dataflow: DataflowKey, window: IngestionWindow) -> tuple[Any, ...]:
    columns = ledger_table().c
    return (
        columns.dataflow_digest == dataflow.digest,
        columns.window_start == epoch_seconds(window.start),
        columns.window_end == epoch_seconds(window.end),
    )


def _overlaps(window: IngestionWindow) -> tuple[Any, ...]:
    columns = ledger_table().c
    return columns.window_start < epoch_seconds(window.end), columns.window_end > epoch_seconds(window.start)


def _is_version(entry: LedgerEntry) -> tuple[Any, ...]:
    return (*_is_key(*entry.key), ledger_table().c.version == entry.version)


def _key_values(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "dataflow_digest": entry.dataflow.digest,
        "window_start": epoch_seconds(entry.window.start),
        "window_end": epoch_seconds(entry.window.end),
        **asdict(entry.dataflow),
    }


def _values(entry: LedgerEntry) -> dict[str, Any]:
    """Return the columns that a change writes; JSON has ASCII characters only, which every database stores."""
    return {
        "state": entry.state.value,
        "owner": entry.owner,
        "flow_run_id": entry.flow_run_id,
        "delivered": int(entry.delivered),
        "intent": None if entry.intent is None else json.dumps(dict(entry.intent)),
        "output_records": entry.output_records,
        "earlier": json.dumps([asdict(run) for run in entry.earlier]) if entry.earlier else None,
        "updated_at": entry.updated_at,
        "version": entry.version,
    }


def entry_of_row(dataflow: DataflowKey, row: Sequence[Any]) -> LedgerEntry:
    """Return the entry of a row with `COLUMNS`.

    :raises ConfigurationError: this version of the package cannot read the row.
    """
    _, start, end, state, owner, flow_run_id, delivered, intent, output_records, earlier, updated_at, version = row
    try:
        values = {
            "dataflow": dataflow,
            "window": window_of_seconds(start, end),
            "state": _STATES[state],
            "owner": owner,
            "flow_run_id": flow_run_id,
            "delivered": delivered != 0,
            "intent": None if intent is None else parse_intent(json.loads(intent)),
            "output_records": output_records,
            "earlier": tuple(map(parse_earlier_run, json.loads(earlier))) if earlier else (),
            "updated_at": updated_at,
            "version": version,
        }
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the ledger's entry of {dataflow} cannot be read ({type(error).__name__}: {error})",
            remedy="upgrade airflow-flowservice on this machine: a later version wrote the entry",
        ) from error
    entry = object.__new__(LedgerEntry)
    # The constructor of a frozen dataclass sets each field with a call, which takes longer than reading the row.
    object.__setattr__(entry, "__dict__", values)
    return entry


@lru_cache(maxsize=2**15)  # the dataflows of a DAG have the same windows
def window_of_seconds(start: int, end: int) -> IngestionWindow:
    """Return the window between two times in epoch seconds, as in the columns of a row."""
    return IngestionWindow(EPOCH + timedelta(seconds=start), EPOCH + timedelta(seconds=end))
