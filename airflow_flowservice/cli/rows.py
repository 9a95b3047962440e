"""What the command `windows` shows: a row for each DAG run, and a verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow.choose_window import window_of_run
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.contiguity import clock_change_note, find_breaks, length_text
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta, tzinfo

    from airflow_flowservice.windows.schedule import RunDates
    from airflow_flowservice.windows.window import IngestionWindow


@dataclass(frozen=True, kw_only=True)
class Row:
    """A DAG run and its window.

    :param window: None if the run has none; then the note says why.
    :param faults: what keeps the windows from tiling here: `gap`, `overlap`, `no window`.
    """

    run_after: datetime
    logical_date: datetime | None
    window: IngestionWindow | None = None
    note: str = ""
    faults: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; times as in the XCom `flow_run`."""
        window = self.window
        return {
            "run_after": iso(self.run_after),
            "logical_date": iso(self.logical_date) if self.logical_date else None,
            "window_start": iso(window.start) if window else None,
            "window_end": iso(window.end) if window else None,
            "seconds": window.seconds if window else None,
            "note": self.note,
        }


def rows_of(
    runs: Iterable[RunDates], *, timetable: Any, zone: tzinfo, now: datetime, offset: timedelta | None = None
) -> list[Row]:
    """A row for each run, in the runs' order.

    :param zone: of the schedule, for local days.
    :param now: aware; windows that end later are not over yet.
    :param offset: the task's `window_offset`.
    """
    rows = [_row(dates, timetable=timetable, zone=zone, now=now, offset=offset) for dates in runs]
    with_window = [index for index, row in enumerate(rows) if row.window]
    for found in find_breaks([row.window for row in rows if row.window]):
        index = with_window[found.index]
        before = f"{found.kind} of {length_text(found.length)}"
        note = f"{before}; {rows[index].note}" if rows[index].note else before
        rows[index] = replace(rows[index], note=note, faults=(*rows[index].faults, found.kind))
    return rows


def verdict_of(rows: Sequence[Row]) -> str:
    """One line: how many windows, from when to when, and whether they tile."""
    windows = [row.window for row in rows if row.window]
    faults = Counter(fault for row in rows for fault in row.faults)
    found = [
        _count(faults[kind], name)
        for kind, name in (("gap", "gap"), ("overlap", "overlap"), ("no window", "run without a window"))
        if faults[kind]
    ]
    faulty = ", ".join(found)
    if not windows:
        return f"{faulty}."
    whole = f"{_count(len(windows), 'window')} from {iso(min(windows).start)} to {iso(max(w.end for w in windows))}"
    if faulty:
        return f"{whole}: {faulty}."
    return f"{whole} {'tile' if len(windows) > 1 else 'tiles'}."


def _row(dates: RunDates, *, timetable: Any, zone: tzinfo, now: datetime, offset: timedelta | None) -> Row:
    row = Row(run_after=dates.run_after, logical_date=dates.logical_date)
    try:
        window = window_of_run(timetable=timetable, dates=dates, offset=offset)
    except WindowError as error:
        return replace(row, note=str(error), faults=("no window",))
    notes = [clock_change_note(window, zone=zone), "not over yet" if window.end > now else ""]
    return replace(row, window=window, note="; ".join(filter(None, notes)))


def _count(number: int, name: str) -> str:
    if number == 1:
        return f"1 {name}"
    head, _, rest = name.partition(" ")
    return f"{number} {head}s{f' {rest}' if rest else ''}"
