"""The window that reaches back to where the last success ended, for DAGs that leave windows out.

A DAG with `catchup=False` makes no runs for the time in which it was paused. With
`window="since_last_success"` its next run takes what was left out; so that nothing is ingested twice, every
flow run that may hold a part of the window is looked at first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_flowservice.exceptions import FlowRunActiveError, WindowError
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.summary import FlowRunSummary

_BY_HAND = "trigger the DAG by hand with window_start and window_end in its conf for what is missing"


def last_success(earlier: Iterable[FlowRunSummary], *, get_run: Callable[[str], FlowRun]) -> datetime | None:
    """Where the last success ended, or None if there was none.

    :param earlier: what earlier DAG runs of the task know of their flow runs, newest first: XComs `flow_run`.
    :raises FlowRunActiveError: an earlier flow run goes on, and may yet bring in its window.
    :raises RunNotFoundError: an earlier flow run is not there any more, so nobody can tell.
    :raises WindowError: the last success does not show its window.
    """
    for summary in earlier:
        if not summary.succeeded:
            run = get_run(summary.id)
            if not run.status.ended:
                raise _goes_on(run.id, summary.window_text, url=summary.url)
            if not run.status.succeeded:
                continue
        if summary.window is None:
            raise WindowError(
                f"the window of flow run {summary.id}, the last success, is not known",
                flow_run_id=summary.id,
                remedy=_BY_HAND,
            )
        return summary.window.end
    return None


def reaching_back(period: IngestionWindow, *, to: datetime | None) -> IngestionWindow | None:
    """The window from where the last success ended to the period's end; None when there is nothing new.

    :param to: as `last_success` gives it; without one, the window is the period.
    """
    if to is None:
        return period
    return IngestionWindow(to, period.end) if to < period.end else None


def require_untouched(window: IngestionWindow, runs: Iterable[FlowRun]) -> None:
    """Raise if a flow run holds, or may yet bring in, a part of the window.

    A run of exactly this window is no objection: it is this window's own, which a task that was cleared
    ingests again. Runs that failed, or show no window, are passed by.

    :raises FlowRunActiveError: such a run goes on.
    :raises WindowError: such a run has succeeded.
    """
    for run in runs:
        held = run.window
        if held is None or (run.status.ended and not run.status.succeeded):
            continue
        if held == window or not held.overlaps(window):
            continue
        if not run.status.ended:
            raise _goes_on(run.id, str(held))
        raise WindowError(
            f"flow run {run.id} has ingested a part of this window already: {held}",
            window=str(window),
            flow_run_id=run.id,
            remedy=f"mark the task as success if nothing is missing; else {_BY_HAND}",
        )


def _goes_on(flow_run_id: str, window: str | None, *, url: str | None = None) -> FlowRunActiveError:
    return FlowRunActiveError(
        f"an earlier flow run goes on, and may yet ingest {window}",
        flow_run_id=flow_run_id,
        url=url,
    )
