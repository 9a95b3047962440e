"""Which windows are in: what was asked for, against the flow runs that are known.

Pure: the caller says what DAG runs asked for, what their tasks pushed, and, if it could be asked, what Flow Service
has. Runs are joined by their ids, so nothing depends on whether Flow Service shows a run's window; what cannot be
told is called unknown.
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

_TASK_GOES_ON = frozenset(
    {"scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting"}
)
_DAG_RUN_GOES_ON = frozenset({"queued", "running"})
_TASK_FAILED = frozenset({"failed", "upstream_failed"})


class State(str, Enum):
    """What became of a span of time."""

    INGESTED = "ingested"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"
    TWICE = "twice"
    OUTSIDE = "outside"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A window that somebody asked for: a task of a DAG run, or a schedule alone.

    :param dag_run_id: None if the schedule has a run there that does not exist.
    :param date: the date that `airflow backfill create` knows the DAG run by; None if no backfill makes it.
    :param task_state: Airflow's word, such as `deferred`; None if the task has not come to it.
    :param readable: False if what the task pushed cannot be read, so that nobody knows what it did.
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
    """A flow run, from what a task pushed, from Flow Service, or from both.

    :param window: None if nobody says which it was.
    :param outside: no task that was looked at pushed its id.
    :param looked_at: somebody read it; until then its status is not known.
    """

    id: str
    window: IngestionWindow | None = None
    status: FlowRunStatus = FlowRunStatus.UNKNOWN
    records: int | None = None
    failed_records: int | None = None
    url: str | None = None
    outside: bool = False
    looked_at: bool = True


@dataclass(frozen=True, kw_only=True)
class Span:
    """A span of time of which one thing is to be said.

    :param asked: the DAG runs' windows that hold it; a schedule's alone when no DAG run has it.
    :param runs: the flow runs that hold it, in the order of their ids.
    """

    window: IngestionWindow
    state: State
    asked: tuple[Asked, ...] = ()
    runs: tuple[KnownRun, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Total:
    """How much there is of one state; seconds of time covered."""

    spans: int = 0
    seconds: int = 0


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What is known of a dataflow.

    :param spans: by time; they do not overlap. Time that nobody asked for and no run holds has none.
    :param unplaced: flow runs of which nobody knows the window. While there is one, no span is sure to be in once.
    """

    spans: tuple[Span, ...] = ()
    unplaced: tuple[KnownRun, ...] = ()
    totals: Mapping[State, Total] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether no window is missing, failed or in twice."""
        return not any(self.totals[state].spans for state in (State.MISSING, State.FAILED, State.TWICE))


def known_runs(pushed: Iterable[FlowRunSummary], found: Iterable[FlowRun] = ()) -> list[KnownRun]:
    """Each flow run once, from the XComs `flow_run` and from Flow Service, which knows its status better.

    :param pushed: the summaries that tasks pushed.
    :param found: what Flow Service has. A run that is only here was made outside.
    """
    runs: dict[str, KnownRun] = {}
    for summary in pushed:
        run = _from_summary(summary)
        runs[run.id] = _joined(runs[run.id], run) if run.id in runs else run
    for each in found:
        run = _from_service(each)
        runs[run.id] = replace(_joined(runs[run.id], run), outside=False) if run.id in runs else run
    return list(runs.values())


def cover(asked: Iterable[Asked], runs: Iterable[KnownRun], *, within: IngestionWindow | None = None) -> Coverage:
    """Join what was asked for with the runs that are known.

    :param within: cut off what lies before or after it.
    """
    runs = sorted(runs, key=lambda run: run.id)
    claims: list[Asked | KnownRun] = [*asked, *(run for run in runs if run.window)]
    spans = tuple(_spans(claims, within=within))
    totals: dict[State, Total] = {state: Total() for state in State}
    for span in spans:
        total = totals[span.state]
        totals[span.state] = Total(spans=total.spans + 1, seconds=total.seconds + span.window.seconds)
    return Coverage(spans=spans, unplaced=tuple(run for run in runs if run.window is None), totals=totals)


def cover_all(found: Iterable[FlowRun], *, within: IngestionWindow, now: datetime) -> Coverage:
    """What Flow Service has, where all of the time within that is over is asked for.

    :param now: aware.
    """
    runs = [replace(run, outside=False) for run in known_runs((), found)]
    # A run without a window may hold any of it.
    readable = not any(run.window is None and not run.status.failed for run in runs)
    over = _cut(within, IngestionWindow(EPOCH, now))
    asked = [] if over is None else [Asked(window=over, readable=readable)]
    return cover(asked, runs, within=within)


def gaps(coverage: Coverage) -> list[tuple[Span, ...]]:
    """The spans that are not in and not on their way, those that follow each other together."""
    numbered = enumerate(coverage.spans)
    open_spans = [(index, span) for index, span in numbered if span.state in (State.MISSING, State.FAILED)]
    grouped: list[list[tuple[int, Span]]] = []
    for index, span in open_spans:
        if grouped and grouped[-1][-1][0] == index - 1 and grouped[-1][-1][1].window.meets(span.window):
            grouped[-1].append((index, span))
        else:
            grouped.append([(index, span)])
    return [tuple(span for _, span in group) for group in grouped]


def _spans(claims: Sequence[Asked | KnownRun], *, within: IngestionWindow | None) -> Iterator[Span]:
    """One span between each edge and the next; where nothing changes but an edge, they stay apart."""
    begins, ends = defaultdict(list), defaultdict(list)
    for index, claim in enumerate(claims):
        window = claim.window if within is None else _cut(claim.window, within)
        if window is not None:
            begins[window.start].append(index)
            ends[window.end].append(index)
    edges = sorted({*begins, *ends})
    here: set[int] = set()
    for edge, after in pairwise(edges):
        here.difference_update(ends[edge])
        here.update(begins[edge])
        if here:
            yield _span(IngestionWindow(edge, after), [claims[index] for index in sorted(here)])


def _span(window: IngestionWindow, claims: Iterable[Asked | KnownRun]) -> Span:
    asked = [claim for claim in claims if isinstance(claim, Asked)]
    runs = tuple(claim for claim in claims if isinstance(claim, KnownRun))
    made = [each for each in asked if each.dag_run_id is not None]
    return Span(window=window, state=_state(asked, runs), asked=tuple(made or asked[:1]), runs=runs)


def _state(asked: Sequence[Asked], runs: Sequence[KnownRun]) -> State:
    succeeded = [run for run in runs if run.status.succeeded]
    words = {each.task_state for each in asked}
    if len(succeeded) > 1:
        return State.TWICE
    if any(run.status in (FlowRunStatus.SCHEDULED, FlowRunStatus.IN_PROGRESS) for run in runs):
        return State.RUNNING
    if succeeded:
        return State.OUTSIDE if succeeded[0].outside else State.INGESTED
    if any(run.status is FlowRunStatus.UNKNOWN for run in runs):
        return State.UNKNOWN
    if words & _TASK_GOES_ON or any(map(_comes_to_it, asked)):
        return State.RUNNING
    if not all(each.readable for each in asked):
        return State.UNKNOWN
    return State.FAILED if runs or words & _TASK_FAILED else State.MISSING


def _comes_to_it(asked: Asked) -> bool:
    return asked.task_state is None and asked.dag_run_state in _DAG_RUN_GOES_ON


def _cut(window: IngestionWindow | None, within: IngestionWindow) -> IngestionWindow | None:
    if window is None or not window.overlaps(within):
        return None
    return IngestionWindow(max(window.start, within.start), min(window.end, within.end))


def _joined(one: KnownRun, other: KnownRun) -> KnownRun:
    """What two sources say of one run: of its status the one that knows more, of its window who asked for it."""
    newer = other if _knows(other) >= _knows(one) else one
    older = one if newer is other else other
    return replace(
        newer,
        window=one.window or other.window,
        records=older.records if newer.records is None else newer.records,
        failed_records=older.failed_records if newer.failed_records is None else newer.failed_records,
        url=one.url or other.url,
    )


def _knows(run: KnownRun) -> int:
    return 2 if run.status.ended else int(run.looked_at)


def _from_summary(summary: FlowRunSummary) -> KnownRun:
    return KnownRun(
        id=summary.id,
        window=summary.window,
        status=FlowRunStatus.parse(summary.status),
        records=summary.output_records,
        failed_records=summary.failed_records,
        url=summary.url,
        looked_at=summary.status != CREATED,
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
