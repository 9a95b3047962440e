# SPDX-License-Identifier: Apache-2.0
"""Compute the lag of one dataflow from its ledger and its flow runs, without Airflow's metadata database. Pure.

Tasks and triggers cannot read the metadata database, so the schedule of the dataflow's DAGs is not known here. Each
time between two ingested windows that no window ingested counts as a gap.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from airflow_flowservice.exceptions import FlowLateError, LedgerUnavailableError
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.windows.contiguity import length_text
from airflow_flowservice.windows.window import EPOCH, IngestionWindow, iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ledger.entry import DataflowKey
    from airflow_flowservice.ledger.store import Ledger

log = logging.getLogger(__name__)

_SHORTEST_LOOKBACK = timedelta(days=7)


class ListRuns(Protocol):
    """`FlowServiceClient.list_runs`."""

    def __call__(self, *, flow_id: str, created_since: datetime) -> Iterator[FlowRun]:
        """Yield the flow runs of a dataflow that were created since an instant."""


@dataclass(frozen=True, kw_only=True)
class LagLimit:
    """Limit of the lag of a dataflow.

    :param max_lag: the longest accepted lag.
    :param lookback: time before now in which gaps count; None for seven days, and at least twice `max_lag`.
    :param ignores_gaps: the lag is the time since the end of the last ingested window, also if a gap is before it.
    """

    max_lag: timedelta
    lookback: timedelta | None = None
    ignores_gaps: bool = False

    def range_before(self, now: datetime) -> IngestionWindow:
        """Return the time in which windows are read."""
        lookback = max(_SHORTEST_LOOKBACK, 2 * self.max_lag) if self.lookback is None else self.lookback
        return IngestionWindow(max(now - lookback, EPOCH), now)


@dataclass(frozen=True, kw_only=True)
class Lag:
    """Lag of a dataflow at an instant.

    :param now: instant of the check, aware.
    :param within: time in which windows were read.
    :param complete_until: end of the contiguous ingested span; None if no window was ingested in the range.
    :param last: the last ingested window; it is after a gap if its end is not `complete_until`.
    """

    flow_id: str
    limit: LagLimit
    now: datetime
    within: IngestionWindow
    complete_until: datetime | None = None
    last: IngestionWindow | None = None

    @property
    def length(self) -> timedelta | None:
        """Return the lag; None if no window was ingested in the range."""
        return None if self.complete_until is None else max(self.now - self.complete_until, timedelta(0))

    @property
    def is_late(self) -> bool:
        """Return whether the lag is longer than accepted."""
        return self.length is None or self.length > self.limit.max_lag

    def describe(self) -> str:
        """Return one sentence without a final period."""
        if self.complete_until is None or self.length is None:
            return f"no window of dataflow {self.flow_id} was ingested since {iso(self.within.start)}"
        text = (
            f"dataflow {self.flow_id} is ingested until {iso(self.complete_until)}, which is {_text(self.length)} ago"
        )
        if self.last is not None and self.last.end > self.complete_until:
            text = f"{text}; a gap follows, and the last ingested window ends at {iso(self.last.end)}"
        return text

    def error(self) -> FlowLateError:
        """Return the error of a late dataflow."""
        limit = _text(self.limit.max_lag)
        return FlowLateError(
            f"{self.describe()}; the longest accepted lag is {limit}",
            flow_id=self.flow_id,
            window=self.last,
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: seconds, and times in ISO 8601 (UTC)."""
        return {
            "flow_id": self.flow_id,
            "late": self.is_late,
            "lag_seconds": None if self.length is None else int(self.length.total_seconds()),
            "max_lag_seconds": int(self.limit.max_lag.total_seconds()),
            "complete_until": self.complete_until and iso(self.complete_until),
            "last_window_start": self.last and iso(self.last.start),
            "last_window_end": self.last and iso(self.last.end),
        }


def _text(length: timedelta) -> str:
    # A lag with seconds would be hard to compare with `max_lag`.
    is_long = length >= timedelta(minutes=2)
    return length_text(timedelta(minutes=length // timedelta(minutes=1)) if is_long else length)


def lag_of(windows: Iterable[IngestionWindow], *, flow_id: str, limit: LagLimit, now: datetime) -> Lag:
    """Return the lag of a dataflow with these ingested windows.

    :param windows: in any order; they may overlap. Windows that end before the range are ignored.
    """
    within = limit.range_before(now)
    complete_until: datetime | None = None
    last: IngestionWindow | None = None
    has_gap = False
    for window in sorted(each for each in windows if each.end > within.start):
        has_gap = has_gap or (complete_until is not None and window.start > complete_until and not limit.ignores_gaps)
        if not has_gap:
            complete_until = window.end if complete_until is None else max(complete_until, window.end)
        if last is None or window.end >= last.end:
            last = window
    return Lag(flow_id=flow_id, limit=limit, now=now, within=within, complete_until=complete_until, last=last)


def read_lag(
    dataflow: DataflowKey, *, limit: LagLimit, now: datetime, ledger: Ledger | None, list_runs: ListRuns
) -> Lag:
    """Return the lag of a dataflow: by the ledger, and, if it is late by the ledger, also by its flow runs.

    Flow Service also knows flow runs that the ledger does not have, for instance those of Adobe's own schedule.

    :param ledger: None if there is none that can be listed.
    :raises ApiError: the dataflow is late by the ledger, and its flow runs cannot be read.
    """
    within = limit.range_before(now)
    windows = [] if ledger is None else _ledger_windows(ledger, dataflow, within)
    lag = lag_of(windows, flow_id=dataflow.flow_id, limit=limit, now=now)
    if not lag.is_late:
        return lag
    for run in list_runs(flow_id=dataflow.flow_id, created_since=within.start):
        if run.window is not None and run.status.succeeded:
            windows.append(run.window)
    return lag_of(windows, flow_id=dataflow.flow_id, limit=limit, now=now)


def _ledger_windows(ledger: Ledger, dataflow: DataflowKey, within: IngestionWindow) -> list[IngestionWindow]:
    """Return the ingested windows; also those that are being ingested again."""
    try:
        entries = ledger.entries([dataflow], within)
        return [entry.window for entry in entries if entry.state is EntryState.INGESTED or entry.earlier]
    except LedgerUnavailableError as error:
        log.warning("The ledger cannot be read, so only the dataflow's flow runs count: %s", error)
        return []
