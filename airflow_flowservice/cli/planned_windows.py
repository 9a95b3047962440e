# SPDX-License-Identifier: Apache-2.0
"""Windows of the DAG runs that a schedule or a backfill creates between two dates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import dag_coverage, dag_runs, versions
from airflow_flowservice._airflow.choose_window import window_of_run
from airflow_flowservice.cli.output import CommandError
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.contiguity import clock_change_note, find_breaks, length_text
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import tzinfo

    from airflow_flowservice._airflow.dag_plan import Plan
    from airflow_flowservice.windows.schedule import RunDates
    from airflow_flowservice.windows.window import IngestionWindow


_FAULT_NAMES = {
    "gap": ("gap", "gaps"),
    "overlap": ("overlap", "overlaps"),
    "no window": ("DAG run without a window", "DAG runs without a window"),
}


@dataclass(frozen=True, kw_only=True)
class PlannedWindow:
    """Window of a planned DAG run.

    :param window: None if the DAG run has no window; the note states the reason.
    :param faults: of `gap`, `overlap`, `no window`; empty if the window is contiguous with the one before it.
    """

    run_after: datetime
    logical_date: datetime | None
    window: IngestionWindow | None = None
    note: str = ""
    faults: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; times as in the XCom `flow_run`."""
        window = self.window
        return {
            "run_after": iso(self.run_after),
            "logical_date": iso(self.logical_date) if self.logical_date else None,
            "window_start": iso(window.start) if window else None,
            "window_end": iso(window.end) if window else None,
            "seconds": window.seconds if window else None,
            "note": self.note,
        }


def timetable_of(dag: Any) -> Any:
    """Return the scheduler's timetable of a DAG.

    :raises CommandError: the timetable does not depend on time (`None`, `@once`, assets).
    """
    try:
        timetable = versions.core_timetable(dag.timetable)
    except Exception as error:
        name = type(dag.timetable).__name__
        raise CommandError(f"the scheduler cannot read the {name} of DAG {dag.dag_id!r}: {error!r}") from error
    if timetable.periodic:
        return timetable
    raise CommandError(
        f"DAG {dag.dag_id!r} has no time schedule ({timetable.summary}), so it has no DAG runs between dates. Give it "
        "a cron or timedelta schedule, or pass window_start and window_end to its tasks or DAG runs"
    )


def runs_between(timetable: Any, *, earliest: datetime, latest: datetime) -> list[RunDates]:
    """Return the dates of the DAG runs that a backfill over these dates creates, including those in the future.

    :raises CommandError: there are none.
    """
    if earliest > latest:
        raise CommandError(f"--from-date ({earliest.isoformat()}) is after --to-date ({latest.isoformat()})")
    try:
        runs = list(dag_runs.dates_between(timetable, earliest=earliest, latest=latest))
    except Exception as error:
        raise CommandError(f"the {type(timetable).__name__} gives no run dates: {error!r}") from error
    if runs:
        return runs
    raise CommandError(
        f"the schedule ({timetable.summary}) has no DAG run from {earliest.isoformat()} to {latest.isoformat()}. Move "
        "--from-date or --to-date to the date of a DAG run; both are inclusive"
    )


def runs_of_windows(plan: Plan, *, begin: datetime, end: datetime) -> list[RunDates]:
    """Return the dates of the DAG runs whose windows contain time of a range, including those in the future.

    A DAG run without a window is included if its own date is in the range.

    :param plan: with the start of the DAG, from which a `timedelta` counts.
    :param end: exclusive.
    :raises CommandError: there are none.
    """
    if begin >= end:
        raise CommandError(
            f"--from ({begin.isoformat()}) is not before --to ({end.isoformat()}), which is exclusive. The dates of a "
            "backfill are --from-date and --to-date"
        )
    try:
        runs = list(_runs_of_windows(plan, begin=begin, end=end))
    except Exception as error:
        raise CommandError(f"the {type(plan.timetable).__name__} gives no run dates: {error!r}") from error
    if runs:
        return runs
    raise CommandError(
        f"the schedule ({plan.timetable.summary}) has no window between {begin.isoformat()} and {end.isoformat()}"
    )


def _runs_of_windows(plan: Plan, *, begin: datetime, end: datetime) -> Iterator[RunDates]:
    shift = plan.offset or timedelta(0)
    latest = end - shift if versions.backfills_by_partition(plan.timetable) else None
    found = dag_runs.dates_between(
        plan.timetable,
        earliest=dag_coverage.backfill_argument(dag_coverage.first_date(plan, (), begin - shift), plan.timetable),
        latest=dag_coverage.backfill_argument(latest, plan.timetable) if latest else None,
    )
    for dates in found:
        try:
            window = window_of_run(timetable=plan.timetable, dates=dates, offset=plan.offset)
        except WindowError:
            if dates.date >= end:
                return
            if dates.date >= begin:
                yield dates
            continue
        if window.start >= end:
            return
        if window.end > begin:
            yield dates


def planned_windows(
    runs: Iterable[RunDates], *, timetable: Any, zone: tzinfo, now: datetime, offset: timedelta | None = None
) -> list[PlannedWindow]:
    """Return the window of each DAG run, in the order of the DAG runs.

    :param zone: of the schedule, for local days.
    :param now: aware; windows that end later are marked as not over yet.
    :param offset: the task's `window_offset`.
    """
    planned = [_planned_window(dates, timetable=timetable, zone=zone, now=now, offset=offset) for dates in runs]
    with_window = [index for index, each in enumerate(planned) if each.window]
    for found in find_breaks([each.window for each in planned if each.window]):
        index = with_window[found.index]
        each = planned[index]
        notes = [f"{found.kind} of {length_text(found.length)}", each.note]
        planned[index] = replace(each, note="; ".join(filter(None, notes)), faults=(*each.faults, found.kind))
    return planned


def contiguity_text(planned: Sequence[PlannedWindow]) -> str:
    """Return a sentence with the number of windows, their range, and whether they are contiguous."""
    windows = [each.window for each in planned if each.window]
    counts = Counter(fault for each in planned for fault in each.faults)
    faults = ", ".join(
        f"{counts[kind]} {singular if counts[kind] == 1 else plural}"
        for kind, (singular, plural) in _FAULT_NAMES.items()
        if counts[kind]
    )
    if not windows:
        return f"{faults}."
    end = max(window.end for window in windows)
    noun, verb = ("window", "is") if len(windows) == 1 else ("windows", "are")
    subject = f"{len(windows)} {noun} from {iso(min(windows).start)} to {iso(end)}"
    return f"{subject}: {faults}." if faults else f"{subject} {verb} contiguous."


def _planned_window(
    dates: RunDates, *, timetable: Any, zone: tzinfo, now: datetime, offset: timedelta | None
) -> PlannedWindow:
    planned = PlannedWindow(run_after=dates.run_after, logical_date=dates.logical_date)
    try:
        window = window_of_run(timetable=timetable, dates=dates, offset=offset)
    except WindowError as error:
        return replace(planned, note=str(error), faults=("no window",))
    notes = [clock_change_note(window, zone=zone), "not over yet" if window.end > now else ""]
    return replace(planned, window=window, note="; ".join(filter(None, notes)))
