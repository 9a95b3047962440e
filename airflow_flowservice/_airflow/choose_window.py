"""Which window a task's DAG run ingests: the facts from Airflow, the arithmetic from `ingestion`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import task_context, timetables, versions
from airflow_flowservice.exceptions import FlowRunActiveError, WindowError

if TYPE_CHECKING:
    from airflow_flowservice.runs.intent import FlowRunService
    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.windows.schedule import RunDates
    from airflow_flowservice.windows.window import IngestionWindow

log = logging.getLogger(__name__)

_STORE_KEY = "flowservice_window"
_RUNS_LOOKED_AT = 500


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A window, and where it comes from, for the log.

    :param period: it is the DAG run's own, not one that somebody named.
    """

    window: IngestionWindow
    source: str
    period: bool = False


def window_of_run(*, timetable: Any, dates: RunDates, offset: timedelta | None = None) -> IngestionWindow:
    """The window that a run of a timetable owns, before anybody asked for another one.

    :param timetable: the SDK's, or the core's.
    :param offset: the task's `window_offset`.
    :raises WindowError: the run has no data interval and the schedule no period.
    """
    return _owned(timetable=timetable, dates=dates, offset=offset).window


def choose(context: Mapping[str, Any], *, offset: timedelta | None = None) -> Choice:
    """The window of a task's DAG run: the one in its conf or its DAG's params, that of its events, or its period.

    :raises WindowError: none of these gives a window.
    """
    choice = _named(context) or _of_events(context)
    if choice is not None:
        return choice
    timetable = context["dag"].timetable
    return _owned(timetable=timetable, dates=task_context.run_dates(context), offset=offset)


def reach_back(choice: Choice, context: Mapping[str, Any], *, flow_id: str, service: FlowRunService) -> Choice:
    """The window `since_last_success`; a retry keeps the one that the attempt before it found.

    :raises WindowError: a backfill, a run without a logical date, or a part of the window is in already.
    :raises FlowRunActiveError: an earlier flow run goes on.
    """
    from airflow_flowservice.runs import since_last

    if not choice.period:
        return choice
    _require_order_of_runs(context)
    if kept := _kept(context):
        since_last.require_not_ingested(
            kept.window, service.list_runs(flow_id=flow_id, created_since=kept.window.start)
        )
        return kept
    end = since_last.last_success(_earlier_flow_runs(context), get_run=service.get_run)
    window = since_last.extend_to_last_success(choice.window, end=end)
    if window is None:
        raise versions.airflow_exception("AirflowSkipException")(
            f"Nothing is new: an earlier run of this task has ingested everything up to {choice.window.end.isoformat()}"
        )
    since_last.require_not_ingested(window, service.list_runs(flow_id=flow_id, created_since=window.start))
    since = "no earlier run has succeeded" if end is None else f"the last success ended at {end.isoformat()}"
    kept = Choice(window=window, source=f"{choice.source}, since the last success ({since})", period=True)
    _keep(context, kept)
    return kept


def remedy_if_future(timetable: Any, *, offset: timedelta | None = None) -> str | None:
    """What to do when the windows of this timetable lie in the future; None if nothing special."""
    if offset and offset.total_seconds() > 0:
        return f"window_offset is {offset}, which moves windows later; for data that arrives late it must be negative"
    run_offset = timetables.run_offset_of(timetable)
    if run_offset is None or run_offset < 0:
        return None
    return (
        f"set run_offset=-1 in CronPartitionTimetable (it is {run_offset}), so that a run's partition is the period "
        "that ends at its date; else a run is made when its period only begins"
    )


def warn(choice: Choice, context: Mapping[str, Any], *, mode: str, offset: timedelta | None) -> None:
    """Say in the task's log, once for each DAG run, where its schedule leaves windows out or takes them twice."""
    if not choice.period or not task_context.attempt_of(context).is_first:
        return
    try:
        _warn_of_interval(context)
        if mode == "period":
            _warn_of_gap(choice, context, offset=offset)
    except Exception as error:
        log.debug("Could not look whether windows were left out: %s", error)


def _named(context: Mapping[str, Any]) -> Choice | None:
    from airflow_flowservice.windows.requested import named_window

    run_type = task_context.run_type(context)
    if window := named_window(task_context.conf_of(context), where="the run's conf"):
        if run_type == "backfill":
            raise WindowError(
                "every run of this backfill has the same window in its conf, which would be ingested again and again",
                window=str(window),
                remedy="create the backfill without window_start and window_end in --dag-run-conf",
            )
        return Choice(window=window, source="window_start and window_end in the run's conf")
    if run_type in task_context.MADE_BY_AIRFLOW:
        return None
    if window := named_window(context.get("params") or {}, where="the DAG's params"):
        return Choice(window=window, source="window_start and window_end in the DAG's params")
    return None


def _of_events(context: Mapping[str, Any]) -> Choice | None:
    from airflow_flowservice.windows.requested import named_window, window_of_events

    if task_context.run_type(context) != "asset_triggered":
        return None
    events = list(task_context.triggering_events(context))
    if window := window_of_events(events):
        bare = [asset for asset, extra in events if named_window(extra, where=asset) is None]
        if bare:
            log.warning("Events of %s carry no window and are left out of it", ", ".join(sorted(set(bare))))
        return Choice(window=window, source="the events of the assets that triggered the run")
    raise WindowError(
        "this DAG run was triggered by assets, and none of their events carries a window",
        remedy=(
            "have the task that updates the asset be one of airflow_flowservice's, with the asset among its outlets; "
            "or put window_start and window_end into the event's extra; or pass both to this task"
        ),
    )


def _owned(*, timetable: Any, dates: RunDates, offset: timedelta | None) -> Choice:
    from airflow_flowservice.windows.schedule import period_of

    schedule, interval = timetables.schedule_of(timetable)
    period = period_of(dates=dates, schedule=schedule, interval=interval, name=type(timetable).__name__)
    if not offset:
        return Choice(window=period.window, source=period.source, period=True)
    return Choice(
        window=period.window.shifted(offset), source=f"{period.source}, moved by window_offset {offset}", period=True
    )


def _require_order_of_runs(context: Mapping[str, Any]) -> None:
    if task_context.run_type(context) == "backfill":
        raise WindowError(
            "window='since_last_success' has no meaning in a backfill, whose runs come in any order",
            remedy="set window='period' for it, or trigger a run with window_start and window_end in its conf",
        )
    if context["dag_run"].logical_date is None:
        raise WindowError(
            "window='since_last_success' needs a run with a logical date, which puts runs in order",
            remedy="trigger the run with a logical date, or give it window_start and window_end in its conf",
        )


def _earlier_flow_runs(context: Mapping[str, Any]) -> Iterator[FlowRunSummary]:
    """What the task pushed as `flow_run` in the DAG runs before this one, newest first."""
    from airflow_flowservice.runs.summary import FlowRunSummary

    runs = task_context.earlier_runs(context)
    for run in islice(runs, _RUNS_LOOKED_AT):
        pushed = task_context.read_xcom(context["ti"], key=task_context.FLOW_RUN_KEY, run_id=run.run_id)
        if summary := FlowRunSummary.from_json(pushed):
            yield summary
        elif pushed:
            raise WindowError(
                f"the XCom flow_run of the earlier DAG run {run.run_id} cannot be read",
                remedy="trigger a run with window_start and window_end in its conf; later runs reach back to that one",
            )
        elif task_context.is_going_on(run):
            raise FlowRunActiveError(
                f"the earlier DAG run {run.run_id} goes on, and may yet create a flow run for a part of this window",
                remedy="wait until it has ended; a retry looks again; max_active_runs=1 avoids this",
            )
    if next(runs, None) is not None:
        raise WindowError(
            f"none of the {_RUNS_LOOKED_AT} DAG runs before this one has succeeded",
            remedy="trigger a run with window_start and window_end in its conf; later runs reach back to that one",
        )


def _kept(context: Mapping[str, Any]) -> Choice | None:
    """The window that an earlier attempt found: looking again could give another one, and a second flow run."""
    from airflow_flowservice.windows.window import IngestionWindow

    store = task_context.state_store(context)
    value = store.get(_STORE_KEY) if store else None
    if not isinstance(value, dict) or value.get("max_tries") != task_context.attempt_of(context).max_tries:
        return None
    return Choice(
        window=IngestionWindow.parse(value["window"]),
        source="what an earlier attempt of this task found",
        period=True,
    )


def _keep(context: Mapping[str, Any], choice: Choice) -> None:
    if store := task_context.state_store(context):
        max_tries = task_context.attempt_of(context).max_tries
        store.set(_STORE_KEY, {"window": str(choice.window), "max_tries": max_tries})


def _warn_of_interval(context: Mapping[str, Any]) -> None:
    from airflow_flowservice.windows.cron import AnyOfSchedule, CronSchedule
    from airflow_flowservice.windows.uneven import uneven_days

    schedule, interval = timetables.schedule_of(context["dag"].timetable)
    if not interval or not isinstance(schedule, AnyOfSchedule | CronSchedule):
        return
    uneven = uneven_days(schedule=schedule, interval=interval, year=versions.utc_now().year)
    if uneven.days:
        log.warning(
            "%s(interval=%s) does not tile: windows overlap or leave a gap on %s%s. Without an interval each run takes "
            "the time since the run before it.",
            type(context["dag"].timetable).__name__,
            interval,
            ", ".join(map(str, uneven.days)),
            "" if uneven.complete else ", ...",
        )


def _warn_of_gap(choice: Choice, context: Mapping[str, Any], *, offset: timedelta | None) -> None:
    """Say which windows a DAG with `catchup=False` has left out before this one; on its first run, that it may."""
    dag = context["dag"]
    if dag.catchup or task_context.run_type(context) != "scheduled" or context["dag_run"].logical_date is None:
        return
    before = next(task_context.earlier_runs(context), None)
    if before is None:
        log.warning(
            "catchup=False: while this DAG is paused, or Airflow is down, its windows are left out. Fill them with "
            "`airflow backfill create`, or set window='since_last_success'."
        )
        return
    end = window_of_run(
        timetable=dag.timetable, dates=task_context.dates_of(before, timetable=dag.timetable), offset=offset
    ).end
    if end < choice.window.start:
        first, last = _dates_between(end, choice.window.start, dates=task_context.run_dates(context), offset=offset)
        log.warning(
            "catchup=False: no DAG run has the time from %s to %s, for instance because the DAG was paused. If it was "
            "not ingested otherwise, fill it with: airflow backfill create --dag-id %s --from-date %s --to-date %s",
            end.isoformat(),
            choice.window.start.isoformat(),
            dag.dag_id,
            first.isoformat(),
            last.isoformat(),
        )


def _dates_between(
    end: datetime, start: datetime, *, dates: RunDates, offset: timedelta | None
) -> tuple[datetime, datetime]:
    """The first and last date for a backfill of what lies between two windows.

    A run's date is where its window begins if Airflow gave it a data interval, else where its window ends.
    """
    second = timedelta(seconds=1)
    shift = offset or timedelta(0)
    if dates.own_window:
        return end - shift, start - shift - second
    return end - shift + second, start - shift
