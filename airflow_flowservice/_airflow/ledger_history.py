# SPDX-License-Identifier: Apache-2.0
"""Create entries of the ledger for the windows that Airflow's history has as ingested."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_flowservice._airflow.pages import pages_of
from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_flowservice._airflow.database import TaskRow
    from airflow_flowservice.windows.window import IngestionWindow

_ENDED = frozenset({"success", "failed", "skipped"})


@dataclass
class LedgerHistory:
    """Entries, and the windows and flow runs of Airflow's history that need attention.

    :param entries: one for each window; of several successful flow runs, that of the last DAG run.
    :param repeated: windows with several successful flow runs.
    :param omitted: successful flow runs whose XCom lacks dataflow, window, organization or sandbox.
    """

    entries: dict[tuple[DataflowKey, IngestionWindow], LedgerEntry] = field(default_factory=dict)
    repeated: set[tuple[DataflowKey, IngestionWindow]] = field(default_factory=set)
    omitted: set[str] = field(default_factory=set)


def ledger_history(rows: Iterable[TaskRow], *, now: float) -> LedgerHistory:
    """Return the entries of the flow runs that succeeded, by the XComs `flow_run` of operators and sensors.

    The owner of an entry is the task that created the flow run, if its XCom is still there.

    :param rows: sorted by the time of their DAG runs.
    :param now: epoch seconds, for `LedgerEntry.updated_at`.
    """
    by_run: dict[str, list[TaskRow]] = {}
    for row in rows:
        if row.flow_run:
            by_run.setdefault(row.flow_run.id, []).append(row)
    history = LedgerHistory()
    for flow_run_id, found in by_run.items():
        if not any(row.flow_run and row.flow_run.succeeded for row in found):
            continue
        entry = _entry(flow_run_id, found, now=now)
        if entry is None:
            history.omitted.add(flow_run_id)
            continue
        if entry.key in history.entries:
            history.repeated.add(entry.key)
        history.entries[entry.key] = entry
    return history


def _entry(flow_run_id: str, rows: list[TaskRow], *, now: float) -> LedgerEntry | None:
    creators = [row for row in rows if row.creates] or rows
    owner = creators[0]
    summaries = [row.flow_run for row in rows if row.flow_run]
    result = next(each for each in summaries if each.succeeded)
    flow_id = next((each.flow_id for each in summaries if each.flow_id), None)
    window = next((each.window for each in summaries if each.window), None)
    pages = next((pages for each in summaries if (pages := pages_of(each.url))), None)
    if flow_id is None or window is None or pages is None:
        return None
    return LedgerEntry(
        dataflow=DataflowKey(pages.organization, pages.sandbox, flow_id),
        window=window,
        state=EntryState.INGESTED,
        owner=f"{owner.dag_id}/{owner.run_id}/{owner.task_id}/{owner.map_index}",
        flow_run_id=flow_run_id,
        delivered=owner.creates and owner.state in _ENDED,
        output_records=result.output_records,
        updated_at=now,
    )
