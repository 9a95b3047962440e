# SPDX-License-Identifier: Apache-2.0
"""Hide the differences between Airflow versions from the tests, as `versions.py` does for the package."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from airflow.timetables.base import Timetable

from airflow_flowservice._airflow import versions

VERSION = versions.version()
TIMETABLES = ("airflow.sdk", "airflow.timetables.trigger", "airflow.timetables.interval", "airflow.timetables.assets")
EVENTS = ("airflow.sdk", "airflow.timetables.events")


class Missing:
    """Placeholder for a class that this Airflow does not have; `needs_airflow` skips its tests."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


def first(name: str, *places: str, default: Any = None) -> Any:
    """Return the object with a name from the first module that has it."""
    for place in places:
        try:
            return getattr(importlib.import_module(place), name)
        except (ImportError, AttributeError):
            continue
    if default is None:
        raise ImportError(f"none of {', '.join(places)} has {name}")
    return default


# Since 3.2, the SDK has separate timetables. Before, a DAG file uses the scheduler's timetables.
AssetOrTimeSchedule = first("AssetOrTimeSchedule", *TIMETABLES)
CronDataIntervalTimetable = first("CronDataIntervalTimetable", *TIMETABLES)
CronPartitionTimetable = first("CronPartitionTimetable", *TIMETABLES, default=Missing)
CronTriggerTimetable = first("CronTriggerTimetable", *TIMETABLES)
DeltaDataIntervalTimetable = first("DeltaDataIntervalTimetable", *TIMETABLES)
DeltaTriggerTimetable = first("DeltaTriggerTimetable", *TIMETABLES)
EventsTimetable = first("EventsTimetable", *EVENTS)
MultipleCronTriggerTimetable = first("MultipleCronTriggerTimetable", *TIMETABLES)
BaseTimetable = first("BaseTimetable", "airflow.sdk.bases.timetable", default=Timetable)


# Converts a DAG to a dictionary and back, as between the DAG processor and the scheduler.
_SERIALIZED_OBJECTS = "airflow.serialization.serialized_objects"
DagSerialization = first("DagSerialization", _SERIALIZED_OBJECTS, default=first("SerializedDAG", _SERIALIZED_OBJECTS))


def import_string(path: str) -> Any:
    """Return the object at a dotted path, as the triggerer does."""
    return first("import_string", "airflow.sdk._shared.module_loading", "airflow.utils.module_loading")(path)


def encode_arguments(arguments: Any) -> Any:
    """Encode arguments of a trigger, or of the method that resumes after it, for Airflow's database."""
    if VERSION >= (3, 2):
        return first("serialize", "airflow.sdk.serde")(arguments)
    return _serialization().serialize(arguments)


def decode_arguments(arguments: Any) -> Any:
    """Decode the result of `encode_arguments`.

    Before 3.2, the worker sends arguments without encoding, and the server encodes them.
    """
    if VERSION >= (3, 2):
        return first("deserialize", "airflow.sdk.serde")(arguments)
    return _serialization().deserialize(_serialization().serialize(arguments))


def decode_xcom(value: Any) -> Any:
    """Decode the value of an XCom that a worker sends."""
    return first("deserialize", "airflow.sdk.serde", "airflow.serialization.serde")(value)


get_listener_manager = first("get_listener_manager", "airflow.sdk.listener", "airflow.listeners.listener")
redact = first("redact", "airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker")
NoStatsLogger = first(
    "NoStatsLogger",
    "airflow.sdk._shared.observability.metrics.base_stats_logger",
    "airflow.metrics.base_stats_logger",
)


@contextmanager
def metrics_sent_to(backend: Any) -> Iterator[None]:
    """Replace the backend that `[metrics]` configures."""
    if VERSION < (3, 3):
        with mock.patch.object(type(versions.stats()), "__getattr__", lambda _, name: getattr(backend, name)):
            yield
        return
    importlib.import_module("airflow.sdk.serde")  # configures metrics when it is imported first
    stats = importlib.import_module("airflow.sdk.observability.stats")
    configured = first("get_stats_factory", "airflow.sdk.observability.metrics.stats_utils")()
    stats.initialize(factory=lambda: backend, export_legacy_names=False)
    yield
    stats.initialize(factory=configured, export_legacy_names=False)


def known_fields(model: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return only the values that a message of this Airflow has; a server does not send values of later versions."""
    return {name: value for name, value in values.items() if name in model.model_fields}


def _serialization() -> Any:
    return first("BaseSerialization", _SERIALIZED_OBJECTS)


def ended_workers(scheduler_log: str) -> list[tuple[str, str]]:
    """Return the final task state and the task instance id of each worker process that has ended.

    Airflow 3.0 does not log the id.
    """
    message = r"(?:Workload|Task) finished .* final_state=(\S+) .*(?:workload_id|task_instance_id)=(\S+)"
    return re.findall(message, scheduler_log)
