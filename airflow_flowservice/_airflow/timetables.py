# SPDX-License-Identifier: Apache-2.0
"""Convert Airflow's timetables to schedules.

There are two kinds of timetables. A worker has the SDK's plain values. The scheduler has the core's timetables, whose
attributes' names begin with an underscore. Class names identify both, so that neither must be imported.
"""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from airflow_flowservice.windows.schedule import Schedule

_CRON = frozenset({"CronTriggerTimetable", "CronDataIntervalTimetable", "CronPartitionTimetable"})
_DELTA = frozenset({"DeltaTriggerTimetable", "DeltaDataIntervalTimetable"})
_DATA_INTERVAL = frozenset({"CronDataIntervalTimetable", "DeltaDataIntervalTimetable"})
_WITHOUT_PERIOD = frozenset({"NullTimetable", "OnceTimetable", "ContinuousTimetable", "AssetTriggeredTimetable"})

# Methods of a timetable that decide when the DAG runs are. Those with an underscore are of Airflow's cron and delta
# timetables, whose `next_dagrun_info` calls them.
_PLANNING_METHODS = frozenset(
    {
        "next_dagrun_info",
        "next_dagrun_info_v2",
        "_get_next",
        "_get_prev",
        "_align_to_next",
        "_align_to_prev",
    }
)


def parse_timetable(timetable: Any) -> tuple[Schedule | None, Any]:
    """Return a timetable's schedule (None if it has no period), and the data interval that it gives its runs."""
    from airflow_flowservice.windows.cron import CronSchedule, MultipleCronSchedule
    from airflow_flowservice.windows.schedule import DeltaSchedule, EventSchedule

    kinds = _kinds(timetable)
    if "AssetOrTimeSchedule" in kinds:
        return parse_timetable(_attribute(timetable, "timetable"))
    if "MultipleCronTriggerTimetable" in kinds:
        parts = [parse_timetable(part) for part in _attribute(timetable, "timetables")]
        return MultipleCronSchedule(
            schedules=tuple(part for part, _ in parts if isinstance(part, CronSchedule))
        ), parts[0][1]
    if kinds & _CRON:
        zone = _zone(_attribute(timetable, "timezone"))
        return CronSchedule(expression=_expression(timetable), zone=zone), _attribute(timetable, "interval")
    if kinds & _DELTA:
        return DeltaSchedule(delta=_attribute(timetable, "delta")), _attribute(timetable, "interval")
    if "EventsTimetable" in kinds:
        return EventSchedule(dates=tuple(_attribute(timetable, "event_dates"))), None
    return None, None


def zone_of(timetable: Any) -> tzinfo:
    """Return the time zone of a timetable's cron expressions; UTC if it has none."""
    schedule, _ = parse_timetable(timetable)
    crons = getattr(schedule, "schedules", (schedule,))
    zone: tzinfo = getattr(crons[0], "zone", None) or timezone.utc
    return zone


def data_interval_timetable(timetable: Any) -> str | None:
    """Return code for the timetable of the same schedule whose DAG runs have data intervals; None if there is none."""
    kinds = {cls.__name__ for cls in type(timetable).__mro__}
    if "CronTriggerTimetable" in kinds:
        zone = getattr(_zone(_attribute(timetable, "timezone")), "name", "UTC")
        return f"CronDataIntervalTimetable({_attribute(timetable, 'expression')!r}, timezone={zone!r})"
    return f"DeltaDataIntervalTimetable({_attribute(timetable, 'delta')!r})" if kinds & _DELTA else None


def manual_interval(timetable: Any, instant: datetime) -> tuple[datetime, datetime] | None:
    """Return the data interval that Airflow infers for a manual run from an instant; None if it is unknown.

    This is `infer_manual_data_interval` of the scheduler's timetable, which a worker may not have.
    """
    from airflow_flowservice.windows.schedule import EventSchedule

    kinds = _kinds(timetable)
    if "AssetOrTimeSchedule" in kinds:
        return manual_interval(_attribute(timetable, "timetable"), instant)
    schedule, interval = parse_timetable(timetable)
    if schedule is not None and kinds & _DATA_INTERVAL:
        end = schedule.floor(instant)
        return schedule.previous(end), end
    if isinstance(schedule, EventSchedule) and schedule.dates and _attribute(timetable, "restrict_to_events"):
        event = max((date for date in schedule.dates if date <= instant), default=min(schedule.dates))
        return event, event
    if schedule is not None:
        return instant - (interval or timedelta(0)), instant
    return (instant, instant) if kinds & _WITHOUT_PERIOD else _custom_interval(timetable, instant)


def _kinds(timetable: Any) -> set[str]:
    """Return the class names that identify a timetable.

    A subclass that plans its DAG runs with its own method, for instance without holidays, has only its own name: its
    DAG runs are not those of Airflow's class, so windows computed from that class would leave gaps.
    """
    classes = type(timetable).__mro__
    for cls in classes:
        if cls.__module__.startswith("airflow."):
            break
        if not _PLANNING_METHODS.isdisjoint(vars(cls)):
            return {type(timetable).__name__}
    return {cls.__name__ for cls in classes}


def _custom_interval(timetable: Any, instant: datetime) -> tuple[datetime, datetime] | None:
    """Return what the method of a custom timetable infers; None if it has none, or it fails."""
    import pendulum

    try:
        interval = timetable.infer_manual_data_interval(run_after=pendulum.instance(instant))
        return interval.start, interval.end
    except Exception:  # on a worker, the method may be missing or abstract
        return None


def _expression(timetable: Any) -> str:
    """Return the cron expression.

    A worker of Airflow 3.2 receives presets by name, and croniter does not support `@quarterly`.
    """
    expression: str = _attribute(timetable, "expression")
    return "0 0 1 */3 *" if expression == "@quarterly" else expression


def _attribute(timetable: Any, name: str) -> Any:
    return getattr(timetable, name, getattr(timetable, f"_{name}", None))


def _zone(zone: Any) -> Any:
    import pendulum

    return pendulum.timezone(zone) if isinstance(zone, str) else zone


def run_offset_of(timetable: Any) -> int | None:
    """Return the `run_offset` of a `CronPartitionTimetable`; None for other timetables."""
    if not any(cls.__name__ == "CronPartitionTimetable" for cls in type(timetable).__mro__):
        return None
    return int(_attribute(timetable, "run_offset") or 0)


def partition_date_from_run_date(date: datetime, timetable: Any) -> datetime | None:
    """Return the start of the partition of a run, computed from the run's date; None without partitions."""
    offset, (schedule, _) = run_offset_of(timetable), parse_timetable(timetable)
    if offset is None or schedule is None:
        return None
    for _ in range(abs(offset)):
        date = schedule.next(date) if offset > 0 else schedule.previous(date)
    return date
