# SPDX-License-Identifier: Apache-2.0
"""Convert the ledger's entries of a dataflow to known flow runs and claimed windows. Pure.

The ledger has windows that Airflow's history has lost: `airflow db clean` and the deletion of a DAG do not change it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.coverage.cover import ExpectedWindow, KnownRun
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.windows.contiguity import uncovered
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_flowservice.ledger.entry import LedgerEntry

RECENT_CLAIM_S = 600
"""Seconds after which a claim without a flow run has an unknown result; the POST follows a claim within seconds."""

FIRST_S = 3600
"""Tasks whose entries were stored within this time, in seconds, were the first ones, in any order."""


@dataclass(frozen=True, kw_only=True)
class LedgerRecords:
    """Content of the ledger about one dataflow.

    :param entries: entries of the dataflow around the range of the coverage.
    :param unreadable: windows with an entry that cannot be read.
    :param error: sentence that states why the ledger cannot be read; None if it was read, or is disabled.
    :param lacks_database: the error is that Airflow's database, which has the ledger's Variables, cannot be read.
    :param known_recorded: value of `recorded`, if `entries` does not have all entries.
    """

    entries: tuple[LedgerEntry, ...] = ()
    unreadable: tuple[IngestionWindow, ...] = ()
    error: str | None = None
    lacks_database: bool = False
    known_recorded: IngestionWindow | None = None

    @property
    def recorded(self) -> IngestionWindow | None:
        """Return the time in which the ledger has each ingested window; None if it has no entry.

        It begins with the window that was stored first. Earlier windows may have been ingested before the ledger was
        used, even if some of them were stored later. It ends with the last window.
        """
        if self.known_recorded is not None or not self.entries:
            return self.known_recorded
        return recorded_time((entry.updated_at, entry.window) for entry in self.entries)


NO_RECORDS = LedgerRecords()


def recorded_time(changes: Iterable[tuple[float, IngestionWindow]]) -> IngestionWindow | None:
    """Return the value of `LedgerRecords.recorded` for all entries of a dataflow.

    :param changes: last change (`LedgerEntry.updated_at`) and window of each entry. An entry without a time of its
        change, which a user wrote, does not show when the ledger was first used.
    """
    known = [(updated_at, window) for updated_at, window in changes if updated_at > 0]
    if not known:
        return None
    first = min(updated_at for updated_at, _ in known) + FIRST_S
    return IngestionWindow(
        min(window.start for updated_at, window in known if updated_at <= first), max(window.end for _, window in known)
    )


def recorded_runs(
    entries: Iterable[LedgerEntry],
    *,
    url_of: Callable[[LedgerEntry, str], str],
    conceals: Callable[[str], bool] = lambda owner: False,
) -> Iterator[KnownRun]:
    """Yield the flow runs of the entries: the current one, and those that were replaced on request.

    :param url_of: return the page of an entry's flow run.
    :param conceals: return whether flow runs of an owner (`LedgerEntry.owner`) are concealed.
    """
    for entry in entries:
        concealed = conceals(entry.owner)
        for earlier in entry.earlier:
            yield KnownRun(
                id=earlier.flow_run_id,
                window=entry.window,
                status=FlowRunStatus.SUCCESS,
                url=url_of(entry, earlier.flow_run_id),
                replaced_at=earlier.replaced_at,
                replaced_by=earlier.replaced_by,
                concealed=concealed,
            )
        if entry.flow_run_id is not None:
            is_ingested = entry.state is EntryState.INGESTED
            yield KnownRun(
                id=entry.flow_run_id,
                window=entry.window,
                status=FlowRunStatus.SUCCESS if is_ingested else FlowRunStatus.UNKNOWN,
                records=entry.output_records if is_ingested else None,
                url=url_of(entry, entry.flow_run_id),
                status_read=is_ingested,
                concealed=concealed,
            )


def restated_runs(entry: LedgerEntry) -> tuple[str, ...]:
    """Return the flow runs of other windows a part of which the entry's flow run ingested again on request."""
    found = entry.intent.get("restates") if entry.intent else None
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def split_restated(
    runs: Iterable[KnownRun],
    *,
    entries: Iterable[LedgerEntry],
    conceals: Callable[[str], bool] = lambda owner: False,
) -> Iterator[KnownRun]:
    """Yield the runs. The parts of a run's window that were ingested again on request are separate, replaced runs.

    :param entries: of the ledger, with the requests.
    :param conceals: as for `recorded_runs`.
    """
    requests: dict[str, list[LedgerEntry]] = defaultdict(list)
    for entry in sorted(entries, key=_claimed_at):
        for flow_run_id in restated_runs(entry):
            requests[flow_run_id].append(entry)
    for run in runs:
        if run.window is None or run.replaced or run.id not in requests:
            yield run
            continue
        rest = [run.window]
        for entry in requests[run.id]:
            replaced_by = None if conceals(entry.owner) else entry.owner
            for part in _common(rest, entry.window):
                yield replace(run, window=part, replaced_at=_claimed_at(entry), replaced_by=replaced_by)
            rest = [left for part in rest for left in uncovered(part, [entry.window])]
        for part in rest:
            yield replace(run, window=part)


def _claimed_at(entry: LedgerEntry) -> float:
    """Return the epoch seconds of the claim; those of the last change if they are not known."""
    written_at = (entry.intent or {}).get("written_at")
    return float(written_at) if isinstance(written_at, int | float) else entry.updated_at


def _common(windows: Iterable[IngestionWindow], other: IngestionWindow) -> Iterator[IngestionWindow]:
    for window in windows:
        if window.overlaps(other):
            yield IngestionWindow(max(window.start, other.start), min(window.end, other.end))


def claimed_windows(records: LedgerRecords, *, now: datetime) -> Iterator[ExpectedWindow]:
    """Yield the windows whose flow run is not known: claimed ones, and those of unreadable entries.

    A recent claim is running. A request may have been sent for any other one, so its result is unknown.

    :param now: aware.
    """
    recent = (now - timedelta(seconds=RECENT_CLAIM_S)).timestamp()
    for entry in records.entries:
        if entry.flow_run_id is not None:
            continue
        if entry.updated_at > recent:
            yield ExpectedWindow(window=entry.window, task_state="running")
        else:
            yield ExpectedWindow(window=entry.window, readable=False, reason=f"claimed by {entry.owner}")
    for window in records.unreadable:
        yield ExpectedWindow(window=window, readable=False, reason="the ledger's entry cannot be read")
