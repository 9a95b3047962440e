# SPDX-License-Identifier: Apache-2.0
"""Choose the window that a task's DAG run ingests, from Airflow's context and the functions in `windows`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import intent_variable, task_context, timetables, versions
from airflow_flowservice.exceptions import ConfigurationError, FlowRunActiveError, WindowError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ledger.entry import DataflowKey
    from airflow_flowservice.ledger.store import Ledger
    from airflow_flowservice.runs.intent import FlowRunService
    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.windows.schedule import RunDates
    from airflow_flowservice.windows.window import IngestionWindow

log = logging.getLogger(__name__)

_STORE_KEY = "flowservice_window"
_MAX_EARLIER_RUNS = 500
_LAST_SECOND = 59


@dataclass(frozen=True, kw_only=True)
class ChosenWindow:
    """The window of a DAG run, and its source for the log.

    :param period: whether the window is the DAG run's period, not a requested window.
    """

    window: IngestionWindow
    source: str
    period: bool = False


def window_of_run(*, timetable: Any, dates: RunDates, offset: timedelta | None = None) -> IngestionWindow:
    """Return the window that a timetable gives a DAG run, without regard to requested windows.

    :param timetable: a timetable of the SDK or of Airflow's core.
    :param offset: the task's `window_offset`.
    :raises WindowError: the run has no data interval, and the schedule has no period; or the data interval of a manual
        run contradicts its logical date.
    """
    return _from_schedule(timetable=timetable, dates=dates, offset=offset).window


def choose(context: Mapping[str, Any], *, offset: timedelta | None = None) -> ChosenWindow:
    """Return the window of a task's DAG run.

    The first window that exists is used, in this order: the run's conf, the DAG's params, the run's asset events, the
    run's period.

    :raises WindowError: none of these gives a window.
    """
    chosen = _requested(context) or _from_events(context)
    if chosen is not None:
        return chosen
    timetable = context["dag"].timetable
    dates = task_context.run_dates(context)
    key = getattr(context["dag_run"], "partition_key", None)
    if dates.manual and key is not None and dates.partition_date is None:
        raise WindowError(
            f"this DAG run has the partition key {key!r}, and no date of its partition",
            remedy="trigger the run with window_start and window_end in its conf",
        )
    return _from_schedule(timetable=timetable, dates=dates, offset=offset)


def of_arguments(start: Any, end: Any, context: Mapping[str, Any], *, offset: timedelta | None = None) -> ChosenWindow:
    """Return the window of a task's `window_start` and `window_end`.

    :param offset: the task's `window_offset`, for the remedy; it does not apply to this window.
    :raises WindowError: the two are not a window. If both are the same, because the DAG run's data interval is empty,
        the remedy is the DAG run's own window.
    """
    from airflow_flowservice.windows.window import IngestionWindow, iso, parse_instant

    edges = parse_instant(start, name="window_start"), parse_instant(end, name="window_end")
    if edges[0] == edges[1] and (remedy := _empty_interval_remedy(context, offset=offset)):
        raise WindowError(
            f"the window is empty: window_start and window_end are both {iso(edges[0])}, and the data interval of this "
            "DAG run is also empty",
            remedy=remedy,
        )
    return ChosenWindow(window=IngestionWindow(*edges), source="the task's window_start and window_end")


def require_edges_in_pairs(start: Any, end: Any) -> None:
    """Return if the two arguments of a task are not two arguments of one `expand()` of a task group.

    :raises ConfigurationError: `expand()` combines each start with each end, so windows would overlap.
    """
    source: Any = getattr(start, "_input", None)
    if source is None or source is not getattr(end, "_input", None):
        return
    if isinstance(getattr(source, "value", None), Mapping) and start._key != end._key:
        raise _crossed_edges()


def require_expanded_pairs(context: Mapping[str, Any], *, task_id: str) -> None:
    """Return if the task is not mapped by `expand()` over `window_start` and over `window_end`.

    :raises ConfigurationError: as `require_edges_in_pairs`.
    """
    mapped = context["dag"].task_dict.get(task_id)
    expand_input: Any = getattr(mapped, "expand_input", None)
    expanded = getattr(expand_input, "value", None)
    if isinstance(expanded, Mapping) and expanded.keys() >= {"window_start", "window_end"}:
        raise _crossed_edges()


def _crossed_edges() -> ConfigurationError:
    return ConfigurationError(
        "expand() has window_start and window_end as separate lists, so Airflow combines each start with each end, "
        "and windows overlap",
        remedy='use expand_kwargs([{"window_start": ..., "window_end": ...}, ...]), with one entry for each window',
    )


def extend_to_last_success(
    chosen: ChosenWindow,
    context: Mapping[str, Any],
    *,
    flow_id: str,
    service: FlowRunService,
    has_failed_batches: Callable[[FlowRun], bool],
    ledger: Ledger | None = None,
    dataflows: Sequence[DataflowKey] = (),
) -> ChosenWindow:
    """Return the window for `since_last_success`: from the end of the last success to the end of the run's period.

    A retry uses the window of the earlier attempt. If Airflow's history has no success, for instance since
    `airflow db clean` deleted it, the last success is that of the ledger.

    :param ledger: None if it is disabled. Before Airflow 3.3, tasks cannot list the entries in Airflow's Variables.
    :param dataflows: the dataflow and those that it continues.

    :raises WindowError: the run is a backfill's or has no logical date, or a part of the window is already ingested.
    :raises FlowRunActiveError: an earlier flow run has not ended.
    :raises AirflowSkipException: earlier runs have ingested the whole period.
    """
    from airflow_flowservice.runs import since_last

    if not chosen.period:
        return chosen
    _require_order_of_runs(context)
    if stored := _stored(context):
        runs = service.list_runs(flow_id=flow_id, created_since=stored.window.start)
        since_last.require_not_ingested(stored.window, runs, has_failed_batches=has_failed_batches)
        return stored
    end = since_last.last_success(
        _earlier_flow_runs(context), get_run=service.get_run, has_failed_batches=has_failed_batches
    )
    if end is None and ledger is not None:
        owner = task_context.owner_of(context)
        end = since_last.last_recorded_success(
            ledger, dataflows, period=chosen.window, owner=owner, get_run=service.get_run
        )
    window = since_last.extend_window(chosen.window, end=end)
    if window is None:
        raise versions.airflow_exception("AirflowSkipException")(
            f"No new data: an earlier run of this task has ingested all data until {chosen.window.end.isoformat()}"
        )
    runs = service.list_runs(flow_id=flow_id, created_since=window.start)
    since_last.require_not_ingested(window, runs, has_failed_batches=has_failed_batches)
    since = "no earlier run has succeeded" if end is None else f"the last success ended at {end.isoformat()}"
    extended = ChosenWindow(window=window, source=f"{chosen.source}, since the last success ({since})", period=True)
    _store(context, extended)
    return extended


def future_window_remedy(timetable: Any, *, offset: timedelta | None = None) -> str | None:
    """Return the remedy if a window of this timetable is in the future; None if there is no specific one."""
    if offset and offset.total_seconds() > 0:
        return f"window_offset is {offset}, which moves windows later; for data that arrives late it must be negative"
    run_offset = timetables.run_offset_of(timetable)
    if run_offset is None or run_offset < 0:
        return None
    return (
        f"set run_offset=-1 in CronPartitionTimetable (it is {run_offset}), so that a run's partition is the period "
        "that ends at its date; otherwise, Airflow creates a run when its period begins"
    )


def log_warnings(chosen: ChosenWindow, context: Mapping[str, Any], *, mode: str, offset: timedelta | None) -> None:
    """Log warnings, once for each DAG run, if the schedule leaves a gap or an overlap before its window."""
    if not task_context.attempt_of(context).is_first:
        return
    if not chosen.period:
        _warn_of_last_second(chosen.window)
        return
    try:
        if not _warn_of_interval(context) and mode == "period":
            _warn_of_gap(chosen, context, offset=offset)
    except Exception as error:
        log.debug("Could not check for gaps and overlaps before this window: %s", error)


def _empty_interval_remedy(context: Mapping[str, Any], *, offset: timedelta | None) -> str | None:
    """Return the remedy for a template of Airflow 2 that reads an empty data interval.

    :return: None if the data interval has a length, or the DAG run has no window of its schedule.
    """
    dates, timetable = task_context.run_dates(context), context["dag"].timetable
    if dates.data_interval is not None:
        return None
    try:
        own = choose(context, offset=offset).window
    except WindowError:
        return None
    remedy = f"remove window_start and window_end: the task then ingests the window of its DAG run, {own}"
    if replacement := timetables.data_interval_timetable(timetable):
        return f"{remedy}; or set schedule={replacement}, whose DAG runs have the data intervals of Airflow 2"
    return remedy


def _warn_of_last_second(window: IngestionWindow) -> None:
    """Log a warning if the end of a requested window is probably meant to be inclusive, such as 23:59:59."""
    if window.end.second == _LAST_SECOND:
        log.warning(
            "window_end %s is not a part of the window, so data of this second is not ingested. If the window is a "
            "whole minute, hour or day, set window_end to the start of the next one.",
            window.end.isoformat(),
        )


def _requested(context: Mapping[str, Any]) -> ChosenWindow | None:
    from airflow_flowservice.windows import requested

    run_type = task_context.run_type(context)
    conf = task_context.conf_of(context)
    if window := requested.requested_window(conf, where="the run's conf"):
        if run_type == "backfill":
            raise WindowError(
                "every run of this backfill has the same window in its conf, and would ingest it again",
                window=window,
                remedy="create the backfill without window_start and window_end in --dag-run-conf",
            )
        return ChosenWindow(window=window, source="window_start and window_end in the run's conf")
    requested.require_no_other_spelling(conf, where="the run's conf")
    if run_type in task_context.AUTOMATIC_RUN_TYPES:
        return None
    params = context.get("params") or {}
    if window := requested.requested_window(params, where="the DAG's params"):
        return ChosenWindow(window=window, source="window_start and window_end in the DAG's params")
    requested.require_no_other_spelling(params, where="the DAG's params")
    requested.require_no_unread_times(conf, where="the run's conf")
    logical_date = context["dag_run"].logical_date
    requested.require_same_logical_date(conf, logical_date=logical_date, where="the run's conf")
    return None


def _from_events(context: Mapping[str, Any]) -> ChosenWindow | None:
    from airflow_flowservice.windows.requested import requested_window, window_of_events

    if task_context.run_type(context) != "asset_triggered":
        return None
    events = list(task_context.triggering_events(context))
    if window := window_of_events(events):
        without = {asset for asset, extra in events if requested_window(extra, where=asset) is None}
        if without:
            log.warning("Events of %s contain no window and are ignored", ", ".join(sorted(without)))
        return ChosenWindow(window=window, source="the events of the assets that triggered the run")
    raise WindowError(
        "this DAG run was triggered by assets, and none of their events contains a window",
        remedy=(
            "update the asset in a task of airflow_flowservice that has it as an outlet; or put window_start and "
            "window_end into the event's extra; or pass both to this task"
        ),
    )


def _from_schedule(*, timetable: Any, dates: RunDates, offset: timedelta | None) -> ChosenWindow:
    from airflow_flowservice.windows.schedule import period_of

    schedule, interval = timetables.parse_timetable(timetable)
    named = _dates_by_logical_date(timetable, dates)
    period = period_of(dates=named, schedule=schedule, interval=interval, name=type(timetable).__name__)
    source = period.source
    if named is not dates:
        source = "the last complete period before a manual run's logical date, not before the time of its trigger"
    if not offset:
        return ChosenWindow(window=period.window, source=source, period=True)
    return ChosenWindow(
        window=period.window.shifted(offset), source=f"{source}, moved by window_offset {offset}", period=True
    )


def _dates_by_logical_date(timetable: Any, dates: RunDates) -> RunDates:
    """Return the dates of a DAG run; a manual run's data interval is that of its logical date."""
    from airflow_flowservice.windows.schedule import with_named_interval

    return with_named_interval(dates, infer=partial(timetables.manual_interval, timetable))


def _require_order_of_runs(context: Mapping[str, Any]) -> None:
    if task_context.run_type(context) == "backfill":
        raise WindowError(
            "window='since_last_success' is not possible in a backfill, because its runs have no fixed order",
            remedy="set window='period' for it, or trigger a run with window_start and window_end in its conf",
        )
    if context["dag_run"].logical_date is None:
        raise WindowError(
            "window='since_last_success' needs a run with a logical date, which defines the order of runs",
            remedy="trigger the run with a logical date, or give it window_start and window_end in its conf",
        )


def _earlier_flow_runs(context: Mapping[str, Any]) -> Iterator[FlowRunSummary]:
    """Yield the summaries that the task pushed in earlier DAG runs, newest first."""
    from airflow_flowservice.runs.summary import FlowRunSummary

    runs = task_context.earlier_runs(context)
    for run in islice(runs, _MAX_EARLIER_RUNS):
        pushed = task_context.read_xcom(context["ti"], key=task_context.FLOW_RUN_KEY, run_id=run.run_id)
        if summary := FlowRunSummary.from_json(pushed):
            yield summary
        elif pushed:
            raise WindowError(
                f"the XCom flow_run of the earlier DAG run {run.run_id} cannot be read",
                remedy="trigger a run with window_start and window_end in its conf; later runs continue from it",
            )
        elif task_context.is_dag_run_active(run):
            raise FlowRunActiveError(
                f"the earlier DAG run {run.run_id} has not ended, and may create a flow run for a part of this window",
                remedy="wait until it has ended; a retry checks again; max_active_runs=1 avoids this",
            )
    if next(runs, None) is not None:
        raise WindowError(
            f"none of the {_MAX_EARLIER_RUNS} DAG runs before this one has succeeded",
            remedy="trigger a run with window_start and window_end in its conf; later runs continue from that window",
        )


def _stored(context: Mapping[str, Any]) -> ChosenWindow | None:
    """Return the window that an earlier attempt stored.

    A new search could return another window, and cause a second flow run.
    """
    from airflow_flowservice.windows.window import IngestionWindow

    store = intent_variable.state_store(context)
    value = store.get(_STORE_KEY) if store else None
    if not isinstance(value, dict) or value.get("max_tries") != task_context.attempt_of(context).max_tries:
        return None
    return ChosenWindow(
        window=IngestionWindow.parse(value["window"]),
        source="the window of an earlier attempt of this task",
        period=True,
    )


def _store(context: Mapping[str, Any], chosen: ChosenWindow) -> None:
    if store := intent_variable.state_store(context):
        max_tries = task_context.attempt_of(context).max_tries
        store.set(_STORE_KEY, {"window": str(chosen.window), "max_tries": max_tries})


def _warn_of_interval(context: Mapping[str, Any]) -> bool:
    """Log a warning if the timetable's fixed data interval leaves a gap or an overlap to the previous DAG run.

    The two DAG runs must follow each other in the schedule: otherwise DAG runs are missing between them.

    :return: whether it logged a warning.
    """
    from airflow_flowservice.windows.contiguity import find_breaks, length_text

    timetable = context["dag"].timetable
    schedule, interval = timetables.parse_timetable(timetable)
    dates = task_context.run_dates(context)
    if not interval or schedule is None or dates.manual or dates.data_interval is None:
        return False
    previous_run = next(task_context.earlier_runs(context), None)
    if previous_run is None:
        return False
    previous = task_context.dates_of(previous_run, timetable=timetable).data_interval
    if previous is None or previous.end != schedule.previous(dates.data_interval.end):
        return False
    found = find_breaks([previous, dates.data_interval])
    for each in found:
        log.warning(
            "%s(interval=%s): the data intervals of two consecutive DAG runs %s %s. Run %s has %s, and this run has "
            "%s. Remove the interval from the timetable: each run then ingests the time since the previous run.",
            type(timetable).__name__,
            interval,
            "overlap by" if each.kind == "overlap" else "leave a gap of",
            length_text(each.length),
            previous_run.run_id,
            previous,
            dates.data_interval,
        )
    return bool(found)


def _warn_of_gap(chosen: ChosenWindow, context: Mapping[str, Any], *, offset: timedelta | None) -> None:
    """Log a warning if a DAG with `catchup=False` has missing windows before this one, or if this is its first run."""
    dag = context["dag"]
    if dag.catchup or task_context.run_type(context) != "scheduled" or context["dag_run"].logical_date is None:
        return
    previous_run = next(task_context.earlier_runs(context), None)
    if previous_run is None:
        log.warning(
            "catchup=False: while this DAG is paused or Airflow is down, Airflow creates no DAG runs, so windows are "
            "missing. Fill them with `airflow backfill create`, or set window='since_last_success'."
        )
        return
    previous_dates = task_context.dates_of(previous_run, timetable=dag.timetable)
    end = window_of_run(timetable=dag.timetable, dates=previous_dates, offset=offset).end
    if end < chosen.window.start:
        first, last = _dates_between(end, chosen.window.start, dates=task_context.run_dates(context), offset=offset)
        log.warning(
            "catchup=False: no DAG run has the time from %s to %s, for example because the DAG was paused. If its data "
            "is missing, fill the gap with: airflow backfill create --dag-id %s --from-date %s --to-date %s",
            end.isoformat(),
            chosen.window.start.isoformat(),
            dag.dag_id,
            first.isoformat(),
            last.isoformat(),
        )


def _dates_between(
    end: datetime, start: datetime, *, dates: RunDates, offset: timedelta | None
) -> tuple[datetime, datetime]:
    """Return the first and last date of a backfill for the gap between two windows.

    A run's logical date is the start of its window if the run has a data interval, otherwise its end.
    """
    second = timedelta(seconds=1)
    shift = offset or timedelta(0)
    if dates.data_interval:
        return end - shift, start - shift - second
    return end - shift + second, start - shift
