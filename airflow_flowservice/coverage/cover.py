# SPDX-License-Identifier: Apache-2.0
"""Compute the state of each window from the expected windows and the known flow runs.

Pure: the caller passes the windows that DAG runs and schedules expect, and the flow runs. These come from the XComs of
tasks, from the ledger and, if it was queried, from Flow Service. Runs are joined by id, so the result is correct even
if Flow Service does not report a run's window. If the records do not show the state of a window, it is `unknown`.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.runs.summary import CREATED
from airflow_flowservice.windows.window import EPOCH, IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.summary import FlowRunSummary

_ACTIVE_TASK_STATES = frozenset(
    {"scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting"}
)
_ACTIVE_DAG_RUN_STATES = frozenset({"queued", "running"})
_FAILED_TASK_STATES = frozenset({"failed", "upstream_failed"})


class State(str, Enum):
    """State of a span of time. The values are keys of the commands' and the page's JSON."""

    INGESTED = "ingested"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"
    DUPLICATED = "twice"
    RESTATED = "restated"
    OUTSIDE = "outside"
    UNKNOWN = "unknown"


GAP_STATES = frozenset({State.MISSING, State.FAILED})


@dataclass(frozen=True, kw_only=True)
class ExpectedWindow:
    """Window that a task of a DAG run, or only a schedule, should ingest.

    :param dag_run_id: None if the schedule expects a DAG run that does not exist.
    :param date: date by which `airflow backfill create` selects the DAG run; None if no backfill creates the DAG run.
    :param task_state: Airflow's state of the task, such as `deferred`; None if the task has not started.
    :param readable: False if the task's XCom cannot be read, or a claim's result is unknown.
    :param reason: sentence that states why the records cannot show that the window is not ingested. Such a window is
        never missing.
    """

    window: IngestionWindow
    dag_id: str | None = None
    dag_run_id: str | None = None
    dag_run_state: str | None = None
    task_id: str | None = None
    map_index: int = -1
    date: datetime | None = None
    task_state: str | None = None
    readable: bool = True
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class KnownRun:
    """Flow run from a task's XCom, the ledger or Flow Service, or from several of them.

    :param window: None if no source reports it.
    :param failed_records_derived: the number of failed records is derived from the other counts.
    :param outside: True if none of the given tasks pushed the run's id.
    :param batch: status of a batch in the catalogue, of a failed one if there is any; None if no task read it.
    :param status_read: False if a task only created the run, so that its status is unknown.
    :param replaced_at: epoch seconds of the request to ingest the window again; None if there was none.
    :param replaced_by: task that requested it, as `LedgerEntry.owner`.
    :param concealed: the run determines the state of its window, but `Span.runs` does not have it.
    """

    id: str
    window: IngestionWindow | None = None
    status: FlowRunStatus = FlowRunStatus.UNKNOWN
    records: int | None = None
    failed_records: int | None = None
    failed_records_derived: bool = False
    url: str | None = None
    outside: bool = False
    batch: str | None = None
    status_read: bool = True
    replaced_at: float | None = None
    replaced_by: str | None = None
    concealed: bool = False

    @property
    def replaced(self) -> bool:
        """Return whether the run's window was ingested again on request."""
        return self.replaced_at is not None


@dataclass(frozen=True, kw_only=True)
class Span:
    """Span of time with one state.

    :param expected: windows of DAG runs that contain the span. If there is none, one window of a schedule.
    :param runs: flow runs whose windows contain the span, in the order of their ids.
    :param more_expected: number of further windows of DAG runs, beyond the limit of entries; `more_runs` likewise.
    """

    window: IngestionWindow
    state: State
    expected: tuple[ExpectedWindow, ...] = ()
    runs: tuple[KnownRun, ...] = ()
    more_expected: int = 0
    more_runs: int = 0


@dataclass(frozen=True, kw_only=True)
class Total:
    """Number and total length in seconds of the spans of one state."""

    spans: int = 0
    seconds: int = 0


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Coverage of a dataflow.

    :param spans: sorted by time, without overlaps. Time that is neither expected nor ingested has no span.
    :param unplaced: flow runs without a known window. Each may have ingested any span, possibly a second time.
    :param ordered: ids of DAGs with a task that has `depends_on_past`.
    """

    spans: tuple[Span, ...] = ()
    unplaced: tuple[KnownRun, ...] = ()
    totals: Mapping[State, Total] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Return True if no window is missing, failed or duplicated."""
        return not any(self.totals[state].spans for state in (State.MISSING, State.FAILED, State.DUPLICATED))


def known_runs(
    pushed: Iterable[FlowRunSummary], found: Iterable[FlowRun] = (), *, recorded: Iterable[KnownRun] = ()
) -> list[KnownRun]:
    """Return each flow run once, joined from the XComs `flow_run`, the ledger and Flow Service.

    :param pushed: summaries in the XComs of tasks.
    :param found: flow runs of Flow Service. A run that is only here was created outside the tasks.
    :param recorded: flow runs in the ledger.
    """
    runs: dict[str, KnownRun] = {}
    # An XCom has the exact status of a success; the ledger only has that it was one.
    for run in (*recorded, *map(_from_summary, pushed)):
        runs[run.id] = _joined(runs[run.id], run) if run.id in runs else run
    for each in found:
        run = _from_service(each)
        runs[run.id] = replace(_joined(runs[run.id], run), outside=False) if run.id in runs else run
    return list(runs.values())


def cover(
    expected: Iterable[ExpectedWindow],
    runs: Iterable[KnownRun],
    *,
    within: IngestionWindow | None = None,
    most_entries: int | None = None,
) -> Coverage:
    """Return the coverage of the expected windows by the known runs.

    :param within: range to which all windows are cut.
    :param most_entries: maximum number of expected windows, and of runs, of each span; None means all. The state is
        computed from all of them. With nested windows, the number of all entries is the square of that of the windows.
    """
    runs = sorted(runs, key=lambda run: run.id)
    sources: list[ExpectedWindow | KnownRun] = [*expected, *(run for run in runs if run.window)]
    spans = tuple(_spans(sources, within=within, most_entries=most_entries))
    totals: dict[State, Total] = {state: Total() for state in State}
    for span in spans:
        total = totals[span.state]
        totals[span.state] = Total(spans=total.spans + 1, seconds=total.seconds + span.window.seconds)
    return Coverage(spans=spans, unplaced=tuple(run for run in runs if run.window is None), totals=totals)


def cover_all(
    found: Iterable[FlowRun],
    *,
    within: IngestionWindow,
    now: datetime,
    recorded: Iterable[KnownRun] = (),
    split: Callable[[list[KnownRun]], Iterable[KnownRun]] = list,
    claimed: Iterable[ExpectedWindow] = (),
    reason: str | None = None,
) -> Coverage:
    """Return the coverage by the runs of Flow Service and of the ledger, if the whole range up to now is expected.

    :param now: aware.
    :param recorded: flow runs in the ledger.
    :param split: separate the replaced parts of all runs, as `ledger_runs.split_restated`.
    :param claimed: windows that the ledger has without a flow run.
    :param reason: as `ExpectedWindow.reason`, for time without a flow run.
    """
    runs = [replace(run, outside=False) for run in known_runs((), found, recorded=recorded)]
    # A run without a known window may have ingested any part of the range.
    readable = not any(run.window is None and not run.status.failed for run in runs)
    over = _cut(within, IngestionWindow(EPOCH, now))
    whole = [] if over is None else [ExpectedWindow(window=over, readable=readable, reason=reason)]
    return cover([*claimed, *whole], split(runs), within=within)


def gaps(coverage: Coverage, states: Collection[State] = GAP_STATES) -> list[tuple[Span, ...]]:
    """Return the spans with one of the states; contiguous ones form a group."""
    open_spans = [(index, span) for index, span in enumerate(coverage.spans) if span.state in states]
    grouped: list[list[tuple[int, Span]]] = []
    for index, span in open_spans:
        if grouped and grouped[-1][-1][0] == index - 1 and grouped[-1][-1][1].window.meets(span.window):
            grouped[-1].append((index, span))
        else:
            grouped.append([(index, span)])
    return [tuple(span for _, span in group) for group in grouped]


def _spans(
    sources: Sequence[ExpectedWindow | KnownRun], *, within: IngestionWindow | None, most_entries: int | None
) -> Iterator[Span]:
    """Yield a span between each edge of a window and the next edge, so that adjacent windows stay separate."""
    begins, ends = defaultdict(list), defaultdict(list)
    for index, source in enumerate(sources):
        window = source.window if within is None else _cut(source.window, within)
        if window is not None:
            begins[window.start].append(index)
            ends[window.end].append(index)
    edges = sorted({*begins, *ends})
    opened = _OpenSources(sources, most_entries=most_entries)
    for edge, next_edge in pairwise(edges):
        for index in ends[edge]:
            opened.remove(index)
        for index in begins[edge]:
            opened.add(index)
        if opened:
            yield opened.span(IngestionWindow(edge, next_edge))


class _OpenSources:
    """Sources whose windows contain the current span, with the numbers that determine its state."""

    def __init__(self, sources: Sequence[ExpectedWindow | KnownRun], *, most_entries: int | None) -> None:
        self._sources = sources
        self._most_entries = most_entries
        self._of_dag_runs, self._of_schedules = _OpenIndexes(), _OpenIndexes()
        self._runs, self._concealed = _OpenIndexes(), _OpenIndexes()
        self._facts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._of_dag_runs) + len(self._of_schedules) + len(self._runs) + len(self._concealed)

    def add(self, index: int) -> None:
        self._indexes(index).add(index)
        self._facts.update(_facts(self._sources[index]))

    def remove(self, index: int) -> None:
        self._indexes(index).remove(index)
        self._facts.subtract(_facts(self._sources[index]))

    def span(self, window: IngestionWindow) -> Span:
        """Return the span with the first sources of each kind."""
        if self._of_dag_runs:
            expected, more_expected = self._first(self._of_dag_runs)
        else:
            expected, more_expected = [self._sources[index] for index in self._of_schedules.first(1)], 0
        runs, more_runs = self._first(self._runs)
        return Span(
            window=window,
            state=_state(self._facts),
            expected=tuple(each for each in expected if isinstance(each, ExpectedWindow)),
            runs=tuple(each for each in runs if isinstance(each, KnownRun)),
            more_expected=more_expected,
            more_runs=more_runs,
        )

    def _first(self, indexes: _OpenIndexes) -> tuple[list[ExpectedWindow | KnownRun], int]:
        found = [self._sources[index] for index in indexes.first(self._most_entries)]
        return found, len(indexes) - len(found)

    def _indexes(self, index: int) -> _OpenIndexes:
        source = self._sources[index]
        if isinstance(source, KnownRun):
            return self._concealed if source.concealed else self._runs
        return self._of_schedules if source.dag_run_id is None else self._of_dag_runs


class _OpenIndexes:
    """Set of indexes that returns the lowest ones without sorting all. An index is added once."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._open)

    def add(self, index: int) -> None:
        self._open.add(index)
        heapq.heappush(self._heap, index)

    def remove(self, index: int) -> None:
        self._open.remove(index)

    def first(self, most: int | None) -> list[int]:
        """Return the lowest indexes in order; None means all."""
        if most is None or len(self._open) <= most:
            return sorted(self._open)
        found: list[int] = []
        while len(found) < most:
            index = heapq.heappop(self._heap)
            if index in self._open:
                found.append(index)
        for index in found:
            heapq.heappush(self._heap, index)
        return found


def _facts(source: ExpectedWindow | KnownRun) -> Iterator[str]:
    """Yield the facts about a source that determine the state of a span."""
    if isinstance(source, KnownRun):
        yield "run"
        if source.status.succeeded:
            yield "replaced" if source.replaced else "succeeded"
            if not source.outside:
                yield "succeeded inside"
        if source.status in (FlowRunStatus.SCHEDULED, FlowRunStatus.IN_PROGRESS):
            yield "active run"
        if source.status in (FlowRunStatus.UNKNOWN, FlowRunStatus.ENDED_UNCLEAR):
            yield "unknown run"
        return
    if has_active_task(source):
        yield "active task"
    if source.task_state in _FAILED_TASK_STATES:
        yield "failed task"
    if not source.readable:
        yield "unreadable"
    if source.reason:
        yield "unrecorded"


def _state(facts: Mapping[str, int]) -> State:
    if facts["succeeded"] > 1:
        return State.DUPLICATED
    if facts["active run"]:
        return State.RUNNING
    if facts["succeeded"] + facts["replaced"] > 1:
        return State.RESTATED
    if facts["succeeded"] or facts["replaced"]:
        return State.INGESTED if facts["succeeded inside"] else State.OUTSIDE
    if facts["unknown run"]:
        return State.UNKNOWN
    if facts["active task"]:
        return State.RUNNING
    if facts["unreadable"]:
        return State.UNKNOWN
    if facts["run"] or facts["failed task"]:
        return State.FAILED
    return State.UNKNOWN if facts["unrecorded"] else State.MISSING


def has_active_task(expected: ExpectedWindow) -> bool:
    """Return True if the task is active, or has not started and its DAG run is active."""
    is_pending = expected.task_state is None and expected.dag_run_state in _ACTIVE_DAG_RUN_STATES
    return is_pending or expected.task_state in _ACTIVE_TASK_STATES


def _cut(window: IngestionWindow | None, within: IngestionWindow) -> IngestionWindow | None:
    if window is None or not window.overlaps(within):
        return None
    return IngestionWindow(max(window.start, within.start), min(window.end, within.end))


def _joined(one: KnownRun, other: KnownRun) -> KnownRun:
    """Join two records of one run: the status of the more certain record, and the window of the first that has one."""
    newer = other if _certainty(other) >= _certainty(one) else one
    older = one if newer is other else other
    counted = older if newer.failed_records is None else newer
    return replace(
        newer,
        window=one.window or other.window,
        records=older.records if newer.records is None else newer.records,
        failed_records=counted.failed_records,
        failed_records_derived=counted.failed_records_derived,
        url=one.url or other.url,
        replaced_at=one.replaced_at or other.replaced_at,
        replaced_by=one.replaced_by or other.replaced_by,
        concealed=one.concealed and other.concealed,
    )


def _certainty(run: KnownRun) -> int:
    # Flow Service's own status does not include the batches.
    if run.batch is not None:
        return 3
    if run.status.succeeded or run.status.failed:
        return 2
    return int(run.status_read)


def _from_summary(summary: FlowRunSummary) -> KnownRun:
    return KnownRun(
        id=summary.id,
        window=summary.window,
        status=FlowRunStatus.parse(summary.status),
        records=summary.output_records,
        failed_records=summary.failed_records,
        failed_records_derived=summary.failed_records_derived,
        url=summary.url,
        # Failed batches come first.
        batch=summary.batches[0].status_word if summary.batches else None,
        status_read=summary.status != CREATED,
    )


def _from_service(run: FlowRun) -> KnownRun:
    return KnownRun(
        id=run.id,
        window=run.window,
        status=run.status,
        records=run.output_records,
        failed_records=run.failed_records,
        failed_records_derived=run.failed_records_derived,
        outside=True,
    )
