"""The one place that knows Airflow's context, versions and exceptions.

Heavy imports are inside functions: a DAG file that uses our operators pays for `airflow.sdk` alone.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_flowservice import exceptions
from airflow_flowservice.exceptions import ConfigurationError, FlowServiceError

try:
    from airflow.sdk import BaseHook
except ImportError:  # before 3.1
    from airflow.hooks.base import BaseHook  # type: ignore[no-redef,attr-defined,unused-ignore]

__all__ = ["BaseHook"]

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import Connection

    from airflow_flowservice.ingestion.intent import Attempt, Store
    from airflow_flowservice.ingestion.schedule import RunDates

log = logging.getLogger(__name__)

FLOW_RUN_KEY = "flow_run"
# Seconds that a stopping triggerer may be held up.
PATIENCE_WITH_AIRFLOW = 5.0

_OF_THE_SCHEDULE = frozenset({"scheduled", "backfill"})
# Nobody could name a window for one of these.
MADE_BY_AIRFLOW = _OF_THE_SCHEDULE | {"asset_triggered"}


@cache
def version() -> tuple[int, int]:
    """Airflow's major and minor version."""
    from importlib.metadata import version as installed

    major, minor = installed("apache-airflow-core").split(".")[:2]
    return int(major), int(minor)


def default_deferrable() -> bool:
    """Airflow's `[operators] default_deferrable`."""
    return bool(_conf().getboolean("operators", "default_deferrable", fallback=False))


def _conf() -> Any:
    try:
        from airflow.sdk.configuration import conf
    except ImportError:  # before 3.2
        from airflow.configuration import conf  # type: ignore[no-redef,unused-ignore]
    return conf


def stats() -> Any:
    """Airflow's own metrics, with `incr`, `gauge` and their like."""
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:  # before 3.2
        from airflow.stats import Stats  # type: ignore[no-redef,unused-ignore]
    return Stats


def dag_bag(*args: Any, **kwargs: Any) -> Any:
    """Airflow's `DagBag`: the DAGs of a file or folder."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef,attr-defined,unused-ignore]
    return DagBag(*args, **kwargs)


def core_timetable(timetable: Any) -> Any:
    """A DAG file's timetable as the scheduler has it."""
    try:
        from airflow.serialization.encoders import coerce_to_core_timetable
    except ImportError:  # before 3.2, a DAG file's timetable is the scheduler's
        return timetable
    return coerce_to_core_timetable(timetable)


def backfills_by_partition(timetable: Any) -> bool:
    """Whether a backfill's dates are those of partitions; Airflow 3.2 goes by the dates of their runs."""
    return version() >= (3, 3) and bool(getattr(timetable, "partitioned", False))


def run_infos(timetable: Any, *, earliest: Any, latest: Any) -> Iterator[Any]:
    """As `iter_dagrun_infos_between` of Airflow's DAG, which would hide a timetable's errors.

    :param timetable: the core's.
    :param earliest: pendulum's, inclusive; as `latest`, which may be None.
    """
    from airflow.timetables.base import TimeRestriction

    if backfills_by_partition(timetable):
        yield from timetable.iter_partition_dagrun_infos(earliest=earliest, latest=latest)
        return
    restriction = TimeRestriction(earliest, latest, catchup=True)
    last = None
    while info := _next_info(timetable, last, restriction):
        yield info
        last = info


def _next_info(timetable: Any, last: Any, restriction: Any) -> Any:
    if hasattr(timetable, "next_dagrun_info_v2"):
        return timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
    interval = last.data_interval if last else None  # before 3.2
    return timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)


def run_dates(context: Mapping[str, Any]) -> RunDates:
    """What the context says of its DAG run's dates."""
    return dates_of(context["dag_run"], timetable=context["dag"].timetable)


def dates_of(run: Any, *, timetable: Any = None) -> RunDates:
    """A DAG run's dates.

    :param timetable: of its DAG; without it, a worker of Airflow 3.2 cannot tell where a partition begins.
    """
    from airflow_flowservice.ingestion.schedule import RunDates

    return RunDates(
        run_after=run.run_after,
        logical_date=run.logical_date,
        data_interval_start=run.data_interval_start,
        data_interval_end=run.data_interval_end,
        partition_date=_partition_date(run, timetable),
        manual=_word(run.run_type) not in _OF_THE_SCHEDULE,
    )


def _partition_date(run: Any, timetable: Any) -> datetime | None:
    """Where a run's partition begins. Airflow 3.2 tells a worker only its key: it is counted from the run's date."""
    if hasattr(run, "partition_date"):
        date: datetime | None = run.partition_date
        return date
    if _word(run.run_type) not in _OF_THE_SCHEDULE:
        return None
    return _counted_partition(run.run_after, timetable)


def partition_date_of(info: Any, timetable: Any) -> datetime | None:
    """Where the partition of a run that a timetable would make begins.

    :param timetable: the core's. On the day after a change of the clock at midnight, 3.2's own steps back to no run.
    """
    if version() < (3, 3):
        return _counted_partition(info.run_after, timetable)
    date: datetime | None = info.partition_date
    return date


def _counted_partition(date: datetime, timetable: Any) -> datetime | None:
    from airflow_flowservice._timetables import run_offset_of, schedule_of

    offset, (schedule, _) = run_offset_of(timetable), schedule_of(timetable)
    if offset is None or schedule is None:
        return None
    for _ in range(abs(offset)):
        date = schedule.next(date) if offset > 0 else schedule.previous(date)
    return date


def run_type(context: Mapping[str, Any]) -> str:
    """The DAG run's type, in Airflow's words: `scheduled`, `backfill`, `manual`, `asset_triggered`, ..."""
    return _word(context["dag_run"].run_type)


def conf_of(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """The DAG run's conf; empty where there is none."""
    conf = getattr(context["dag_run"], "conf", None)
    return conf if isinstance(conf, dict) else {}


def _word(value: Any) -> str:
    return str(getattr(value, "value", value))


def triggering_events(context: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The asset events that triggered the DAG run: the asset's name, and the event's `extra`."""
    seen = {}
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            seen[id(event)] = event  # an event that came by an alias is listed under both
    for event in seen.values():
        yield event.asset.name, event.extra or {}


def tell_outlets(context: Mapping[str, Any], task: Any, extra: Mapping[str, Any]) -> None:
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
    return _word(run.state) in ("queued", "running")


def attempt_of(context: Mapping[str, Any]) -> Attempt:
    """Which attempt of the task this is."""
    from airflow_flowservice.ingestion.intent import Attempt

    ti = context["ti"]
    return Attempt(
        try_number=ti.try_number,
        max_tries=getattr(ti, "max_tries", 0) or 0,
        retries=context["task"].retries or 0,
        began=getattr(context["dag_run"], "start_date", None),
    )


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


def get_connection(conn_id: str) -> Connection:
    """The connection.

    :raises ConfigurationError: there is none with this id.
    """
    with _connection_exists(conn_id):
        return BaseHook.get_connection(conn_id)


async def aget_connection(conn_id: str) -> Connection:
    """As `get_connection`, without blocking the event loop."""
    with _connection_exists(conn_id):
        if hasattr(BaseHook, "aget_connection"):
            return await BaseHook.aget_connection(conn_id)
        connection: Connection = await in_thread(BaseHook.get_connection, conn_id)  # before 3.1
        return connection


def stored_connection(conn_id: str) -> Any:
    """The connection as Airflow reads it outside of tasks: from the environment, a secrets backend, the database.

    :raises ConfigurationError: there is none with this id, or it cannot be read; the message tells which.
    """
    from airflow.models.connection import Connection as Stored

    stored: Any = Stored
    try:
        with _connection_exists(conn_id):
            return stored.get_connection_from_secrets(conn_id)
    except ConfigurationError as error:
        # Airflow takes a place that it cannot read, and a password that it cannot decrypt, for one without it.
        _read_everywhere(conn_id)
        raise error from error.__cause__


def _read_everywhere(conn_id: str) -> None:
    from airflow.configuration import ensure_secrets_loaded

    backends: Any = ensure_secrets_loaded()
    for backend in backends:
        try:
            connection = backend.get_connection(conn_id=conn_id)
            if connection is not None:
                connection.get_uri()
        except Exception as error:
            # The words of other errors may hold a part of a password; those of the database's driver do not.
            why = str(getattr(error, "orig", "")).strip().partition("\n")[0]
            raise ConfigurationError(
                f"the connection {conn_id!r} cannot be read by {type(backend).__name__} "
                f"({type(error).__name__}{f': {why}' if why else ''})",
                remedy=(
                    "run this with the same Airflow configuration as the scheduler: [core] fernet_key, [database] "
                    "sql_alchemy_conn, [secrets] backend"
                ),
            ) from error


@contextmanager
def _connection_exists(conn_id: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "AirflowNotFoundException" and "CONNECTION_NOT_FOUND" not in str(error):
            raise
        raise ConfigurationError(
            f"the connection {conn_id!r} does not exist",
            remedy=(
                f"create it in Airflow's UI (Admin, Connections, type 'Adobe Flow Service') or with "
                f"`airflow connections add {conn_id} --conn-type flowservice ...`, "
                "or set flowservice_conn_id to the id of one that exists"
            ),
        ) from error


async def in_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a blocking call beside the event loop; Airflow's own look-ups work from there too.

    Before 3.2 a look-up from any other thread reads the triggerer's answers out of order, which ends the triggerer
    (seen on 3.0.6). From asgiref's threads it takes its turn in the event loop.
    """
    if version() >= (3, 2):
        return await asyncio.to_thread(function, *args, **kwargs)
    from asgiref.sync import sync_to_async

    return await sync_to_async(function, thread_sensitive=False)(*args, **kwargs)


def mask(secret: str) -> None:
    """Have Airflow replace a secret by `***` in all logs and rendered fields, also in its URL-encoded form."""
    from urllib.parse import quote, quote_plus

    try:
        from airflow.sdk.log import mask_secret
    except ImportError:  # before 3.1
        from airflow.sdk.execution_time.secrets_masker import mask_secret  # type: ignore[no-redef,unused-ignore]

    for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
        mask_secret(form)


def ends_in_triggerer(task: Any) -> bool:
    """Whether a trigger may end this task as a success without a worker.

    Airflow then leaves out asset events, listeners and `post_execute` (seen on 3.3.2), so only where
    there are none; and before 3.3 a trigger cannot be relied on to push XComs.
    """
    if version() < (3, 3) or task.outlets or getattr(task, "_post_execute_hook", None):
        return False
    return not has_listeners()


def as_template(value: Any) -> str:
    """A task's output as a template that the triggerer can render.

    `str(create.output)` cannot: it pulls without map index, by a message that the triggerer of 3.3.2 does not decode.
    In a mapped task group, the output is that of the same copy of the group.

    :raises ConfigurationError: it is neither text nor a task's plain output.
    """
    if isinstance(value, str):
        return value
    operator, key = getattr(value, "operator", None), getattr(value, "key", None)
    if operator is None or key is None:
        raise ConfigurationError(
            f"flow_run_id is {value!r}, which cannot be rendered in the triggerer",
            remedy="give the creating task's output or a template, or leave start_from_trigger out",
        )
    map_index = "-1" if operator.get_closest_mapped_task_group() is None else "ti.map_index"
    return f"{{{{ ti.xcom_pull(task_ids={operator.task_id!r}, key={key!r}, map_indexes={map_index}) }}}}"


def is_of_mapped(task: Any) -> bool:
    """Whether this task was made out of a mapped one, which Airflow cannot begin in the triggerer (seen on 3.3.2)."""
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


def starts_in_triggerer() -> bool:
    """Whether this Airflow can begin a task in the triggerer, and render its templates there."""
    return version() >= (3, 3)


def start_trigger_args(*, trigger: str, arguments: dict[str, Any], next_method: str, timeout: float) -> Any:
    """What the scheduler needs to begin a task in the triggerer; timeout in seconds."""
    from datetime import timedelta

    from airflow.triggers.base import StartTriggerArgs

    return StartTriggerArgs(
        trigger_cls=trigger, trigger_kwargs=arguments, next_method=next_method, timeout=timedelta(seconds=timeout)
    )


def shows_pages() -> bool:
    """Whether this Airflow's UI shows pages of plugins."""
    return version() >= (3, 1)


def tells_triggers_of_kills() -> bool:
    """Whether this Airflow calls a trigger's `on_kill`."""
    return version() >= (3, 3)


async def was_undeferred(ti: Any) -> bool:
    """Whether a deferred task is deferred no longer; False where Airflow does not say.

    For triggers that are cancelled before Airflow 3.3: a triggerer that stops leaves its tasks deferred, while
    somebody who marks or clears a task does not. (Google's provider looks at the same, to cancel its jobs.)
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetTaskStates

    if ti is None:
        return False
    question = GetTaskStates(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=_coordinates(ti)["map_index"]
    )
    # Never cancelled in the middle of an answer, which other triggers in the process would then read as theirs.
    asking = asyncio.ensure_future(task_runner.SUPERVISOR_COMMS.asend(question))
    done, _ = await asyncio.wait({asking}, timeout=PATIENCE_WITH_AIRFLOW)
    if not done or asking.exception() is not None:
        return False
    states: Any = getattr(asking.result(), "task_states", {}).get(ti.run_id, {})
    return bool(states) and all(_word(state) != "deferred" for state in states.values())


def has_listeners() -> bool:
    """Whether somebody, such as OpenLineage, wants to hear of tasks that end."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # before 3.2
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment,unused-ignore]

    return bool(get_listener_manager().has_listeners)


def push_xcom(ti: Any, *, key: str, value: Any) -> None:
    """Push an XCom for a task instance, also from the triggerer; blocks, so there in a thread."""
    from airflow.sdk.execution_time.xcom import XCom

    XCom.set(key=key, value=value, **_coordinates(ti))


def read_xcom(ti: Any, *, key: str, run_id: str | None = None) -> Any:
    """A task instance's own XCom, or None.

    :param run_id: of another DAG run, for the same task there.
    """
    from airflow.sdk.execution_time.xcom import XCom

    where = _coordinates(ti)
    return XCom.get_one(key=key, **{**where, "run_id": run_id or where["run_id"]})


def _coordinates(ti: Any) -> dict[str, Any]:
    map_index = ti.map_index if ti.map_index is not None else -1
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": map_index}


def airflow_exception(name: str) -> type[BaseException]:
    """One of Airflow's exceptions, wherever this version keeps it."""
    from airflow.sdk import exceptions as places

    if not hasattr(places, name):  # before 3.1
        from airflow import exceptions as places  # type: ignore[no-redef,unused-ignore]
    found: type[BaseException] = getattr(places, name)
    return found


@contextmanager
def task_errors(*final: type[FlowServiceError]) -> Iterator[None]:
    """What goes wrong inside ends the task: still as the typed error, without retries where none can help.

    :param final: errors after which a retry of this very task cannot help, though they are retryable.
    """
    try:
        yield
    except FlowServiceError as error:
        if error.retryable and not isinstance(error, final):
            raise
        raise _ending(error, "AirflowFailException").with_traceback(error.__traceback__) from error.__cause__


def as_sensor_timeout(error: FlowServiceError) -> FlowServiceError:
    """The error as one that is also Airflow's `AirflowSensorTimeout`, which is not retried."""
    return _ending(error, "AirflowSensorTimeout")


def _ending(error: FlowServiceError, ending: str) -> FlowServiceError:
    made = _ending_class(type(error).__name__, ending)(error.message)
    made.__dict__.update(error.__dict__)
    return made


@cache
def _ending_class(name: str, ending: str) -> type[FlowServiceError]:
    """The class of this name as one of Airflow's exceptions that end a task without a retry."""
    cls: type[FlowServiceError] = getattr(exceptions, name)
    return type(cls.__name__, (cls, airflow_exception(ending)), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def utc_now() -> datetime:
    """Now, aware."""
    return datetime.now(timezone.utc)
