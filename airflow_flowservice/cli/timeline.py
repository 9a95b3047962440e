"""A coverage for people: a bar of the time line, a table, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timezone
from itertools import groupby
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from airflow_flowservice.cli.report import WORDS
from airflow_flowservice.cli.table import shortest_form
from airflow_flowservice.coverage.cover import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from rich.console import Console

    from airflow_flowservice.cli.report import Report
    from airflow_flowservice.coverage.cover import Span
    from airflow_flowservice.windows.window import IngestionWindow

SIGNS = {
    State.INGESTED: "=",
    State.OUTSIDE: "o",
    State.RUNNING: ">",
    State.UNKNOWN: "?",
    State.MISSING: ".",
    State.FAILED: "x",
    State.TWICE: "2",
}
_STYLES = {
    State.INGESTED: "green",
    State.OUTSIDE: "cyan",
    State.RUNNING: "blue",
    State.UNKNOWN: "magenta",
    State.MISSING: "bold yellow",
    State.FAILED: "bold red",
    State.TWICE: "bold red",
}
# Of several states in one cell of the bar, the one that needs somebody is shown.
_URGENCY = (
    State.TWICE,
    State.FAILED,
    State.MISSING,
    State.UNKNOWN,
    State.RUNNING,
    State.OUTSIDE,
    State.INGESTED,
)
# These are told together when they follow each other; of the others each matters.
_ALIKE = frozenset({State.INGESTED, State.OUTSIDE, State.RUNNING, State.MISSING})
_LONGEST_BAR = 100


@dataclass(frozen=True, kw_only=True)
class Row:
    """Windows that follow each other and of which the same is to be said."""

    start: datetime
    end: datetime
    state: State
    windows: int
    note: str


def show(console: Console, report: Report) -> None:
    """Print everything."""
    spans = report.coverage.spans
    _print(console, _title(report))
    _print(console, "")
    width = min(console.width - 2, _LONGEST_BAR)
    bar = bar_of(spans, within=report.within, cells=width)
    console.print(Text.assemble("|", *((SIGNS[state], _STYLES[state]) if state else " " for state in bar), "|"))
    _print(console, _scale(report.within, width=width + 2))
    _print(console, "  ".join(f"{SIGNS[state]} {WORDS[state]}" for state in WORDS if state in set(bar)))
    _print(console, "")
    console.print(_table(rows_of(spans)))
    _print(console, "")
    _print(console, "Times are in UTC; a window does not include its end.")
    for line in _advice(report):
        _print(console, line)
    style = "bold green" if report.coverage.whole else "bold red"
    console.print(Text(report.verdict, style=style), soft_wrap=True)


def bar_of(spans: Iterable[Span], *, within: IngestionWindow, cells: int) -> list[State | None]:
    """The time line in so many cells; None where nothing is to be said."""
    bar: list[State | None] = [None] * cells
    for span in spans:
        first = int((span.window.start - within.start).total_seconds() * cells // within.seconds)
        last = int(-((within.start - span.window.end).total_seconds() * cells // within.seconds))
        for cell in range(first, max(min(last, cells), first + 1)):
            bar[cell] = _more_urgent(bar[cell], span.state)
    return bar


def rows_of(spans: Iterable[Span]) -> list[Row]:
    """A row for each span, or for several that follow each other and are alike."""
    rows: list[Row] = []
    for _, group in groupby(_numbered(spans), key=lambda numbered: numbered[0]):
        alike = [span for _, span in group]
        rows.append(
            Row(
                start=alike[0].window.start,
                end=alike[-1].window.end,
                state=alike[0].state,
                windows=len(alike),
                note=_note(alike),
            )
        )
    return rows


def _numbered(spans: Iterable[Span]) -> Iterator[tuple[int, Span]]:
    """Spans of one row have the same number."""
    number, before = 0, None
    for span in spans:
        alike = before is not None and before.state is span.state and before.window.meets(span.window)
        if not (alike and span.state in _ALIKE):
            number += 1
        yield number, span
        before = span


def _note(spans: Sequence[Span]) -> str:
    if spans[0].state is State.INGESTED:
        return ""
    runs = list(dict.fromkeys(run for span in spans for run in span.runs))
    dag_runs = list(dict.fromkeys(asked for span in spans for asked in span.asked if asked.dag_run_id))
    parts = [f"flow run {run.id} ({run.status.value.replace('_', ' ')})" for run in runs[:3]]
    parts += [f"and {len(runs) - 3} more"] if len(runs) > 3 else []
    if spans[0].state is State.MISSING and not dag_runs:
        return "no DAG run"
    if not runs:
        parts += [f"DAG run {asked.dag_run_id}, task {asked.task_state or 'not started'}" for asked in dag_runs[:3]]
        parts += [f"and {len(dag_runs) - 3} more"] if len(dag_runs) > 3 else []
    return "; ".join(parts)


def _more_urgent(one: State | None, other: State) -> State:
    return other if one is None else min(one, other, key=_URGENCY.index)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("from", "to"):
        table.add_column(name, no_wrap=True)
    table.add_column("windows", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("note", overflow="fold")
    utc = _moments(rows)
    for row in rows:
        state = Text(f"{SIGNS[row.state]} {WORDS[row.state]}", style=_STYLES[row.state])
        table.add_row(utc(row.start), utc(row.end), str(row.windows), state, Text(row.note))
    return table


def _moments(rows: Iterable[Row]) -> Callable[[datetime], str]:
    return shortest_form((moment for row in rows for moment in (row.start, row.end)), zone=timezone.utc)


def _title(report: Report) -> str:
    feeds = f"DAG {report.dag_id}" if report.dag_id else "Flow Service alone"
    return f"Dataflow {report.flow_id or 'unknown'}, {feeds}"


def _scale(within: IngestionWindow, *, width: int) -> str:
    utc = shortest_form((within.start, within.end), zone=timezone.utc)
    return f"{utc(within.start)}{utc(within.end):>{max(width - len(utc(within.start)), 1)}}"


def _advice(report: Report) -> Iterator[str]:
    if report.coverage.unplaced:
        yield ""
        yield (
            "Of these flow runs nobody knows the window, so one of them may hold a window that is shown as missing, or "
            "hold one again:"
        )
        yield from (f"  {run.id} ({run.status.value.replace('_', ' ')})" for run in report.coverage.unplaced)
    if report.fill:
        yield ""
        once = len(report.fill) == 1
        yield f"This fills what is missing or failed{'' if once else ', one after the other'}:"
        yield from (f"  {command}" for command in report.fill)
    if report.again:
        yield ""
        yield (
            "--reprocess-behavior runs all tasks of a DAG run again. These have succeeded and would ingest their "
            f"windows a second time, so clear the failed task alone instead: {', '.join(report.again)}"
        )
    if report.trigger:
        yield ""
        yield "No backfill makes exactly this, but a DAG run does (or, where a task failed, clearing it):"
        yield from (f"  {command}" for command in report.trigger)
    yield ""


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
