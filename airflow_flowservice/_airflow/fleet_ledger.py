# SPDX-License-Identifier: Apache-2.0
"""Read the ledgers of all dataflows in one pass each, for the overview of all dataflows.

Most entries are ingested and were never restated. Their flow run and window are taken from the text without parsing
it, which takes a fraction of the time and memory.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_flowservice._airflow import ledgers
from airflow_flowservice._airflow.metadata_ledger import MetadataLedger
from airflow_flowservice._airflow.variable_ledger import LEDGER_PREFIX, ledger_key, parse_entry, window_of_key
from airflow_flowservice.coverage.fleet_records import DataflowRecords, has_name
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.ledger.sql_ledger import COLUMNS, entry_of_row, window_of_seconds
from airflow_flowservice.windows.window import window_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.dataflow_ledger import LedgerSource
    from airflow_flowservice.ledger.entry import DataflowKey
    from airflow_flowservice.windows.window import IngestionWindow

_INGESTED = EntryState.INGESTED.value
# Of a row: the last change, then the window.
_CHANGE = itemgetter(*map(COLUMNS.index, ("updated_at", "window_start", "window_end")))
# The JSON of `variable_ledger.stored_texts` for an entry that was never restated, from its owner on. Any other text is
# parsed. Quotes inside a JSON string are escaped, so a quoted key here is a key of the object.
_OWNER_AND_RUN = re.compile(r'([^"/]*)/[^"]*", "flow_run_id": "([^"]+)", "delivered": ')
_NEVER_RESTATED = re.compile(
    r'"earlier": \[\], "updated_at": ([0-9]+\.?[0-9]*), "version": [0-9]+(?:, "written_by": "[^"]*")?\}\Z'
)
# A string of this key can only be the dataflow's name in the intent.
_NAME = '"flow_name": "'
# A key of an intent that requested to ingest parts of other windows again.
_RESTATES = '"restates": ['
# The end of the JSON has about 110 characters.
_END = 160
# The part of a Variable's key that names the dataflow.
_PREFIX = len(LEDGER_PREFIX) + 17


def read_ledgers(
    session: Session, sources: Iterable[LedgerSource], *, since: datetime
) -> dict[DataflowKey, DataflowRecords]:
    """Return the entries of all dataflows in the ledgers.

    :param sources: of `dataflow_ledger.ledger_sources`; each ledger is read once.
    :param since: as in `DataflowRecords`.
    :raises FlowServiceError: a ledger in a database cannot be read.
    """
    found: dict[DataflowKey, DataflowRecords] = {}
    for conn_id in dict.fromkeys(source.ledger_conn_id for source in sources):
        if conn_id is None:
            _add_variables(found, MetadataLedger(session), since=since)
            continue
        for dataflow, rows in ledgers.stored_sql_ledger(conn_id).rows():
            _add_rows(_records(found, dataflow.canonical, since), dataflow, rows)
    return found


def _records(found: dict[DataflowKey, DataflowRecords], key: DataflowKey, since: datetime) -> DataflowRecords:
    records = found.get(key)
    if records is None:
        records = found[key] = DataflowRecords(since=since)
    return records


def _add_rows(records: DataflowRecords, dataflow: DataflowKey, rows: Iterable[Sequence[Any]]) -> None:
    """Add the rows of a SQL ledger; only those that are not ingested, or were restated, are parsed."""
    first = records.since.timestamp()
    recent: list[Sequence[Any]] = []
    named: list[Sequence[Any]] = []
    for row in rows:
        _, _, end, state, _, flow_run_id, _, intent, _, earlier, _, _ = row
        if state != _INGESTED or flow_run_id is None or earlier or end <= first or (intent and "restates" in intent):
            records.add(entry_of_row(dataflow, row))
            continue
        recent.append(row)
        if intent and "flow_name" in intent:
            named.append(row)
    if recent:
        _, starts, ends, _, owners, flow_run_ids, _, _, _, _, updates, _ = zip(*recent, strict=True)
        records.dag_ids.update(owner.partition("/")[0] for owner in owners)
        records.add_recent(flow_run_ids, list(map(window_of_seconds, starts, ends)), updates=updates)
    for row in sorted(named, key=_CHANGE, reverse=True):
        entry = entry_of_row(dataflow, row)
        records.add_name(entry)
        if has_name(entry):
            break


def _add_variables(found: dict[DataflowKey, DataflowRecords], ledger: MetadataLedger, *, since: datetime) -> None:
    by_prefix: dict[str, _Variables] = {}
    adders: dict[str, Callable[[str, str, _Span], bool]] = {}
    spans: dict[str, _Span | None] = {}
    special: list[tuple[str, str | None]] = []
    find_adder, find_span = adders.get, spans.get
    for key, text in ledger.stream():
        prefix, edges = key[:_PREFIX], key[_PREFIX:]
        add, span = find_adder(prefix), find_span(edges)
        if span is None and edges not in spans:
            span = spans[edges] = _span(key, since=since)
        if add is not None and text is not None and span is not None:
            if not add(key, text, span):
                special.append((key, text))
            continue
        special.append((key, text))
        if add is None and (entry := parse_entry(text)) and ledger_key(*entry.key) == key:
            records = _records(found, entry.dataflow.canonical, since)
            by_prefix[prefix] = _Variables(dataflow=entry.dataflow, records=records)
            adders[prefix] = by_prefix[prefix].adder()
    for variables in by_prefix.values():
        variables.finish(ledger)
    for key, text in special:
        row = ledger.read_again(key, text)
        entry = ledger.entry_of(row)
        if entry is not None:
            _records(found, entry.dataflow.canonical, since).add(entry)
            if ledger_key(*entry.key) == key:
                continue
        # A task refuses the text of another window, which a user copied.
        if (window := row.window) and key[:_PREFIX] in by_prefix and window.end > since:
            by_prefix[key[:_PREFIX]].records.unreadable.append(window)


class _Span(NamedTuple):
    """Window of a Variable's key.

    :param text: the part of the JSON from the window to the owner, if the window is ingested.
    :param is_recent: it ends after the start of the range.
    """

    window: IngestionWindow
    text: str
    is_recent: bool


def _span(key: str, *, since: datetime) -> _Span | None:
    window = window_of_key(key)
    if window is None:
        return None
    text = json.dumps({**window_to_json(window), "state": _INGESTED, "owner": ""})
    return _Span(window=window, text=text.removeprefix("{").removesuffix('"}'), is_recent=window.end > since)


@dataclass(kw_only=True)
class _Variables:
    """Entries with the same spelling of a dataflow's id that are ingested and were never restated.

    :param named: time of the last change and key of the newest entry that may have a name, and its text.
    """

    dataflow: DataflowKey
    records: DataflowRecords
    flow_run_ids: list[str] = field(default_factory=list)
    windows: list[IngestionWindow] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    named: tuple[float, str, str] = (-1.0, "", "")

    def adder(self) -> Callable[[str, str, _Span], bool]:
        """Return a function that adds an entry, or returns False if its text must be parsed.

        Python reads the variables of a closure faster than attributes.
        """
        head = f"{json.dumps(asdict(self.dataflow)).removesuffix('}')}, "
        head_length, match_owner, search_end = len(head), _OWNER_AND_RUN.match, _NEVER_RESTATED.search
        flow_run_ids, windows, updates, dag_ids = self.flow_run_ids, self.windows, self.updates, self.records.dag_ids
        named_at = 0.0

        def add(key: str, text: str, span: _Span) -> bool:
            nonlocal named_at
            window, of_window, is_recent = span
            begin = head_length + len(of_window)
            if not text.startswith(head) or not text.startswith(of_window, head_length):
                return False
            owner, end = match_owner(text, begin), search_end(text, len(text) - _END)
            if owner is None or end is None:
                return False
            intent, intent_end = owner.end(), end.start()
            if text.find("\\", begin, intent) >= 0 or text.find(_RESTATES, intent, intent_end) >= 0:
                return False
            dag_id, flow_run_id = owner.groups()
            updated_at = float(end[1])
            if is_recent:
                dag_ids.add(dag_id)
                flow_run_ids.append(flow_run_id)
                windows.append(window)
                updates.append(updated_at)
            else:
                self.records.add_ingested(flow_run_id, window, dag_id=dag_id, updated_at=updated_at)
            if updated_at >= named_at and text.find(_NAME, intent, intent_end) >= 0:
                named_at = updated_at
                self.named = max(self.named, (updated_at, key, text))
            return True

        return add

    def finish(self, ledger: MetadataLedger) -> None:
        """Add the entries to the records."""
        self.records.add_recent(self.flow_run_ids, self.windows, updates=self.updates)
        newest = parse_entry(self.named[2])
        if newest is None:
            return
        # If another value in the intent has a name, an older entry may have that of the dataflow.
        for entry in (newest,) if has_name(newest) else ledger.entries([self.dataflow]):
            self.records.add_name(entry)
