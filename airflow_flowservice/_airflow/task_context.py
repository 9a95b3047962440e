# SPDX-License-Identifier: Apache-2.0
"""Read the context of a running task: its DAG run, its attempt, its asset events, its XComs."""

from __future__ import annotations

import logging
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import timetables
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.plain_text import canonical_id, remedy_for_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from airflow_flowservice.runs.intent import Attempt
    from airflow_flowservice.windows.schedule import RunDates
    from airflow_flowservice.windows.window import IngestionWindow

log = logging.getLogger(__name__)

FLOW_RUN_KEY = "flow_run"
FLOW_RUNS_KEY = "flow_runs"
URL_KEY = "flow_run_url"
DATAFLOW_KEY = "dataflow_url"

# Key of a DAG run's conf with the settings of this package, and the names of the settings.
_SETTINGS = "flowservice"
_SETTING_NAMES = ("adopt", "restate")
_MAX_DEPTH = 5

# Texts of a template without a value, in lower case.
_NO_VALUE = frozenset({"none", "null", "undefined", "nan"})
_SCHEDULE_RUN_TYPES = frozenset({"scheduled", "backfill"})
# Airflow creates runs of these types without a user, who could request a window.
AUTOMATIC_RUN_TYPES = _SCHEDULE_RUN_TYPES | {"asset_triggered"}


def run_dates(context: Mapping[str, Any]) -> RunDates:
    """Return the dates of the context's DAG run."""
    return dates_of(context["dag_run"], timetable=context["dag"].timetable)


def dates_of(run: Any, *, timetable: Any = None) -> RunDates:
    """Return the dates of a DAG run.

    :param timetable: timetable of its DAG. Without it, the partition date is missing on a worker of Airflow 3.2.
    """
    from airflow_flowservice.windows.schedule import RunDates

    return RunDates(
        run_after=run.run_after,
        logical_date=run.logical_date,
        data_interval_start=run.data_interval_start,
        data_interval_end=run.data_interval_end,
        partition_date=_partition_date(run, timetable),
        manual=text_of(run.run_type) not in _SCHEDULE_RUN_TYPES,
    )


def _partition_date(run: Any, timetable: Any) -> datetime | None:
    """Return the start of a run's partition.

    A worker of Airflow 3.2 receives only the partition's key, so the start is computed from the run's date.
    """
    if hasattr(run, "partition_date"):
        date: datetime | None = run.partition_date
        return date
    if text_of(run.run_type) not in _SCHEDULE_RUN_TYPES:
        return None
    return timetables.partition_date_from_run_date(run.run_after, timetable)


def run_type(context: Mapping[str, Any]) -> str:
    """Return the DAG run's type: `scheduled`, `backfill`, `manual`, `asset_triggered`, ..."""
    return text_of(context["dag_run"].run_type)


def is_of_schedule(context: Mapping[str, Any]) -> bool:
    """Return whether the DAG run is of the schedule or of a backfill."""
    return run_type(context) in _SCHEDULE_RUN_TYPES


def conf_of(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the DAG run's conf; empty if there is none."""
    conf = getattr(context["dag_run"], "conf", None)
    return conf if isinstance(conf, dict) else {}


def text_of(value: Any) -> str:
    """Return a state or type as text; Airflow gives either text or a member of an enumeration."""
    return str(getattr(value, "value", value))


def triggering_events(context: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the asset events that triggered the DAG run: the asset's name, and the event's `extra`.

    Airflow puts the payload of an `AssetWatcher`'s trigger into the `extra` (`Trigger.submit_event`), so it is returned
    in its place. The window of an event with a partition key is the partition.
    """
    from airflow_flowservice.windows.partitions import extra_of_partition

    seen = {}
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            seen[id(event)] = event  # an event of an asset alias is listed under both
    for event in seen.values():
        extra = event.extra or {}
        payload = extra.get("payload") if extra.get("from_trigger") is True else None
        facts = payload if isinstance(payload, dict) else extra
        yield event.asset.name, extra_of_partition(facts, key=getattr(event, "partition_key", None))


def add_outlet_event_extra(
    context: Mapping[str, Any], task: Any, extra: Mapping[str, Any], *, ingested: IngestionWindow | None
) -> None:
    """Put facts into the events of the task's outlets that are assets, or refer to one.

    :param ingested: the ingested window, whose partitions each outlet gets if it has partitions; None if nothing is
        known to be ingested.
    :raises ConfigurationError: as `require_partitions`, for a sensor, which does not know the window before it waits.
    """
    from airflow.sdk import Asset
    from airflow.sdk.definitions.asset import AssetRef

    require_partitions(context, task, ingested, waits=ingested is not None)
    events = context.get("outlet_events")
    for outlet in task.outlets:
        if not isinstance(outlet, Asset | AssetRef) or events is None:
            continue
        try:
            events[outlet].extra.update(extra)
            if ingested is not None and isinstance(outlet, Asset):
                _add_partitions(events[outlet], ingested, asset=outlet)
        except Exception as error:  # Airflow knows no such asset, but the flow run exists.
            log.warning("The event of %s has no window: %s", outlet, error)


def require_partitions(context: Mapping[str, Any], task: Any, window: IngestionWindow | None, *, waits: bool) -> None:
    """Raise an error if Airflow would give the DAG run's partition to an outlet's event, although it is not ingested.

    An event without partitions gets the partition key of its DAG run, if it has one (`TaskInstance` of Airflow 3.2).

    :param window: that the task is about to ingest; None if it is not known.
    :param waits: the task waits until the window is ingested.
    :raises ConfigurationError: an outlet has `partitions`, and the window gives it none.
    """
    from airflow.sdk import Asset

    key = getattr(context.get("dag_run"), "partition_key", None)
    for outlet in task.outlets if key is not None else ():
        if not isinstance(outlet, Asset) or (length := _partition_length(outlet)) is None:
            continue
        reason = "the task does not wait for its flow run"
        if waits:
            _, reason = _partitions_of(window, length=length)
        if reason:
            raise ConfigurationError(
                f"the event of asset {outlet.name!r} would have the partition {key!r} of the DAG run, because {reason}",
                remedy="use an asset without `partitions`, or a task that waits, with a window of whole hours or days",
            )


def _partition_length(asset: Any) -> str | None:
    from airflow_flowservice.assets import PARTITIONS_KEY
    from airflow_flowservice.windows import partitions

    length = str((asset.extra or {}).get(PARTITIONS_KEY))
    return length if length in partitions.LENGTHS else None


def _partitions_of(window: IngestionWindow | None, *, length: str) -> tuple[list[str], str]:
    """Return the keys of a window's partitions, or none and the reason."""
    from airflow.sdk.execution_time.context import OutletEventAccessor

    from airflow_flowservice.windows import partitions

    keys = partitions.keys_of(window, length=length) if window else []
    if not hasattr(OutletEventAccessor, "add_partitions"):
        return [], "partitions need Airflow 3.3"
    if not keys:
        return [], f"window {window} contains no whole {length} (UTC)"
    if len(keys) > partitions.MAX_PARTITIONS:
        most = partitions.MAX_PARTITIONS
        return [], f"window {window} contains {len(keys)}, and Airflow can store at most {most} at a time"
    return keys, ""


def _add_partitions(event: Any, window: IngestionWindow, *, asset: Any) -> None:
    """Add the partitions of a window to an event of an asset with partitions, instead of that of the DAG run.

    The window is ingested, so a partition that Airflow cannot have is only logged.
    """
    from airflow_flowservice.assets import PARTITIONS_KEY

    if (length := _partition_length(asset)) is None:
        return
    keys, reason = _partitions_of(window, length=length)
    if reason:
        log.warning("The event of %s has no partitions: %s", asset, reason)
        return
    event.extra[PARTITIONS_KEY] = length
    event.add_partitions(keys)


def earlier_runs(context: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the DAG's runs with a logical date before this run's, newest first, with one request for each run.

    Each run has at least `run_id`, `run_type`, `state`, `run_after`, and the dates of its data interval.
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


def is_dag_run_active(run: Any) -> bool:
    """Return whether a DAG run has not ended."""
    return text_of(run.state) in ("queued", "running")


def attempt_of(context: Mapping[str, Any]) -> Attempt:
    """Return the current attempt of the task."""
    from airflow_flowservice.runs.intent import Attempt

    ti = context["ti"]
    return Attempt(
        try_number=ti.try_number,
        max_tries=getattr(ti, "max_tries", 0) or 0,
        retries=context["task"].retries or 0,
        began=getattr(context["dag_run"], "start_date", None),
        started_before=ti.try_number == 1 and has_earlier_xcoms(ti),
    )


def has_earlier_xcoms(ti: Any) -> bool:
    """Return whether XComs of this task existed when it started.

    An earlier start of the same attempt pushed them: the operators push XComs before a POST. A race in Airflow's
    executor can start a task twice with the same try number (seen on 3.0.6 and 3.3.2).
    """
    details = getattr(ti, "_ti_context_from_server", None)
    return bool(getattr(details, "xcom_keys_to_clear", None))


def run_to_adopt(context: Mapping[str, Any]) -> str | None:
    """Return the id of the flow run to adopt, from the DAG run's conf; None if there is none.

    The conf is `{"flowservice": {"adopt": id}}` or `{"flowservice": {"adopt": {task id: id}}}`.

    :raises ConfigurationError: the conf has another shape, an unknown key or task id, or is a backfill's.
    """
    adopt = _adopt_setting(conf_of(context))
    if adopt is None:
        return None
    if run_type(context) == "backfill":
        raise ConfigurationError(
            f"every run of this backfill has flowservice.adopt {adopt!r} in its conf, and would use the same flow run",
            remedy="create the backfill without flowservice in --dag-run-conf; to adopt a flow run, trigger the DAG "
            "manually with its window and flowservice.adopt in the conf",
        )
    if not isinstance(adopt, dict):
        return _flow_run_id(adopt)
    _require_tasks(adopt, context["dag"])
    named = {task_id: _flow_run_id(value) for task_id, value in adopt.items()}
    return named.get(context["ti"].task_id)


def _adopt_setting(conf: Mapping[str, Any]) -> Any:
    """Return `flowservice.adopt` of a conf, or None if the conf has no such setting.

    :raises ConfigurationError: a key is misspelt or unknown, since ignoring it could cause a second flow run.
    """
    for key, value in conf.items():
        if key == _SETTINGS:
            continue
        if value is not None and _is_meant_as_settings(key, value):
            raise _invalid_adopt(f"the DAG run's conf has the unknown key {str(key)[:60]!r}")
        if _contains_settings(value):
            raise _invalid_adopt(f"the DAG run's conf has {_SETTINGS} inside the key {str(key)[:60]!r}")
    settings = conf.get(_SETTINGS)
    if settings in (None, {}):
        return None
    if not isinstance(settings, dict):
        raise _invalid_adopt(f"flowservice in the DAG run's conf is {settings!r}")
    if unknown := [key for key in settings if key not in _SETTING_NAMES]:
        raise _invalid_adopt(f"flowservice in the DAG run's conf has the unknown key {', '.join(map(repr, unknown))}")
    return settings.get("adopt")


def _is_meant_as_settings(key: Any, value: Any) -> bool:
    """Return whether a key is another spelling of `flowservice`, an object with a similar name, or a setting."""
    plain = re.sub(r"[\W_]", "", str(key).lower())
    names = (_SETTINGS, *(f"{prefix}{name}" for prefix in ("", _SETTINGS) for name in _SETTING_NAMES))
    is_similar = isinstance(value, dict) and get_close_matches(plain, (_SETTINGS,), n=1, cutoff=0.8)
    return plain in names or bool(is_similar)


def _contains_settings(value: Any, *, depth: int = _MAX_DEPTH) -> bool:
    """Return whether a value contains an object with settings, which would not be read there."""
    if not isinstance(value, dict | list) or depth == 0:
        return False
    if isinstance(value, dict) and any(_is_meant_as_settings(key, each) for key, each in value.items()):
        return True
    items = value.values() if isinstance(value, dict) else value
    return any(_contains_settings(each, depth=depth - 1) for each in items)


def requests_restating(context: Mapping[str, Any], *, flow_id: str) -> bool:
    """Return whether the DAG run's conf requests to ingest a dataflow again.

    It is `{"flowservice": {"restate": true}}` for all tasks of the DAG run, or a list of dataflow ids instead of true.

    :raises ConfigurationError: the value is another one, or the conf has an unknown key.
    """
    conf = conf_of(context)
    _adopt_setting(conf)  # raises for unknown keys
    restate = (conf.get("flowservice") or {}).get("restate", False)
    if isinstance(restate, bool):
        return restate
    if isinstance(restate, list) and restate and all(isinstance(each, str) for each in restate):
        return flow_id.lower() in (each.lower() for each in restate)
    raise ConfigurationError(
        f"flowservice.restate in the DAG run's conf is {restate!r}",
        remedy='give {"flowservice": {"restate": true}} to ingest again what is ingested',
    )


def owner_of(context: Mapping[str, Any]) -> str:
    """Return the task instance as the ledger names it: `DAG_ID/RUN_ID/TASK_ID/MAP_INDEX`."""
    return owner_text(context["ti"])


def owner_text(ti: Any) -> str:
    """Return a task instance as the ledger names it."""
    key = task_instance_key(ti)
    return f"{key['dag_id']}/{key['run_id']}/{key['task_id']}/{key['map_index']}"


def _require_tasks(task_ids: Iterable[str], dag: Any) -> None:
    """Raise an error if an id names no task of the DAG.

    :raises ConfigurationError: the error names the nearest task id.
    """
    for task_id in task_ids:
        if dag.has_task(task_id):
            continue
        # A task in a group has the group's id as prefix.
        near = [known for known in dag.task_ids if known.endswith(f".{task_id}")]
        near = near or get_close_matches(task_id, dag.task_ids, n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise _invalid_adopt(f"flowservice.adopt in the DAG run's conf names {task_id!r}, which is no task{hint}")


def _flow_run_id(value: Any) -> str:
    if isinstance(value, str) and value.strip() not in ("", "None", "null"):
        return canonical_id(value)
    raise _invalid_adopt(f"flowservice.adopt in the DAG run's conf names the flow run {value!r}")


def _invalid_adopt(why: str) -> ConfigurationError:
    return ConfigurationError(
        why,
        remedy='name the flow run as {"flowservice": {"adopt": "FLOW_RUN_ID"}}, or for each task as '
        '{"flowservice": {"adopt": {"TASK_ID": "FLOW_RUN_ID"}}}',
    )


def rendered_id(value: Any, *, name: str, source: str | None = None) -> str:
    """Return the id in a rendered template field, without blanks around; a UUID in lower case, as Adobe writes it.

    A template of a missing value renders to empty text or to the text `None`, in a native environment to None. The
    output of a mapped task renders to a list.

    :param name: name of the field.
    :param source: value that the field usually has, for the remedy.
    :raises ConfigurationError: the value is not one id.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text and text.lower() not in _NO_VALUE and text[0] not in "[({" and not remedy_for_list(text):
        return canonical_id(text)
    to = f" to {source}" if source else ""
    remedy = f"set {name}{to}; if it is a template, check it{remedy_for_list(value)}"
    raise ConfigurationError(f"{name} is {value!r}", remedy=remedy)


def push_xcom(ti: Any, *, key: str, value: Any) -> None:
    """Push an XCom for a task instance. The call blocks, so the triggerer must run it in a thread."""
    from airflow.sdk.execution_time.xcom import XCom

    XCom.set(key=key, value=value, **task_instance_key(ti))


def read_xcom(ti: Any, *, key: str, run_id: str | None = None) -> Any:
    """Return an XCom of a task instance, or None.

    :param run_id: the id of another DAG run, to read the XCom of the same task there.
    """
    from airflow.sdk.execution_time.xcom import XCom

    identity = task_instance_key(ti)
    return XCom.get_one(key=key, **{**identity, "run_id": run_id or identity["run_id"]})


def task_instance_key(ti: Any) -> dict[str, Any]:
    """Return the key of a task instance: `dag_id`, `task_id`, `run_id`, and `map_index` (-1 if it is not mapped)."""
    map_index = ti.map_index if ti.map_index is not None else -1
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": map_index}
