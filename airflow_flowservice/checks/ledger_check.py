# SPDX-License-Identifier: Apache-2.0
"""Compare a dataflow's ledger entries with the flow runs of Flow Service. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_flowservice.ledger.entry import EntryState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ledger.entry import LedgerEntry
    from airflow_flowservice.windows.window import IngestionWindow


@dataclass(frozen=True, kw_only=True)
class LedgerDifference:
    """Difference between the ledger and Flow Service.

    :param window: None if Flow Service does not show the window of a flow run.
    :param problem: one line of text.
    :param owner: owner of the entry; None if there is no entry.
    """

    window: IngestionWindow | None
    flow_run_id: str
    problem: str
    owner: str | None = None


def compare_ledger(
    entries: Iterable[LedgerEntry],
    runs: Iterable[FlowRun],
    *,
    find: Callable[[str], FlowRun | None],
    within: IngestionWindow | None = None,
) -> Iterator[LedgerDifference]:
    """Yield ingested entries whose flow run has not succeeded, and successful flow runs without an entry.

    :param entries: all entries of one dataflow.
    :param runs: the dataflow's flow runs, which may lack some.
    :param find: function that reads one flow run that `runs` lacks; it returns None if there is none.
    :param within: compare only windows that overlap it, and flow runs without a known window.
    """
    listed = {run.id: run for run in runs}
    known: set[str] = set()
    for entry in entries:
        known.update(run.flow_run_id for run in entry.earlier)
        if entry.flow_run_id is None:
            continue
        known.add(entry.flow_run_id)
        if entry.state is EntryState.INGESTED and (within is None or entry.window.overlaps(within)):
            problem = _problem_of(listed.get(entry.flow_run_id) or find(entry.flow_run_id))
            if problem:
                yield LedgerDifference(
                    window=entry.window, flow_run_id=entry.flow_run_id, problem=problem, owner=entry.owner
                )
    for run in listed.values():
        is_within = within is None or run.window is None or run.window.overlaps(within)
        if run.status.succeeded and run.id not in known and is_within:
            problem = "succeeded, but is not in the ledger"
            yield LedgerDifference(window=run.window, flow_run_id=run.id, problem=problem)


def _problem_of(run: FlowRun | None) -> str | None:
    if run is None:
        return "ingested in the ledger, but Flow Service does not have the flow run"
    if run.status.succeeded:
        return None
    return f"ingested in the ledger, but the flow run is {run.status_word or run.status.value} at Flow Service"
