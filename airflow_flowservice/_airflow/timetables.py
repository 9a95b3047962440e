"""Airflow's timetables become schedules.

Both kinds of them: the SDK's plain values, which a worker has, and the core's, which the scheduler has and which keep
the same facts under names with an underscore. They are told by name, so that neither has to be imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_flowservice.windows.schedule import Schedule

_CRON = frozenset({"CronTriggerTimetable", "CronDataIntervalTimetable", "CronPartitionTimetable"})
_DELTA = frozenset({"DeltaTriggerTimetable", "DeltaDataIntervalTimetable"})


def schedule_of(timetable: Any) -> tuple[Schedule | None, Any]:
    """A timetable's schedule (None if it has no period), and the data interval that it gives its runs."""
    from airflow_flowservice.windows.cron import AnyOfSchedule, CronSchedule
    from airflow_flowservice.windows.schedule import DeltaSchedule, EventSchedule

    kinds = {cls.__name__ for cls in type(timetable).__mro__}
    if "AssetOrTimeSchedule" in kinds:
        return schedule_of(_fact(timetable, "timetable"))
    if "MultipleCronTriggerTimetable" in kinds:
        parts = [schedule_of(part) for part in _fact(timetable, "timetables")]
        return AnyOfSchedule(schedules=tuple(part for part, _ in parts if isinstance(part, CronSchedule))), parts[0][1]
    if kinds & _CRON:
        zone = _zone(_fact(timetable, "timezone"))
        return CronSchedule(expression=_expression(timetable), zone=zone), _fact(timetable, "interval")
    if kinds & _DELTA:
        return DeltaSchedule(delta=_fact(timetable, "delta")), _fact(timetable, "interval")
    if "EventsTimetable" in kinds:
        return EventSchedule(dates=tuple(_fact(timetable, "event_dates"))), None
    return None, None


def _expression(timetable: Any) -> str:
    """The cron expression: a worker of Airflow 3.2 is told presets by name, and croniter does not know this one."""
    expression: str = _fact(timetable, "expression")
    return "0 0 1 */3 *" if expression == "@quarterly" else expression


def _fact(timetable: Any, name: str) -> Any:
    return getattr(timetable, name, getattr(timetable, f"_{name}", None))


def _zone(zone: Any) -> Any:
    import pendulum

    return pendulum.timezone(zone) if isinstance(zone, str) else zone


def run_offset_of(timetable: Any) -> int | None:
    """A `CronPartitionTimetable`'s `run_offset`; None for other timetables."""
    if not any(cls.__name__ == "CronPartitionTimetable" for cls in type(timetable).__mro__):
        return None
    return int(_fact(timetable, "run_offset") or 0)


def counted_partition(date: datetime, timetable: Any) -> datetime | None:
    """Where the partition of a run of this date begins, counted from the date; None without partitions."""
    offset, (schedule, _) = run_offset_of(timetable), schedule_of(timetable)
    if offset is None or schedule is None:
        return None
    for _ in range(abs(offset)):
        date = schedule.next(date) if offset > 0 else schedule.previous(date)
    return date
