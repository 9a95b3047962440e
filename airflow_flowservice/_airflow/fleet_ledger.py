# SPDX-License-Identifier: Apache-2.0
"""Read the ledgers of all dataflows in one pass each, for the overview of all dataflows.

Most entries are ingested and were never restated. Their flow run and window are taken from the text without parsing
it, which takes a fraction of the time and memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_flowservice._airflow import ledgers
from airflow_flowservice._airflow.metadata_ledger import MetadataLedger
from airflow_flowservice._airflow.variable_ledger import LEDGER_PREFIX, ledger_key, parse_entry, window_of_key
from airflow_flowservice.coverage.fleet_records import DataflowRecords

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.dataflow_ledger import LedgerSource
    from airflow_flowservice.ledger.entry import DataflowKey
    from airflow_flowservice.windows.window import IngestionWindow

# The JSON of `variable_ledger.stored_texts` for an entry that was never restated. Any other text is parsed. Quotes
# inside a JSON string are escaped, so a quoted key here is a key of the object.
_OWNER, _RUN, _DELIVERED = '"state": "ingested", "owner": "', '", "flow_run_id": "', '", "delivered": '
_NEVER_RESTATED = re.compile(r'"earlier": \[\], "updated_at": ([0-9.]+), "version": \d+(?:, "written_by": "\w*")?\}$')
# A string of this key can only be the dataflow's name in the intent.
_NAME = '"flow_name": "'
# A key of an intent that requested to ingest parts of other windows again.
_RESTATES = '"restates": ['
# The second part of the JSON has about 100 characters.
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
        for entry in ledgers.stored_sql_ledger(conn_id).entries():
            _records(found, entry.dataflow.canonical, since).add(entry)
    return found


def _records(found: dict[DataflowKey, DataflowRecords], key: DataflowKey, since: datetime) -> DataflowRecords:
    records = found.get(key)
    if records is None:
        records = found[key] = DataflowRecords(since=since)
    return records


def _add_variables(found: dict[DataflowKey, DataflowRecords], ledger: MetadataLedger, *, since: datetime) -> None:
    by_prefix: dict[str, DataflowRecords] = {}
    windows: dict[str, IngestionWindow | None] = {}
    special: list[tuple[str, str | None]] = []
    named: dict[str, tuple[float, str, str]] = {}
    for key, text in ledger.stream():
        prefix, edges = key[:_PREFIX], key[_PREFIX:]
        records = by_prefix.get(prefix)
        if records is None or text is None:
            special.append((key, text))
            if (entry := parse_entry(text)) and ledger_key(*entry.key) == key:
                by_prefix[prefix] = _records(found, entry.dataflow.canonical, since)
            continue
        window = windows.get(edges) or windows.setdefault(edges, window_of_key(key))
        ingested, end = _ingested(text), _NEVER_RESTATED.search(text, len(text) - _END)
        if window is None or ingested is None or end is None or _RESTATES in text:
            special.append((key, text))
        else:
            dag_id, flow_run_id = ingested
            updated_at = float(end[1])
            records.add_ingested(flow_run_id, window, dag_id=dag_id, updated_at=updated_at)
            newest = named.get(prefix)
            if (newest is None or (updated_at, key) > newest[:2]) and _NAME in text:
                named[prefix] = updated_at, key, text
    for prefix, (_, _, text) in named.items():
        if entry := parse_entry(text):
            by_prefix[prefix].add_name(entry)
    for key, text in special:
        row = ledger.read_again(key, text)
        if entry := ledger.entry_of(row):
            _records(found, entry.dataflow.canonical, since).add(entry)
        elif (window := row.window) and key[:_PREFIX] in by_prefix and window.end > since:
            by_prefix[key[:_PREFIX]].unreadable.append(window)


def _ingested(text: str) -> tuple[str, str] | None:
    """Return the DAG of the owner and the flow run of an ingested entry; None if the text must be parsed."""
    begin = text.find(_OWNER) + len(_OWNER)
    owner_end = text.find(_RUN, begin)
    run_end = text.find(_DELIVERED, owner_end + len(_RUN))
    if begin < len(_OWNER) or owner_end < 0 or run_end < 0:
        return None
    dag_id, separator, _ = text[begin:owner_end].partition("/")
    flow_run_id = text[owner_end + len(_RUN) : run_end]
    part = text[begin:run_end]
    is_plain = separator and flow_run_id and "\\" not in part and part.count('"') == _RUN.count('"')
    return (dag_id, flow_run_id) if is_plain else None
