# SPDX-License-Identifier: Apache-2.0
"""Read the ledger's entries of one dataflow outside of tasks, for the command line and the page."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import connections, ledgers
from airflow_flowservice._airflow.metadata_ledger import MetadataLedger
from airflow_flowservice._airflow.variable_ledger import compact, ledger_key
from airflow_flowservice.coverage.ledger_runs import LedgerRecords, recorded_time
from airflow_flowservice.exceptions import ConfigurationError, FlowServiceError
from airflow_flowservice.ledger.entry import DataflowKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.metadata_ledger import LedgerRow
    from airflow_flowservice.ledger.entry import LedgerEntry
    from airflow_flowservice.windows.window import IngestionWindow

    _Change = tuple[float, IngestionWindow]

DEFAULT_CONN_ID = "flowservice_default"
CONN_TYPE = "flowservice"
_VARIABLE_PREFIX = "AIRFLOW_CONN_"


@dataclass(frozen=True, kw_only=True)
class LedgerSource:
    """Ledger that a connection selects.

    :param ledger_conn_id: connection of a SQL ledger; None for the ledger in Airflow's Variables.
    :param place: organization and sandbox; None if they are not known.
    """

    ledger_conn_id: str | None = None
    place: tuple[str, str] | None = None


@dataclass(kw_only=True)
class _Found:
    """Entries in a range by organization and sandbox, and rows that cannot be read.

    :param changes: last change and window of all entries, also outside of the range.
    """

    entries: dict[tuple[str, str], list[LedgerEntry]] = field(default_factory=lambda: defaultdict(list))
    changes: dict[tuple[str, str], list[_Change]] = field(default_factory=lambda: defaultdict(list))
    unreadable: list[LedgerRow] = field(default_factory=list)

    def add(self, entries: Iterable[LedgerEntry]) -> None:
        for entry in entries:
            self.entries[_place_of_key(entry.dataflow)].append(entry)

    def add_change(self, dataflow: DataflowKey, updated_at: float, window: IngestionWindow) -> None:
        self.changes[_place_of_key(dataflow)].append((updated_at, window))


def read_records(
    session: Session,
    *,
    flow_id: str,
    conn_ids: Collection[str],
    dag_ids: Collection[str],
    within: IngestionWindow,
    continues: Iterable[str] = (),
) -> LedgerRecords:
    """Return the ledger's records of a dataflow, or the error that prevents reading them.

    The connections of the tasks define the organization, the sandbox and the ledger. If no connection can be read
    here, the ledger of Airflow's configuration is read. The entries then count if only one sandbox has this dataflow
    id, or if only one has entries of these DAGs.

    :param conn_ids: connections of the tasks; empty for the default connection.
    :param within: return only entries that overlap this range.
    :param continues: earlier dataflows whose entries count as entries of this one.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        found: list[LedgerEntry] = []
        changes: list[_Change] = []
        unreadable: list[IngestionWindow] = []
        for source, each in product(ledger_sources(conn_ids), (flow_id, *continues)):
            read = _read(session, source, flow_id=each, within=within)
            places = _places(read, dag_ids=dag_ids) if source.place is None else [source.place]
            entries = list(chain.from_iterable(read.entries[place] for place in places))
            changes += chain.from_iterable(read.changes[place] for place in places)
            digests = {spelling.digest for entry in entries for spelling in entry.dataflow.spellings}
            if source.place is not None:
                digests.update(spelling.digest for spelling in DataflowKey(*source.place, each).spellings)
            found += entries
            unreadable += [row.window for row in read.unreadable if row.window is not None and row.digest in digests]
    except FlowServiceError as error:
        return LedgerRecords(error=str(error))
    except SQLAlchemyError as error:
        reason = f"Airflow's metadata database cannot be read ({type(error).__name__})"
        return LedgerRecords(error=reason, lacks_database=True)
    return LedgerRecords(
        entries=tuple(dict.fromkeys(found)), unreadable=tuple(unreadable), known_recorded=recorded_time(changes)
    )


def flows_of_dag(
    session: Session, *, conn_ids: Collection[str], dag_id: str, task_id: str | None, within: IngestionWindow
) -> set[str]:
    """Return the dataflows of the entries that tasks of a DAG own, without those of ledgers that cannot be read.

    :param task_id: only entries of this task; None for all tasks.
    """
    from sqlalchemy.exc import SQLAlchemyError

    owned: list[tuple[DataflowKey, str]] = []
    for conn_id in conn_ids or [DEFAULT_CONN_ID]:
        with suppress(FlowServiceError, SQLAlchemyError):  # `read_records` reports the error.
            for source in ledger_sources([conn_id]):
                owned += _owned(session, source, f"{dag_id}/", within=within)
    return {dataflow.canonical.flow_id for dataflow, owner in owned if task_id in (None, owner.split("/")[-2])}


def _place_of_key(dataflow: DataflowKey) -> tuple[str, str]:
    return dataflow.organization, dataflow.sandbox


def dag_of(entry: LedgerEntry) -> str:
    """Return the id of the DAG whose task made the entry's last claim."""
    return entry.owner.partition("/")[0]


def ledger_sources(conn_ids: Collection[str]) -> list[LedgerSource]:
    """Return the ledgers of connections, without those that are disabled.

    :param conn_ids: empty for the default connection.
    :raises FlowServiceError: a connection or an option cannot be read.
    """
    found = dict.fromkeys(map(_source, conn_ids or [DEFAULT_CONN_ID]))
    return [source for source in found if source is not None]


def stored_conn_ids(session: Session) -> set[str]:
    """Return the ids of the connections of this package in the metadata database and in the environment.

    Secrets backends cannot list their connections.
    """
    from airflow.models.connection import Connection
    from sqlalchemy import select

    stored: Any = Connection
    found = set(session.scalars(select(stored.conn_id).where(stored.conn_type == CONN_TYPE)))
    for name, value in os.environ.items():
        # The type is in the JSON or in the scheme of the URI. A connection of another type selects no ledger.
        if name.startswith(_VARIABLE_PREFIX) and CONN_TYPE in value:
            found.add(name.removeprefix(_VARIABLE_PREFIX).lower())
    return found


def configured_source() -> LedgerSource | None:
    """Return the ledger of Airflow's configuration, for connections that select none; None if it is disabled.

    :raises ConfigurationError: an option is invalid.
    """
    return _source_of(None, place=None)


def place_of(conn_id: str, *, required: bool = False) -> tuple[str, str] | None:
    """Return organization and sandbox of a connection; None if they are not known here.

    :param required: True to raise an error instead.
    :raises ConfigurationError: the connection cannot be read; or `required`, and it does not exist or lacks them.
    """
    connection = connections.stored_connection(conn_id) if required else connections.find_stored_connection(conn_id)
    if connection is None:
        return None
    place = _place(connection)
    if place is None and required:
        raise ConfigurationError(
            f"the connection {conn_id!r} does not show an organization and a sandbox",
            remedy="set org_id and sandbox in its extra; `airflow flowservice check` names each error",
        )
    return place


def _place(connection: Any) -> tuple[str, str] | None:
    settings = connections.parse_connection(connection)
    is_known = not settings.errors.keys() & {"org_id", "sandbox", "extra"}
    return (settings.org_id, settings.sandbox) if is_known else None


def _source(conn_id: str) -> LedgerSource | None:
    """Return the ledger of a connection; None if it is disabled.

    A connection that does not exist here may be in the environment of the workers only.
    """
    connection = connections.find_stored_connection(conn_id)
    if connection is None:
        return configured_source()
    return _source_of(connection.extra_dejson, place=_place(connection))


def _source_of(extra: Any, *, place: tuple[str, str] | None) -> LedgerSource | None:
    ledger_conn_id = ledgers.ledger_conn_id(extra)
    if ledger_conn_id is None and not ledgers.is_in_variables():
        return None
    return LedgerSource(ledger_conn_id=ledger_conn_id, place=place)


def _read(session: Session, source: LedgerSource, *, flow_id: str, within: IngestionWindow) -> _Found:
    """Return the entries of a dataflow, also those with its id in upper case, and rows that cannot be read."""
    found = _Found()
    for key in DataflowKey(*(source.place or ("", "")), flow_id).spellings:
        if source.ledger_conn_id is not None:
            stored = ledgers.stored_sql_ledger(source.ledger_conn_id)
            keys = stored.dataflows(key.flow_id) if source.place is None else [key]
            found.add(_canonical(each) for each in stored.entries(keys, within))
            for change in stored.changes(keys):
                found.add_change(*change)
        else:
            _add_variables(found, MetadataLedger(session), key=key, is_placed=source.place is not None, within=within)
    return found


def _add_variables(
    found: _Found, ledger: MetadataLedger, *, key: DataflowKey, is_placed: bool, within: IngestionWindow
) -> None:
    """Add the entries in Variables.

    :param is_placed: the key has the organization and the sandbox.
    """
    quoted_id = json.dumps(key.flow_id)
    edges = compact(within.start), compact(within.end)
    for row in ledger.rows([key] if is_placed else None, containing=None if is_placed else quoted_id):
        # Parsing is slow. The entry of another dataflow does not contain the id.
        if not is_placed and row.is_object and quoted_id not in (row.text or ""):
            continue
        if is_placed and not row.overlaps(edges):
            if (updated_at := row.updated_at) is not None and (window := row.window) is not None:
                found.add_change(key, updated_at, window)
            continue
        entry = ledger.entry_of(row)
        # A task refuses the text of another window, which a user copied.
        if entry is None or ledger_key(*entry.key) != row.key:
            found.unreadable.append(row)
        if entry is not None and entry.dataflow.flow_id == key.flow_id:
            found.add_change(entry.dataflow, entry.updated_at, entry.window)
            if row.overlaps(edges):
                found.add([_canonical(entry)])


def _canonical(entry: LedgerEntry) -> LedgerEntry:
    key = entry.dataflow.canonical
    return entry if key is entry.dataflow else replace(entry, dataflow=key)


def _owned(
    session: Session, source: LedgerSource, prefix: str, *, within: IngestionWindow
) -> Iterator[tuple[DataflowKey, str]]:
    """Yield dataflow and owner of the entries whose owner begins with a prefix; the database omits most others."""
    owners: Iterable[tuple[DataflowKey, str]]
    if source.ledger_conn_id is not None:
        owners = ledgers.stored_sql_ledger(source.ledger_conn_id).owners(prefix, within)
    else:
        ledger = MetadataLedger(session)
        rows = ledger.rows(within=within, containing=json.dumps(prefix)[:-1])
        owners = ((entry.dataflow, entry.owner) for row in rows if (entry := ledger.entry_of(row)))
    for dataflow, owner in owners:
        # A database may compare without regard to case.
        if owner.startswith(prefix) and source.place in (None, (dataflow.organization, dataflow.sandbox)):
            yield dataflow, owner


def _places(found: _Found, *, dag_ids: Collection[str]) -> list[tuple[str, str]]:
    """Return the sandbox whose entries count, with its organization; nothing if there is no entry.

    :raises ConfigurationError: several sandboxes have the dataflow id, and these DAGs do not show which one is meant.
    """
    places = sorted(found.entries or found.changes)
    if not found.entries:
        return places if len(places) == 1 else []
    if len(places) > 1:
        places = [place for place in places if any(dag_of(entry) in dag_ids for entry in found.entries[place])]
        if len(places) != 1:
            raise ConfigurationError(
                "the ledger has this dataflow id in several sandboxes, and the connection of the task cannot be read",
                remedy="make the task's connection readable here, or give it as --conn-id",
            )
    return places
