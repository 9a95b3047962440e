"""What Airflow's context says of the task that runs: its DAG run, its attempt, its events, its XComs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import timetables
from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from airflow_flowservice.runs.intent import Attempt, Store
    from airflow_flowservice.windows.schedule import RunDates

log = logging.getLogger(__name__)

FLOW_RUN_KEY = "flow_run"
URL_KEY = "flow_run_url"
DATAFLOW_KEY = "dataflow_url"

_OF_THE_SCHEDULE = frozenset({"scheduled", "backfill"})
# Nobody could name a window for one of these.
MADE_BY_AIRFLOW = _OF_THE_SCHEDULE | {"asset_triggered"}


def run_dates(context: Mapping[str, Any]) -> RunDates:
    """What the context says of its DAG run's dates."""
    return dates_of(context["dag_run"], timetable=context["dag"].timetable)


def dates_of(run: Any, *, timetable: Any = None) -> RunDates:
    """A DAG run's dates.

    :param timetable: of its DAG; without it, a worker of Airflow 3.2 cannot tell where a partition begins.
    """
    from airflow_flowservice.windows.schedule import RunDates

    return RunDates(
        run_after=run.run_after,
        logical_date=run.logical_date,
        data_interval_start=run.data_interval_start,
        data_interval_end=run.data_interval_end,
        partition_date=_partition_date(run, timetable),
        manual=word(run.run_type) not in _OF_THE_SCHEDULE,
    )


def _partition_date(run: Any, timetable: Any) -> datetime | None:
    """Where a run's partition begins. Airflow 3.2 tells a worker only its key: it is counted from the run's date."""
    if hasattr(run, "partition_date"):
        date: datetime | None = run.partition_date
        return date
    if word(run.run_type) not in _OF_THE_SCHEDULE:
        return None
    return timetables.counted_partition(run.run_after, timetable)


def run_type(context: Mapping[str, Any]) -> str:
    """The DAG run's type, in Airflow's words: `scheduled`, `backfill`, `manual`, `asset_triggered`, ..."""
    return word(context["dag_run"].run_type)


def conf_of(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """The DAG run's conf; empty where there is none."""
    conf = getattr(context["dag_run"], "conf", None)
    return conf if isinstance(conf, dict) else {}


def word(value: Any) -> str:
    """A state or type in Airflow's words, whether it comes as a text or as one of Airflow's enumerations."""
    return str(getattr(value, "value", value))


def triggering_events(context: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The asset events that triggered the DAG run: the asset's name, and the event's `extra`."""
    seen = {}
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            seen[id(event)] = event  # an event that came by an alias is listed under both
    for event in seen.values():
        yield event.asset.name, event.extra or {}


def add_outlet_event_extra(context: Mapping[str, Any], task: Any, extra: Mapping[str, Any]) -> None:
    """Put facts into the events of the task's outlets that are assets, or refer to one."""
    from airflow.sdk import Asset
    from airflow.sdk.definitions.asset import AssetRef

    events = context.get("outlet_events")
    for outlet in task.outlets:
        if not isinstance(outlet, Asset | AssetRef) or events is None:
            continue
        try:
            events[outlet].extra.update(extra)
        except Exception as error:  # Airflow knows no such asset; the flow run exists all the same.
            log.warning("The event of %s carries no window: %s", outlet, error)


def earlier_runs(context: Mapping[str, Any]) -> Iterator[Any]:
    """The DAG's runs with a logical date before this run's, newest first; one request each.

    Each has at least `run_id`, `run_type`, `state`, `run_after`, and the dates of its data interval.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetPreviousDagRun

    dag_id = context["ti"].dag_id
    date = context["dag_run"].logical_date
    while date is not None:
        answer: Any = task_runner.SUPERVISOR_COMMS.send(GetPreviousDagRun(dag_id=dag_id, logical_date=date))
        if answer is None or answer.dag_run is None:
            return
        yield answer.dag_run
        date = answer.dag_run.logical_date


def is_going_on(run: Any) -> bool:
    """Whether a DAG run has not ended."""
    return word(run.state) in ("queued", "running")


def attempt_of(context: Mapping[str, Any]) -> Attempt:
    """Which attempt of the task this is."""
    from airflow_flowservice.runs.intent import Attempt

    ti = context["ti"]
    return Attempt(
        try_number=ti.try_number,
        max_tries=getattr(ti, "max_tries", 0) or 0,
        retries=context["task"].retries or 0,
        began=getattr(context["dag_run"], "start_date", None),
        started_before=ti.try_number == 1 and _has_left_xcoms(ti),
    )


def _has_left_xcoms(ti: Any) -> bool:
    """Whether there were XComs of this task when it started: an earlier start pushed them, as ours do before a POST.

    Airflow's executor race may start a task again under the same number (seen on 3.0.6 and 3.3.2).
    """
    details = getattr(ti, "_ti_context_from_server", None)
    return bool(getattr(details, "xcom_keys_to_clear", None))


def run_to_adopt(context: Mapping[str, Any]) -> str | None:
    """The flow run that the DAG run's conf names for this task: `{"flowservice": {"adopt": id or {task id: id}}}`.

    :raises ConfigurationError: the conf has another shape.
    """
    asked: Any = conf_of(context).get("flowservice") or {}
    adopt = asked.get("adopt") if isinstance(asked, dict) else asked
    named = adopt.get(context["ti"].task_id) if isinstance(adopt, dict) else adopt
    if named is None or (isinstance(named, str) and named.strip()):
        return named.strip() if named else None
    raise ConfigurationError(
        f"flowservice in the DAG run's conf is {asked!r}",
        remedy='name the flow run as {"flowservice": {"adopt": "FLOW_RUN_ID"}}',
    )


def state_store(context: Mapping[str, Any]) -> Store | None:
    """What survives an attempt of this task: Airflow 3.3's `task_state_store`; None before."""
    store: Store | None = context.get("task_state_store")
    return store


def push_xcom(ti: Any, *, key: str, value: Any) -> None:
    """Push an XCom for a task instance, also from the triggerer; blocks, so there in a thread."""
    from airflow.sdk.execution_time.xcom import XCom

    XCom.set(key=key, value=value, **coordinates(ti))


def read_xcom(ti: Any, *, key: str, run_id: str | None = None) -> Any:
    """A task instance's own XCom, or None.

    :param run_id: of another DAG run, for the same task there.
    """
    from airflow.sdk.execution_time.xcom import XCom

    where = coordinates(ti)
    return XCom.get_one(key=key, **{**where, "run_id": run_id or where["run_id"]})


def coordinates(ti: Any) -> dict[str, Any]:
    """What names a task instance: `dag_id`, `task_id`, `run_id`, and `map_index` (-1 where it is not mapped)."""
    map_index = ti.map_index if ti.map_index is not None else -1
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": map_index}
