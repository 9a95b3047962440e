# SPDX-License-Identifier: Apache-2.0
"""Choose a window that starts where the last success ended, for DAGs with `catchup=False`.

Such a DAG has no runs for the time in which it was paused. With `window="since_last_success"` its next run also
ingests that time. To avoid duplicates, each flow run that may contain a part of the window is checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_flowservice.exceptions import FlowRunActiveError, FlowRunOutcomeUnknownError, WindowError
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.windows.window import EPOCH, IngestionWindow

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ledger.entry import DataflowKey, LedgerEntry
    from airflow_flowservice.ledger.store import Ledger
    from airflow_flowservice.runs.summary import FlowRunSummary

_MAX_LOOKBACK = timedelta(days=366)
_TRIGGER_MANUALLY = "trigger the DAG manually with the missing window_start and window_end in its conf"


def last_success(
    earlier: Iterable[FlowRunSummary],
    *,
    get_run: Callable[[str], FlowRun],
    has_failed_batches: Callable[[FlowRun], bool] = lambda _: False,
) -> datetime | None:
    """Return the end of the last successful window, or None if there was no success.

    :param earlier: summaries that earlier DAG runs of the task pushed, newest first.
    :param has_failed_batches: return whether nothing of a succeeded run is ingested, because its batches failed.
    :raises FlowRunActiveError: an earlier flow run has not ended, and may still ingest its window.
    :raises FlowRunOutcomeUnknownError: an earlier flow run ended without a status, so it may have ingested its window.
    :raises RunNotFoundError: an earlier flow run does not exist any more, so its outcome is unknown.
    :raises WindowError: the last success does not show its window.
    """
    for summary in earlier:
        if not summary.succeeded:
            run = get_run(summary.id)
            if not run.status.ended:
                raise _active_error(run.id, summary.window, url=summary.url)
            if run.status.failed or has_failed_batches(run):
                continue
            if not run.status.succeeded:
                raise _outcome_error(run.id, summary.window, url=summary.url)
        if summary.window is None:
            raise WindowError(
                f"the window of flow run {summary.id}, the last success, is not known",
                flow_run_id=summary.id,
                remedy=_TRIGGER_MANUALLY,
            )
        return summary.window.end
    return None


def last_recorded_success(
    ledger: Ledger,
    dataflows: Sequence[DataflowKey],
    *,
    period: IngestionWindow,
    owner: str,
    get_run: Callable[[str], FlowRun],
) -> datetime | None:
    """Return the end of the last window that the ledger has as ingested, or None if there is none.

    Its end is that of the newest contiguous ingested time. For a DAG whose history was deleted. The ledger is read
    backwards in growing steps, because a ledger in Airflow's Variables needs a message for each entry.

    :param period: of the DAG run; later windows are ignored.
    :param owner: task instance (`LedgerEntry.owner`) whose entries are ignored, since they are of an earlier attempt.
    :raises FlowRunActiveError: a flow run has not ended.
    :raises RunNotFoundError: a flow run does not exist any more, so its outcome is unknown.
    """
    end, length = period.end, timedelta(seconds=period.seconds)
    while True:
        start = max(end - length, EPOCH)
        entries = ledger.overlapping(dataflows, IngestionWindow(start, end))
        newest_first = sorted(entries, key=lambda entry: entry.window.end, reverse=True)
        for entry in newest_first:
            if entry.owner != owner and _is_success(entry, get_run=get_run):
                return entry.window.end
        if length >= _MAX_LOOKBACK or start == EPOCH:
            return None
        length = min(2 * length, _MAX_LOOKBACK)


def _is_success(entry: LedgerEntry, *, get_run: Callable[[str], FlowRun]) -> bool:
    """Return whether the window of an entry is ingested.

    :raises FlowRunActiveError: it may be ingested now.
    """
    if entry.state is EntryState.INGESTED or entry.earlier:
        return True
    if entry.flow_run_id is None:  # `create_once` does not ingest a window that overlaps a claimed one.
        return False
    run = get_run(entry.flow_run_id)
    if not run.status.ended:
        raise _active_error(run.id, entry.window)
    return run.status.succeeded


def extend_window(period: IngestionWindow, *, end: datetime | None) -> IngestionWindow | None:
    """Return the window from the end of the last success to the period's end; None if everything was ingested.

    :param end: as `last_success` returns it. If it is None, the window is the period.
    """
    if end is None:
        return period
    return IngestionWindow(end, period.end) if end < period.end else None


def require_not_ingested(
    window: IngestionWindow,
    runs: Iterable[FlowRun],
    *,
    has_failed_batches: Callable[[FlowRun], bool] = lambda _: False,
) -> None:
    """Raise if a flow run contains a part of the window, or may still ingest it.

    A run of exactly this window is allowed: it is the window's own run, which a cleared task ingests again.
    Runs that failed, whose batches failed, or that show no window are ignored.

    :raises FlowRunActiveError: such a run has not ended.
    :raises FlowRunOutcomeUnknownError: such a run has ended without a status.
    :raises WindowError: such a run has succeeded.
    """
    for run in runs:
        other = run.window
        if other is None or run.status.failed:
            continue
        if other == window or not other.overlaps(window):
            continue
        if not run.status.ended:
            raise _active_error(run.id, other)
        if not run.status.succeeded:
            raise _outcome_error(run.id, other)
        if has_failed_batches(run):
            continue
        raise WindowError(
            f"flow run {run.id} has already ingested a part of this window: {other}",
            window=window,
            flow_run_id=run.id,
            remedy=f"mark the task as success if nothing is missing; otherwise {_TRIGGER_MANUALLY}",
        )


def _active_error(flow_run_id: str, window: IngestionWindow | None, *, url: str | None = None) -> FlowRunActiveError:
    return FlowRunActiveError(
        f"an earlier flow run has not ended, and may still ingest {window}", flow_run_id=flow_run_id, url=url
    )


def _outcome_error(
    flow_run_id: str, window: IngestionWindow | None, *, url: str | None = None
) -> FlowRunOutcomeUnknownError:
    return FlowRunOutcomeUnknownError(
        f"an earlier flow run ended without a status, and may have ingested {window}",
        flow_run_id=flow_run_id,
        url=url,
        remedy=f"check in Experience Platform what it ingested, then {_TRIGGER_MANUALLY}",
    )
