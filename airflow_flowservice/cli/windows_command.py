# SPDX-License-Identifier: Apache-2.0
"""Command `airflow flowservice windows`: preview the window of each DAG run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice.cli.output import (
    CommandError,
    airflow_console,
    output_format,
    print_line,
    print_rows,
    quiet_stdout,
    shortest_format,
    write_document,
    write_error,
    write_note,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import tzinfo

    from airflow_flowservice.cli.planned_windows import PlannedWindow
    from airflow_flowservice.windows.schedule import RunDates

# On a narrower terminal, another column leaves no space for notes.
_WIDE_TERMINAL = 110


@dataclass(frozen=True, kw_only=True)
class _WindowSettings:
    """Arguments of a task that change its windows.

    :param offset: the task's `window_offset`.
    :param since_last_success: True if a window starts at the end of the last successful window.
    """

    offset: timedelta | None = None
    since_last_success: bool = False

    def __str__(self) -> str:
        return f"window_offset={self.offset}, window={'since_last_success' if self.since_last_success else 'period'}"


def windows(arguments: argparse.Namespace) -> NoReturn:
    """Print the windows and exit: 0 if they are contiguous, 1 if they are not, 2 if there is nothing to show."""
    try:
        with quiet_stdout():
            planned, zone = _planned(arguments)
    except CommandError as error:
        write_error(error)
        sys.exit(2)
    output = output_format(arguments)
    if output in ("json", "yaml"):
        write_document([each.to_dict() for each in planned], output=output)
    else:
        print_windows(airflow_console(), planned, zone=zone, output=output)
    sys.exit(1 if any(each.faults for each in planned) else 0)


def print_windows(console: Any, planned: Sequence[PlannedWindow], *, zone: tzinfo, output: str = "table") -> None:
    """Print the windows as rows; below a table also a legend and a summary.

    :param zone: of the schedule. A wide console also shows the DAG runs in this time zone.
    :param output: `table` or `plain`.
    """
    from rich.text import Text

    from airflow_flowservice.cli.planned_windows import contiguity_text

    has_offset = any(each.run_after.astimezone(zone).utcoffset() for each in planned)
    local = zone if has_offset and console.width >= _WIDE_TERMINAL else None
    print_rows(console, _rows(planned, local=local), output=output)
    if output == "plain":
        return
    for line in _legend(planned, zone=zone if has_offset else None):
        print_line(console, line)
    style = "bold red" if any(each.faults for each in planned) else "bold green"
    print_line(console, Text(contiguity_text(planned), style=style))


def _planned(arguments: argparse.Namespace) -> tuple[list[PlannedWindow], tzinfo]:
    from airflow_flowservice._airflow import choose_window, versions
    from airflow_flowservice.cli.dag_file import read_dag
    from airflow_flowservice.cli.planned_windows import planned_windows, timetable_of

    dag = read_dag(_dag_id(arguments), path=arguments.dagfile_path, bundle_names=arguments.bundle_name)
    timetable = timetable_of(dag)
    settings = _window_settings_of(dag, task_id=arguments.task_id)
    runs = _runs(arguments, dag=dag, timetable=timetable, offset=settings.offset if settings else None)
    if settings is None:
        write_note(f"DAG {dag.dag_id!r} has no OnDemandFlowRunOperator; these are the windows it would use")
    settings = settings or _WindowSettings()
    if settings.since_last_success:
        write_note(
            "with window='since_last_success', a window starts at the end of the last successful window, and backfills "
            "are refused"
        )
    if remedy := choose_window.future_window_remedy(timetable, offset=settings.offset):
        write_note(f"DAG runs start before their windows are over, and are refused until then: {remedy}")
    zone = _zone(dag, timetable)
    now = versions.utc_now()
    return planned_windows(runs, timetable=timetable, zone=zone, now=now, offset=settings.offset), zone


def _window_settings_of(dag: Any, *, task_id: str | None = None) -> _WindowSettings | None:
    """Return the common settings of the DAG's tasks that create flow runs; None if there are no such tasks.

    :param task_id: return the settings of this task.
    :raises CommandError: the tasks differ, there is no such task, or a task sets its window explicitly.
    """
    from airflow_flowservice.operators import OnDemandFlowRunOperator

    tasks = {task.task_id: task for task in dag.tasks if issubclass(_class_of(task), OnDemandFlowRunOperator)}
    if task_id is not None:
        if task_id not in tasks:
            raise CommandError(
                f"DAG {dag.dag_id!r} has no OnDemandFlowRunOperator {task_id!r}; it has: {', '.join(tasks) or 'none'}"
            )
        tasks = {task_id: tasks[task_id]}
    settings = {name: None if _sets_window(task) else _settings(task) for name, task in tasks.items()}
    if len(set(settings.values())) > 1:
        listed = "".join(f"\n  {name}: {each or 'has window_start and window_end'}" for name, each in settings.items())
        raise CommandError(
            f"the tasks of DAG {dag.dag_id!r} have different windows. Choose one with --task-id:{listed}"
        )
    if None in settings.values():
        raise CommandError(
            f"window_start and window_end are arguments of {' and '.join(map(repr, settings))} in DAG {dag.dag_id!r}, "
            "so its windows do not depend on its DAG runs"
        )
    return next(iter(settings.values()), None)


def _class_of(task: Any) -> type:
    return getattr(task, "operator_class", None) or type(task)


def _sets_window(task: Any) -> bool:
    names = ("window_start", "window_end")
    return any(name in _mapped(task) or _argument(task, name) is not None for name in names)


def _settings(task: Any) -> _WindowSettings:
    for name in ("window_offset", "window"):
        if name in _mapped(task):
            raise CommandError(f"{task.task_id!r} maps {name}, so a DAG run has several windows")
    return _WindowSettings(
        offset=_argument(task, "window_offset") or None,
        since_last_success=_argument(task, "window") == "since_last_success",
    )


def _argument(task: Any, name: str) -> Any:
    if not hasattr(task, "partial_kwargs"):
        return getattr(task, name, None)
    sources = (task.partial_kwargs, getattr(task.task_group, "default_args", None) or {}, task.dag.default_args or {})
    return next((source[name] for source in sources if name in source), None)


def _mapped(task: Any) -> set[str]:
    """Return the names of the arguments that have a different value for each map index."""
    values = getattr(getattr(task, "expand_input", None), "value", None) or {}
    if isinstance(values, dict):
        return set(values)
    if not isinstance(values, list | tuple):
        return set()
    dictionaries: list[Mapping[str, Any]] = [value for value in values if isinstance(value, dict)]
    return {name for dictionary in dictionaries for name in dictionary}


def _dag_id(arguments: argparse.Namespace) -> str:
    if arguments.positional_dag_id:
        write_note("a DAG id without --dag-id is deprecated; use --dag-id")
    named = {each for each in (arguments.dag_id, arguments.positional_dag_id) if each}
    if len(named) == 1:
        return str(named.pop())
    raise CommandError("give one DAG by --dag-id")


def _runs(arguments: argparse.Namespace, *, dag: Any, timetable: Any, offset: timedelta | None) -> list[RunDates]:
    """Return the DAG runs of the windows between --from and --to, or those of a backfill."""
    from airflow_flowservice._airflow.dag_plan import Plan
    from airflow_flowservice.cli.planned_windows import runs_between, runs_of_windows

    begin, end = arguments.from_date, arguments.to_date
    earliest, latest = arguments.first_date, arguments.last_date
    if begin and end and not (earliest or latest):
        if arguments.positional_dag_id:
            write_note("--from and --to are a range of time; the dates of a backfill are --from-date and --to-date")
        plan = Plan(dag_id=dag.dag_id, timetable=timetable, offset=offset, start=_start(dag))
        runs = runs_of_windows(plan, begin=begin, end=end)
        for note in _notes_of_schedule(dag, timetable, runs):
            write_note(note)
        return runs
    if earliest and latest and not (begin or end):
        return runs_between(timetable, earliest=earliest, latest=latest)
    raise CommandError("give --from and --to, or --from-date and --to-date of a backfill")


def _start(dag: Any) -> datetime | None:
    """Return the earliest start of the DAG and its tasks, from which Airflow counts a `timedelta`."""
    starts = (dag.start_date, *(task.start_date for task in dag.tasks))
    return min((start for start in starts if start is not None), default=None)


def _notes_of_schedule(dag: Any, timetable: Any, runs: Sequence[RunDates]) -> Iterator[str]:
    """Yield sentences about DAG runs that the scheduler does not create, or not at these dates."""
    from airflow_flowservice._airflow import timetables
    from airflow_flowservice.windows.schedule import DeltaSchedule

    if isinstance(timetables.parse_timetable(timetable)[0], DeltaSchedule) and not dag.catchup:
        yield (
            "with catchup=False, the scheduler counts a timedelta from the time of its first DAG run; these are the "
            "windows of a backfill that begins at the first date"
        )
    start = _start(dag)
    dates = [each.logical_date or each.run_after for each in runs]
    if start is not None and any(date < start for date in dates):
        yield f"the scheduler creates no DAG runs before {start.isoformat()}, the start_date; a backfill may"
    if dag.end_date is not None and any(date > dag.end_date for date in dates):
        yield f"the scheduler creates no DAG runs after {dag.end_date.isoformat()}, the end_date; a backfill may"


def _zone(dag: Any, timetable: Any) -> tzinfo:
    from airflow_flowservice._airflow import timetables

    schedule, _ = timetables.parse_timetable(timetable)
    crons = getattr(schedule, "schedules", (schedule,))
    zone: tzinfo = getattr(crons[0], "zone", None) or dag.timezone
    return zone


def _rows(planned: Sequence[PlannedWindow], *, local: tzinfo | None) -> list[dict[str, Any]]:
    from rich.text import Text

    from airflow_flowservice.windows.contiguity import length_text

    utc = shortest_format((instant for each in planned for instant in _instants(each)), zone=timezone.utc)
    in_zone = shortest_format((each.run_after for each in planned), zone=local) if local else None
    # A backfill's dates are logical dates, which differ from the starts of the DAG runs in some timetables.
    differ = _have_other_logical_dates(planned)
    return [
        {
            **({"logical_date": utc(each.logical_date or each.run_after)} if differ else {}),
            "run_after" if differ else "run": utc(each.run_after),
            **({"run_local": in_zone(each.run_after)} if in_zone else {}),
            "window_start": utc(each.window.start) if each.window else "none",
            "window_end": utc(each.window.end) if each.window else "",
            "length": length_text(timedelta(seconds=each.window.seconds)) if each.window else "",
            "note": Text(each.note, style="red" if each.faults else "yellow"),
        }
        for each in planned
    ]


def _legend(planned: Sequence[PlannedWindow], *, zone: tzinfo | None) -> Iterator[str]:
    yield "Times are in UTC; a window does not include its end."
    if zone is not None:
        yield f"The schedule's time zone is {zone}."
    if _have_other_logical_dates(planned):
        yield "The dates of a backfill are logical dates; a DAG run starts after run_after."
    if any(each.logical_date is None for each in planned):
        yield "For a partitioned DAG run, the dates are partition dates, as in a backfill."


def _have_other_logical_dates(planned: Sequence[PlannedWindow]) -> bool:
    return any(each.logical_date not in (None, each.run_after) for each in planned)


def _instants(planned: PlannedWindow) -> tuple[datetime, ...]:
    window = planned.window
    dates = (planned.run_after, planned.logical_date or planned.run_after)
    return (*dates, window.start, window.end) if window else dates
