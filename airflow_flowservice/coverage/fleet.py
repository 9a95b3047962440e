# SPDX-License-Identifier: Apache-2.0
"""Summarize the coverage of many dataflows: one value for each, the worst first. Pure.

`coverage.cover` judges the windows. Before it does, this module joins contiguous windows that are ingested exactly
once, because a year of daily windows is mostly one such span. The states of all other spans stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.coverage.cover import KnownRun, State
from airflow_flowservice.coverage.state_bar import URGENCY, bar_of
from airflow_flowservice.plain_text import ID_LENGTH, clean_text
from airflow_flowservice.windows.window import IngestionWindow, iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_flowservice.coverage.cover import Coverage, Span
    from airflow_flowservice.ledger.entry import DataflowKey

BAR_CELLS = 40
COUNTED = (State.MISSING, State.FAILED, State.DUPLICATED, State.RUNNING, State.UNKNOWN)
"""States whose windows are counted."""

_WRONG = (State.MISSING, State.FAILED, State.DUPLICATED)
_HAS_DATA = frozenset({State.INGESTED, State.OUTSIDE, State.RESTATED, State.DUPLICATED})
_LATEST = datetime.max.replace(tzinfo=timezone.utc)
_EDGES = attrgetter("start", "end")


@dataclass(frozen=True, kw_only=True)
class DagStatus:
    """State of a DAG.

    :param is_stale: the DAG processor no longer finds the DAG, or its file has an import error.
    :param is_decoded: False if its schedule cannot be decoded, so its missing windows are not known.
    :param next_due: time of the next DAG run; None if the scheduler plans none.
    """

    dag_id: str
    is_paused: bool = False
    is_stale: bool = False
    is_decoded: bool = True
    next_due: datetime | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataflowStatus:
    """Summary of one dataflow.

    :param key: organization and sandbox are empty if no record shows them.
    :param name: name of the dataflow in Flow Service; None if no record has it.
    :param dags: DAGs whose tasks ingest into the dataflow, sorted by id. A DAG that was deleted is stale.
    :param last: the last window that was ingested, in all records; None if there is none.
    :param complete_until: see `complete_until`; None if no record shows it.
    :param lag: now minus `complete_until`.
    :param counts: number of windows within the range for each of `COUNTED`.
    :param has_more: True if the range has more windows than were computed, so `counts` is a lower limit.
    :param bar: state of each cell of the range; None where no window is expected or ingested.
    """

    key: DataflowKey
    name: str | None = None
    dags: tuple[DagStatus, ...] = ()
    last: IngestionWindow | None = None
    complete_until: datetime | None = None
    lag: timedelta | None = None
    counts: Mapping[State, int] = field(default_factory=dict)
    has_more: bool = False
    bar: tuple[State | None, ...] = ()

    @property
    def is_wrong(self) -> bool:
        """Return whether a window is missing, failed or duplicated."""
        return any(self.counts.get(state) for state in _WRONG)

    @property
    def state(self) -> State | None:
        """Return the most urgent state of its windows; None if it has no window in the range."""
        present = {*(state for state, count in self.counts.items() if count), *filter(None, self.bar)}
        return next((state for state in URGENCY if state in present), None)

    @property
    def is_paused(self) -> bool:
        """Return whether all DAGs that still exist are paused."""
        return all(dag.is_paused for dag in self.dags if not dag.is_stale) and not self.is_stale

    @property
    def is_stale(self) -> bool:
        """Return whether no DAG creates its windows any more."""
        return all(dag.is_stale for dag in self.dags)

    @property
    def next_due(self) -> datetime | None:
        """Return the time of the next DAG run of a DAG that is neither paused nor stale."""
        planned = [dag.next_due for dag in self.dags if not dag.is_paused and not dag.is_stale]
        return min(filter(None, planned), default=None)

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the tags of its DAGs."""
        return tuple(sorted({tag for dag in self.dags for tag in dag.tags}))

    @property
    def undecoded(self) -> tuple[str, ...]:
        """Return the DAGs whose schedule cannot be decoded."""
        return tuple(dag.dag_id for dag in self.dags if not dag.is_decoded and not dag.is_stale)

    @property
    def lag_note(self) -> str:
        """Return a sentence that explains the lag if it is not that of an ingested window; else empty text."""
        if self.undecoded:
            begin = "never ingested; " if self.last is None else ""
            return f"{begin}missing windows are not known, because the schedule of {self._undecoded_text} is unreadable"
        if self.last is not None:
            return ""
        if self.complete_until is not None:
            return "never ingested; the lag counts from its first expected window"
        if self.counts.get(State.UNKNOWN):
            return "no record shows whether a window is ingested"
        return "never ingested, and no window was due in the range"

    @property
    def _undecoded_text(self) -> str:
        more = len(self.undecoded) - 1
        return f"DAG {_clean_id(self.undecoded[0])}" + (f" and {more} more" if more else "")

    def is_late(self, max_lag: timedelta) -> bool:
        """Return whether the lag is longer, or may be: no record shows whether a window is ingested, or is due."""
        if self.lag is None:
            return bool(self.counts.get(State.UNKNOWN) or self.undecoded)
        return self.lag > max_lag

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, for the commands and the page."""
        return {
            "organization": _clean_id(self.key.organization) or None,
            "sandbox": _clean_id(self.key.sandbox) or None,
            "flow_id": _clean_id(self.key.flow_id),
            "flow_name": self.name and clean_text(self.name),
            "state": self.state and self.state.value,
            "wrong": self.is_wrong,
            "dags": [
                {"dag_id": _clean_id(dag.dag_id), "paused": dag.is_paused, "stale": dag.is_stale} for dag in self.dags
            ],
            "undecoded_schedules": [_clean_id(dag_id) for dag_id in self.undecoded],
            "tags": [_clean_id(tag) for tag in self.tags],
            "last_window": self.last and {"start": iso(self.last.start), "end": iso(self.last.end)},
            "complete_until": self.complete_until and iso(self.complete_until),
            "lag_seconds": None if self.lag is None else int(self.lag.total_seconds()),
            "lag_note": self.lag_note,
            "next_due": self.next_due and iso(self.next_due),
            "windows": {state.value: self.counts.get(state, 0) for state in COUNTED},
            "has_more": self.has_more,
            "bar": [state and state.value for state in self.bar],
        }


def _clean_id(text: str) -> str:
    # Longer than an id of Flow Service: an id of a DAG has up to 250 characters.
    return clean_text(text, length=2 * ID_LENGTH)


def dataflow_status(
    key: DataflowKey,
    coverage: Coverage,
    *,
    within: IngestionWindow,
    now: datetime,
    last: IngestionWindow | None,
    dags: Iterable[DagStatus] = (),
    name: str | None = None,
    has_more: bool = False,
) -> DataflowStatus:
    """Return the summary of a dataflow.

    :param coverage: of the range `within`.
    :param now: aware.
    :param last: the last ingested window of all records, also before the range.
    """
    until = complete_until(coverage.spans)
    if until is None and last is not None:
        until = last.end  # before the range
    return DataflowStatus(
        key=key,
        name=name,
        dags=tuple(sorted(dags, key=attrgetter("dag_id"))),
        last=last,
        complete_until=until,
        lag=None if until is None else max(now - until, timedelta(0)),
        counts={state: coverage.totals[state].spans for state in COUNTED},
        has_more=has_more,
        bar=tuple(bar_of(coverage.spans, within=within, cells=BAR_CELLS)),
    )


def complete_until(spans: Sequence[Span]) -> datetime | None:
    """Return the instant until which all expected windows are ingested.

    It is the start of the first window that is not ingested, or the end of the last one. Time that no window covers
    was not requested, so it makes no gap. Windows that are unknown at the start do not count, because records of
    that time may have been deleted. Return None if all windows are unknown, or there is none.

    :param spans: of a `Coverage`.
    """
    until: datetime | None = None
    for span in spans:
        if span.state in _HAS_DATA:
            until = span.window.end
        elif until is not None or span.state is not State.UNKNOWN:
            return span.window.start
    return until


def worst_first(rows: Iterable[DataflowStatus]) -> list[DataflowStatus]:
    """Return the rows sorted by their most urgent state, then by lag, the longest first."""
    return sorted(rows, key=_badness)


def _badness(row: DataflowStatus) -> tuple[int, float, tuple[str, str, str]]:
    urgency = len(URGENCY) if row.state is None else URGENCY.index(row.state)
    if row.state in _HAS_DATA and not row.is_wrong:
        urgency = URGENCY.index(State.INGESTED)
    lag = -1.0 if row.lag is None else row.lag.total_seconds()
    return urgency, -lag, (row.key.sandbox, row.name or row.key.flow_id, row.key.flow_id)


def merged_runs(windows: Iterable[IngestionWindow]) -> Iterator[KnownRun]:
    """Yield successful runs for the windows of different successful runs.

    Contiguous windows share one run if no other window overlaps them. Other windows have a run each, so that they are
    judged as duplicated exactly where they are.
    """
    ordered = sorted(windows, key=_EDGES)
    ends = [window.end for window in ordered]
    starts = [*(window.start for window in ordered[1:]), _LATEST]
    last_ones = [index for index, end in enumerate(ends) if end != starts[index]]
    if any(ends[index] > starts[index] for index in last_ones):
        yield from _merged_overlapping(ordered)
        return
    first = 0
    for index in last_ones:
        yield _success(index, IngestionWindow(ordered[first].start, ends[index]))
        first = index + 1


def _merged_overlapping(ordered: Sequence[IngestionWindow]) -> Iterator[KnownRun]:
    """Yield the runs of `merged_runs` for sorted windows, some of which overlap."""
    latest: datetime | None = None
    begin: datetime | None = None
    for index, window in enumerate(ordered):
        following = ordered[index + 1].start if index + 1 < len(ordered) else _LATEST
        is_single = (latest is None or latest <= window.start) and window.end <= following
        if not is_single:
            yield _success(index, window)
        else:
            begin = begin or window.start
            if following != window.end or _is_overlapped(ordered, index + 1):
                yield _success(index, IngestionWindow(begin, window.end))
                begin = None
        latest = window.end if latest is None else max(latest, window.end)


def _is_overlapped(ordered: Sequence[IngestionWindow], index: int) -> bool:
    """Return whether the window after this one begins before this one ends."""
    return index + 1 < len(ordered) and ordered[index + 1].start < ordered[index].end


def _success(index: int, window: IngestionWindow) -> KnownRun:
    return KnownRun(id=f"merged/{index}", window=window, status=FlowRunStatus.SUCCESS)
