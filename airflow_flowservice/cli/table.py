"""The rows of the command `windows` as a table for people."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from airflow_flowservice.cli.rows import verdict_of
from airflow_flowservice.windows.contiguity import length_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import tzinfo

    from rich.console import Console

    from airflow_flowservice.cli.rows import Row

# Below this, a column more would leave no room for notes.
_WIDE = 100


def show(console: Console, rows: Sequence[Row], *, zone: tzinfo) -> None:
    """Print the table, what its times mean, and the verdict.

    :param zone: the schedule's; on a wide console the runs are shown in its local time too.
    """
    elsewhere = any(row.run_after.astimezone(zone).utcoffset() for row in rows)
    console.print(_table(rows, local=zone if elsewhere and console.width >= _WIDE else None))
    console.print()
    for line in _legend(rows, zone=zone if elsewhere else None):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    good = not any(row.faults for row in rows)
    console.print(Text(verdict_of(rows), style="bold green" if good else "bold red"), soft_wrap=True)


def _table(rows: Sequence[Row], *, local: tzinfo | None) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("run", *(["run, local"] if local else []), "window start", "window end"):
        table.add_column(name, no_wrap=True)
    table.add_column("length", justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    utc = shortest_form((moment for row in rows for moment in _moments(row)), zone=timezone.utc)
    there = shortest_form((row.run_after for row in rows), zone=local) if local else None
    for row in rows:
        runs = [utc(row.run_after), *([there(row.run_after)] if there else [])]
        note = Text(row.note, style="red" if row.faults else "yellow")
        if window := row.window:
            length = length_text(timedelta(seconds=window.seconds))
            table.add_row(*runs, utc(window.start), utc(window.end), length, note)
        else:
            table.add_row(*runs, "none", "", "", note)
    return table


def _legend(rows: Sequence[Row], *, zone: tzinfo | None) -> Iterator[str]:
    yield "Times are in UTC; a window does not include its end."
    if zone is not None:
        yield f"The schedule's time zone is {zone}."
    if any(row.logical_date is None for row in rows):
        yield "A partitioned run has its partition's date here, as in a backfill."


def _moments(row: Row) -> tuple[datetime, ...]:
    return (row.run_after, row.window.start, row.window.end) if row.window else (row.run_after,)


def shortest_form(moments: Iterable[datetime], *, zone: tzinfo) -> Callable[[datetime], str]:
    """The shortest form that tells all of the moments: dates if all are midnights, else to the minute or second."""
    times = {moment.astimezone(zone).strftime("%H:%M:%S") for moment in moments}
    if times == {"00:00:00"}:
        form = "%Y-%m-%d"
    else:
        form = "%Y-%m-%d %H:%M" if all(time.endswith(":00") for time in times) else "%Y-%m-%d %H:%M:%S"
    return lambda moment: moment.astimezone(zone).strftime(form)
