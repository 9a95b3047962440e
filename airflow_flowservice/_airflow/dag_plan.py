# SPDX-License-Identifier: Apache-2.0
"""Schedule of a DAG, from which windows are expected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import choose_window, dag_runs, timetables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from airflow_flowservice._airflow.database import DagSchedule
    from airflow_flowservice._airflow.history_start import HistoryStart
    from airflow_flowservice.windows.schedule import RunDates, Schedule
    from airflow_flowservice.windows.window import IngestionWindow

# One year of five-minute windows. Neither the commands nor the page can show more.
MOST_WINDOWS = 110_000


@dataclass
class ScheduleDates:
    """Dates and windows of schedules, computed once for all DAGs with the same timetable.

    Airflow's timetables need up to half a millisecond for each date.
    """

    _dates: dict[tuple[Any, ...], tuple[list[RunDates], Iterator[RunDates]]] = field(default_factory=dict)
    _windows: dict[tuple[Any, ...], IngestionWindow] = field(default_factory=dict)
    _previous: dict[tuple[int, datetime], datetime] = field(default_factory=dict)
    _schedules: dict[int, Schedule | None] = field(default_factory=dict)

    def between(self, timetable: Any, *, earliest: datetime, latest: datetime | None) -> Iterator[RunDates]:
        """Yield the same as `dag_runs.dates_between`.

        :param timetable: an object that exists until the last call.
        """
        key = (id(timetable), earliest, latest)
        if key not in self._dates:
            self._dates[key] = ([], dag_runs.dates_between(timetable, earliest=earliest, latest=latest))
        known, remaining = self._dates[key]
        index = 0
        while True:
            if index == len(known):
                following = next(remaining, None)
                if following is None:
                    return
                known.append(following)
            yield known[index]
            index += 1

    def schedule(self, timetable: Any) -> Schedule | None:
        """Return the schedule of `timetables.parse_timetable`."""
        if id(timetable) not in self._schedules:
            self._schedules[id(timetable)] = timetables.parse_timetable(timetable)[0]
        return self._schedules[id(timetable)]

    def window(self, timetable: Any, dates: RunDates, offset: timedelta | None) -> IngestionWindow:
        """Return the same as `choose_window.window_of_run`.

        :raises WindowError: the dates have no window.
        """
        key = (id(timetable), offset, dates)
        if key not in self._windows:
            self._windows[key] = choose_window.window_of_run(timetable=timetable, dates=dates, offset=offset)
        return self._windows[key]

    def previous(self, timetable: Any, schedule: Schedule, instant: datetime) -> datetime:
        """Return the same as `schedule.previous`.

        :param schedule: of the timetable.
        :raises WindowError: there is no earlier date.
        """
        key = (id(timetable), instant)
        if key not in self._previous:
            self._previous[key] = schedule.previous(instant)
        return self._previous[key]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Schedule of a DAG, from which windows are expected.

    :param timetable: of Airflow core; None if it is unknown.
    :param is_decoded: False if the DAG has a timetable that this process cannot decode.
    :param offset: the task's `window_offset`; None derives it from the task's earlier windows.
    :param start: the DAG's `start_date`; the schedule creates no DAG run for an earlier date.
    :param end: the DAG's `end_date`.
    :param history: begin of the DAG's history in the metadata database; None if it has no begin.
    :param ordered: a task of the DAG has `depends_on_past`.
    :param most_windows: maximum number of missing windows of the schedule. The last one has all the remaining time.
    :param dates: shared by the plans of several DAGs.
    """

    dag_id: str
    timetable: Any = None
    is_decoded: bool = True
    offset: timedelta | None = None
    start: datetime | None = None
    end: datetime | None = None
    history: HistoryStart | None = None
    ordered: bool = False
    most_windows: int = MOST_WINDOWS
    dates: ScheduleDates = field(default_factory=ScheduleDates, repr=False, compare=False)


def plan_of(schedule: DagSchedule | None, *, dag_id: str, history: HistoryStart | None = None) -> Plan:
    """Return the plan of a DAG; one without a timetable if the metadata database has no schedule."""
    if schedule is None:
        return Plan(dag_id=dag_id, history=history)
    return Plan(
        dag_id=dag_id,
        timetable=schedule.timetable,
        is_decoded=schedule.timetable is not None,
        start=schedule.start,
        end=schedule.end,
        history=history,
        ordered=schedule.ordered,
    )
