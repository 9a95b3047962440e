"""Compute the state of each window from the expected windows and the known flow runs.

Pure: the caller passes the windows that DAG runs and schedules expect, the XComs of their tasks and, if Flow Service
was queried, its flow runs. Runs are joined by id, so the result is correct even if Flow Service does not report a run's
window. If the records do not show the state of a window, it is `unknown`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.runs.summary import CREATED
from airflow_flowservice.windows.window import EPOCH, IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
    OUTSIDE = "outside"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class ExpectedWindow:
    """Window that a task of a DAG run, or only a schedule, should ingest.

    :param dag_run_id: None if the schedule expects a DAG run that does not exist.
    :param date: date by which `airflow backfill create` selects the DAG run; None if no backfill creates the DAG run.
    :param task_state: Airflow's state of the task, such as `deferred`; None if the task has not started.
    :param readable: False if the task's XCom cannot be read, so that its result is unknown.
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


@dataclass(frozen=True, kw_only=True)
class KnownRun:
    """Flow run from a task's XCom, from Flow Service, or from both.

    :param window: None if no source reports it.
    :param outside: True if none of the given tasks pushed the run's id.
    :param status_read: False if a task only created the run, so that its status is unknown.
    """

    id: str
    window: IngestionWindow | None = None
    status: FlowRunStatus = FlowRunStatus.UNKNOWN
    records: int | None = None
    failed_records: int | None = None
    url: str | None = None
    outside: bool = False
    status_read: bool = True


@dataclass(frozen=True, kw_only=True)
class Span:
    """Span of time with one state.

    :param expected: windows of DAG runs that contain the span. If there is none, one window of a schedule.
    :param runs: flow runs whose windows contain the span, in the order of their ids.
    """

    window: IngestionWindow
    state: State
    expected: tuple[ExpectedWindow, ...] = ()
    runs: tuple[KnownRun, ...] = ()


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
    """

    spans: tuple[Span, ...] = ()
    unplaced: tuple[KnownRun, ...] = ()
    totals: Mapping[State, Total] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Return True if no window is missing, failed or duplicated."""
        return not any(self.totals[state].spans for state in (State.MISSING, State.FAILED, State.DUPLICATED))


def known_runs(pushed: Iterable[FlowRunSummary], found: Iterable[FlowRun] = ()) -> list[KnownRun]:
    """Return each flow run once, joined from the XComs `flow_run` and from Flow Service.

    :param pushed: summaries in the XComs of tasks.
    :param found: flow runs of Flow Service. A run that is only here was created outside the tasks.
    """
    runs: dict[str, KnownRun] = {}
    for summary in pushed:
        run = _from_summary(summary)
        runs[run.id] = _joined(runs[run.id], run) if run.id in runs else run
    for each in found:
        run = _from_service(each)
        runs[run.id] = replace(_joined(runs[run.id], run), outside=False) if run.id in runs else run
    return list(runs.values())


def cover(
    expected: Iterable[ExpectedWindow], runs: Iterable[KnownRun], *, within: IngestionWindow | None = None
) -> Coverage:
    """Return the coverage of the expected windows by the known runs.

    :param within: range to which all windows are cut.
    """
    runs = sorted(runs, key=lambda run: run.id)
    sources: list[ExpectedWindow | KnownRun] = [*expected, *(run for run in runs if run.window)]
    spans = tuple(_spans(sources, within=within))
    totals: dict[State, Total] = {state: Total() for state in State}
    for span in spans:
        total = totals[span.state]
        totals[span.state] = Total(spans=total.spans + 1, seconds=total.seconds + span.window.seconds)
    return Coverage(spans=spans, unplaced=tuple(run for run in runs if run.window is None), totals=totals)


def cover_all(found: Iterable[FlowRun], *, within: IngestionWindow, now: datetime) -> Coverage:
    """Return the coverage by the runs of Flow Service, if the whole range up to now is expected.

    :param now: aware.
    """
    runs = [replace(run, outside=False) for run in known_runs((), found)]
    # A run without a known window may have ingested any part of the range.
    readable = not any(run.window is None and not run.status.failed for run in runs)
    over = _cut(within, IngestionWindow(EPOCH, now))
    expected = [] if over is None else [ExpectedWindow(window=over, readable=readable)]
    return cover(expected, runs, within=within)


def gaps(coverage: Coverage) -> list[tuple[Span, ...]]:
    """Return the missing and failed spans; contiguous ones form a group."""
    numbered = enumerate(coverage.spans)
    open_spans = [(index, span) for index, span in numbered if span.state in (State.MISSING, State.FAILED)]
    grouped: list[list[tuple[int, Span]]] = []
    for index, span in open_spans:
        if grouped and grouped[-1][-1][0] == index - 1 and grouped[-1][-1][1].window.meets(span.window):
            grouped[-1].append((index, span))
        else:
            grouped.append([(index, span)])
    return [tuple(span for _, span in group) for group in grouped]


def _spans(sources: Sequence[ExpectedWindow | KnownRun], *, within: IngestionWindow | None) -> Iterator[Span]:
    """Yield a span between each edge of a window and the next edge, so that adjacent windows stay separate."""
    begins, ends = defaultdict(list), defaultdict(list)
    for index, source in enumerate(sources):
        window = source.window if within is None else _cut(source.window, within)
        if window is not None:
            begins[window.start].append(index)
            ends[window.end].append(index)
    edges = sorted({*begins, *ends})
    open_indexes: set[int] = set()
    for edge, next_edge in pairwise(edges):
        open_indexes.difference_update(ends[edge])
        open_indexes.update(begins[edge])
        if open_indexes:
            yield _span(IngestionWindow(edge, next_edge), [sources[index] for index in sorted(open_indexes)])


def _span(window: IngestionWindow, sources: Iterable[ExpectedWindow | KnownRun]) -> Span:
    expected = [source for source in sources if isinstance(source, ExpectedWindow)]
    runs = tuple(source for source in sources if isinstance(source, KnownRun))
    of_dag_runs = [each for each in expected if each.dag_run_id is not None]
    return Span(window=window, state=_state(expected, runs), expected=tuple(of_dag_runs or expected[:1]), runs=runs)


def _state(expected: Sequence[ExpectedWindow], runs: Sequence[KnownRun]) -> State:
    succeeded = [run for run in runs if run.status.succeeded]
    task_states = {each.task_state for each in expected}
    if len(succeeded) > 1:
        return State.DUPLICATED
    if any(run.status in (FlowRunStatus.SCHEDULED, FlowRunStatus.IN_PROGRESS) for run in runs):
        return State.RUNNING
    if succeeded:
        return State.OUTSIDE if succeeded[0].outside else State.INGESTED
    if any(run.status is FlowRunStatus.UNKNOWN for run in runs):
        return State.UNKNOWN
    if task_states & _ACTIVE_TASK_STATES or any(map(_is_pending, expected)):
        return State.RUNNING
    if not all(each.readable for each in expected):
        return State.UNKNOWN
    return State.FAILED if runs or task_states & _FAILED_TASK_STATES else State.MISSING


def _is_pending(expected: ExpectedWindow) -> bool:
    """Return True if the task has not started and its DAG run is active."""
    return expected.task_state is None and expected.dag_run_state in _ACTIVE_DAG_RUN_STATES


def _cut(window: IngestionWindow | None, within: IngestionWindow) -> IngestionWindow | None:
    if window is None or not window.overlaps(within):
        return None
    return IngestionWindow(max(window.start, within.start), min(window.end, within.end))


def _joined(one: KnownRun, other: KnownRun) -> KnownRun:
    """Join two records of one run: the status of the more certain record, and the window of the first that has one."""
    newer = other if _certainty(other) >= _certainty(one) else one
    older = one if newer is other else other
    return replace(
        newer,
        window=one.window or other.window,
        records=older.records if newer.records is None else newer.records,
        failed_records=older.failed_records if newer.failed_records is None else newer.failed_records,
        url=one.url or other.url,
    )


def _certainty(run: KnownRun) -> int:
    return 2 if run.status.ended else int(run.status_read)


def _from_summary(summary: FlowRunSummary) -> KnownRun:
    return KnownRun(
        id=summary.id,
        window=summary.window,
        status=FlowRunStatus.parse(summary.status),
        records=summary.output_records,
        failed_records=summary.failed_records,
        url=summary.url,
        status_read=summary.status != CREATED,
    )


def _from_service(run: FlowRun) -> KnownRun:
    return KnownRun(
        id=run.id,
        window=run.window,
        status=run.status,
        records=run.output_records,
        failed_records=run.failed_records,
        outside=True,
    )
