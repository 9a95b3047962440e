# SPDX-License-Identifier: Apache-2.0
"""Plan the DAG runs that ingest missing and failed windows, or that ingest windows again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone, tzinfo
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING

from airflow_flowservice.coverage.cover import GAP_STATES, Span, State, gaps, has_active_task
from airflow_flowservice.windows.chunks import chunks_of
from airflow_flowservice.windows.window import EPOCH, IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow
    from airflow_flowservice.windows.chunks import ChunkLength

RESTATED_STATES = frozenset({State.INGESTED, State.OUTSIDE, State.RESTATED, State.DUPLICATED})
MARGIN = timedelta(days=31)
_FAILED = ("failed", "upstream_failed")
_ENDED_DAG_RUN_STATES = ("success", "failed")


class FillAction(str, Enum):
    """Action that fills a window. The values are keys of the command's and the page's JSON."""

    BACKFILL = "backfill"
    CLEAR = "clear"
    TRIGGER = "trigger"


@dataclass(frozen=True, kw_only=True)
class FilledWindow:
    """Window that one DAG run would ingest.

    :param date: date by which a backfill selects the DAG run; None for the other actions.
    :param dag_run_id: existing DAG run, whose tasks would run again; None if the DAG run would be created.
    :param task_id: task that a clear runs again.
    """

    window: IngestionWindow
    date: datetime | None = None
    dag_run_id: str | None = None
    dag_run_state: str | None = None
    task_id: str | None = None
    map_index: int = -1
    task_state: str | None = None

    @property
    def has_failed_task(self) -> bool:
        """Return whether the task failed, so that only failed tasks have to run again."""
        return self.task_state in _FAILED


@dataclass(frozen=True, kw_only=True)
class FillStep:
    """Windows that the same action fills.

    A backfill has one range of dates. Each window of the other actions has a separate call.

    :param restate: True if the windows are ingested, and would be ingested again.
    :param flow_id: dataflow that is ingested again; None for all dataflows of the DAG.
    :param ordered: a task of the DAG has `depends_on_past`.
    """

    action: FillAction
    dag_id: str
    windows: tuple[FilledWindow, ...]
    restate: bool = False
    flow_id: str | None = None
    ordered: bool = False

    @property
    def dates(self) -> tuple[datetime, datetime]:
        """Return the first and the last date of a backfill."""
        dates = [each.date for each in self.windows if each.date]
        return min(dates), max(dates)

    @property
    def reprocess(self) -> str:
        """Return the reprocess behavior of a backfill: `none`, `failed` or `completed`.

        Airflow refuses `none` for a DAG with `depends_on_past`. Without DAG runs, `failed` does the same.
        """
        states = {each.dag_run_state for each in self.windows if each.dag_run_id}
        if not states:
            return "failed" if self.ordered else "none"
        return "completed" if states - {"failed"} else "failed"


@dataclass(frozen=True, kw_only=True)
class FillOptions:
    """Selection of windows and actions.

    :param states: states of the windows to fill.
    :param within: fill only windows that overlap this range; None means all. A window across an edge is filled
        completely, so the coverage should be that of a longer range.
    :param only: fill only these windows; None means all.
    :param succeeded: creating tasks of each DAG run that must not run again, as (task id, map index). If a DAG run has
        such a task, or no backfill can run it again, only its failed task is cleared. None means that no task is
        cleared.
    :param chunk: fill contiguous windows by DAG runs with longer windows; None for one DAG run for each window.
    :param zone: time zone of the schedule, for the chunks.
    :param restate: ingest windows again.
    :param flow_id: dataflow of the windows. Tasks of the DAG with another dataflow ingest nothing again.
    """

    states: frozenset[State] = GAP_STATES
    within: IngestionWindow | None = None
    only: frozenset[IngestionWindow] | None = None
    succeeded: Mapping[str, frozenset[tuple[str, int]]] | None = None
    chunk: ChunkLength | None = None
    zone: tzinfo = field(default=timezone.utc)
    restate: bool = False
    flow_id: str | None = None


def plan_fill(coverage: Coverage, *, dag_id: str, options: FillOptions) -> list[FillStep]:
    """Return the steps that fill the windows of a DAG, sorted by time."""
    steps = (step for group in _groups(coverage, options) for step in _steps(group, dag_id=dag_id, options=options))
    return [replace(step, ordered=dag_id in coverage.ordered) for step in steps]


def widened_range(coverage: Coverage, within: IngestionWindow) -> IngestionWindow:
    """Return the range extended to the windows across its edges, by at most `MARGIN`.

    Only the coverage of the extended range shows whether such a window is partly ingested.
    """
    crossing = [each.window for span in coverage.spans for each in span.expected if each.window.overlaps(within)]
    start = min((window.start for window in crossing), default=within.start)
    end = max((window.end for window in crossing), default=within.end)
    return IngestionWindow(
        max(min(start, within.start), within.start - MARGIN, EPOCH), min(max(end, within.end), within.end + MARGIN)
    )


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Contiguous spans that are to be filled.

    :param begins: True if the group starts with the coverage, so that its first window may start earlier.
    :param ends: True if the group ends with the coverage, so that its last window may end later.
    """

    spans: tuple[Span, ...]
    begins: bool
    ends: bool

    def contains(self, window: IngestionWindow) -> bool:
        """Return True if every part of the window, within the coverage, is to be filled."""
        first, last = self.spans[0].window, self.spans[-1].window
        return (self.begins or first.start <= window.start) and (self.ends or window.end <= last.end)


def _groups(coverage: Coverage, options: FillOptions) -> Iterator[_Group]:
    """Yield the groups of spans to fill. A span with an active task is not filled, also if it is unknown or ingested.

    Otherwise, two fills at the same time could clear a task that one of them has just started.
    """
    for gap in gaps(coverage, options.states):
        for is_busy, group in groupby(gap, key=_is_busy):
            spans = tuple(group)
            if not is_busy:
                begins, ends = spans[0] is coverage.spans[0], spans[-1] is coverage.spans[-1]
                yield _Group(spans=spans, begins=begins, ends=ends)


def _is_busy(span: Span) -> bool:
    return any(has_active_task(each) for each in span.expected)


def count_unknown(coverage: Coverage, *, within: IngestionWindow) -> int:
    """Return the number of spans with an unknown outcome and without an active task."""
    return sum(
        span.state is State.UNKNOWN and span.window.overlaps(within) and not _is_busy(span) for span in coverage.spans
    )


def _steps(group: _Group, *, dag_id: str, options: FillOptions) -> Iterator[FillStep]:
    filled = list(_filled(group, dag_id=dag_id, options=options))
    # A range of dates must not contain a window that another action fills, or that is not selected.
    numbered = groupby(filled, key=lambda pair: (pair[0], options.only is None or pair[1].window in options.only))
    for (action, is_selected), pairs in numbered:
        windows = tuple(dict.fromkeys(each for _, each in pairs))
        if is_selected:
            yield FillStep(
                action=action, dag_id=dag_id, windows=windows, restate=options.restate, flow_id=options.flow_id
            )


def _filled(group: _Group, *, dag_id: str, options: FillOptions) -> Iterator[tuple[FillAction, FilledWindow]]:
    """Yield each window with its action; spans that need a manual DAG run are joined."""
    spans = [span for span in group.spans if options.within is None or span.window.overlaps(options.within)]
    chosen = [(span, _choose(span, group, dag_id=dag_id, options=options)) for span in spans]
    for existing, pairs in groupby(chosen, key=lambda pair: pair[1]):
        if existing is None:
            yield from _triggered([span for span, _ in pairs], options=options)
            continue
        action, expected = existing
        yield (
            action,
            FilledWindow(
                window=expected.window,
                date=expected.date if action is FillAction.BACKFILL else None,
                dag_run_id=expected.dag_run_id,
                dag_run_state=expected.dag_run_state,
                task_id=expected.task_id,
                map_index=expected.map_index,
                task_state=expected.task_state,
            ),
        )


def _triggered(spans: Sequence[Span], *, options: FillOptions) -> Iterator[tuple[FillAction, FilledWindow]]:
    windows = [span.window for span in spans]
    if options.chunk is None:
        yield FillAction.TRIGGER, FilledWindow(window=IngestionWindow(windows[0].start, windows[-1].end))
        return
    for window in chunks_of(windows, length=options.chunk, zone=options.zone):
        yield FillAction.TRIGGER, FilledWindow(window=window)


def _choose(
    span: Span, group: _Group, *, dag_id: str, options: FillOptions
) -> tuple[FillAction, ExpectedWindow] | None:
    """Return the action and the DAG run's window that fill a span; None if it needs a manual DAG run."""
    fitting = [each for each in span.expected if each.dag_id == dag_id and group.contains(each.window)]
    if options.succeeded is not None:
        for each in fitting:
            if _needs_clear(each, fitting, succeeded=options.succeeded, is_chunked=options.chunk is not None):
                # A cleared task that failed would take the existing flow run. Only a conf makes it ingest again.
                return None if options.restate and each.task_state in _FAILED else (FillAction.CLEAR, each)
    if options.chunk is not None:
        return None
    return next(((FillAction.BACKFILL, each) for each in fitting if each.date), None)


def _needs_clear(
    expected: ExpectedWindow,
    fitting: Sequence[ExpectedWindow],
    *,
    succeeded: Mapping[str, frozenset[tuple[str, int]]],
    is_chunked: bool,
) -> bool:
    """Return whether only the task of an existing DAG run must run again."""
    if expected.dag_run_id is None or expected.task_id is None:
        return False
    if expected.date is None:
        return True
    if is_chunked:
        return False
    own = {(each.task_id, each.map_index) for each in fitting if each.dag_run_id == expected.dag_run_id}
    is_shared = bool(succeeded.get(expected.dag_run_id, frozenset()) - own)
    return is_shared or expected.dag_run_state not in _ENDED_DAG_RUN_STATES
