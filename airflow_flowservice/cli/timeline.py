# SPDX-License-Identifier: Apache-2.0
"""Print a coverage report: a time line, a table of windows, and commands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timezone
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.cli.coverage_report import STATE_NAMES, reason_of
from airflow_flowservice.cli.output import print_line, print_rows, shortest_format
from airflow_flowservice.coverage.cover import State
from airflow_flowservice.coverage.state_bar import bar_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from rich.console import Console

    from airflow_flowservice.cli.coverage_report import CoverageReport
    from airflow_flowservice.coverage.cover import ExpectedWindow, KnownRun, Span
    from airflow_flowservice.windows.window import IngestionWindow

SIGNS = {
    State.INGESTED: "=",
    State.OUTSIDE: "o",
    State.RUNNING: ">",
    State.UNKNOWN: "?",
    State.MISSING: ".",
    State.FAILED: "x",
    State.DUPLICATED: "2",
    State.RESTATED: "r",
}
STYLES = {
    State.INGESTED: "green",
    State.OUTSIDE: "cyan",
    State.RUNNING: "blue",
    State.UNKNOWN: "magenta",
    State.MISSING: "bold yellow",
    State.FAILED: "bold red",
    State.DUPLICATED: "bold red",
    State.RESTATED: "cyan",
}
# Contiguous windows of these states share a row; windows of the other states have a row each.
_GROUPED_STATES = frozenset({State.INGESTED, State.OUTSIDE, State.RUNNING, State.MISSING})
_MAX_CELLS = 100
_MAX_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class TimelineRow:
    """Contiguous windows with the same state and note."""

    start: datetime
    end: datetime
    state: State
    label: str
    windows: int
    note: str


def print_coverage(console: Any, report: CoverageReport, *, output: str = "table") -> None:
    """Print the report.

    :param console: of `output.airflow_console`.
    :param output: `table`, or `plain` for only the rows.
    """
    spans = report.coverage.spans
    rows = _table_rows(timeline_rows(spans))
    if output == "plain":
        print_rows(console, rows, output=output)
        return
    print_line(console, _title(report))
    print_line(console)
    _print_bar(console, spans, within=report.within)
    print_line(console)
    print_rows(console, rows)
    print_line(console, "Times are in UTC; a window does not include its end.")
    for line in _advice(report):
        print_line(console, line)
    print_line(console, Text(report.summary, style="bold green" if report.coverage.whole else "bold red"))


def timeline_rows(spans: Iterable[Span]) -> list[TimelineRow]:
    """Return a row for each span, or for several contiguous spans with the same label."""
    rows: list[TimelineRow] = []
    for _, group in groupby(_numbered(spans), key=lambda numbered: numbered[0]):
        grouped = [span for _, span in group]
        rows.append(
            TimelineRow(
                start=grouped[0].window.start,
                end=grouped[-1].window.end,
                state=grouped[0].state,
                label=label_of(grouped[0]),
                windows=len(grouped),
                note=_note(grouped),
            )
        )
    return rows


def label_of(span: Span) -> str:
    """Return the name of a span's state; spans ingested in part and scheduled spans have separate names."""
    if span.state is State.INGESTED and any(run.status is FlowRunStatus.PARTIAL_SUCCESS for run in span.runs):
        return "ingested in part"
    if span.state is State.RUNNING and _is_scheduled(span):
        return "scheduled"
    return STATE_NAMES[span.state]


def _is_scheduled(span: Span) -> bool:
    if span.runs:
        return all(run.status is FlowRunStatus.SCHEDULED for run in span.runs)
    return all(each.task_state in (None, "scheduled", "queued") for each in span.expected)


def _numbered(spans: Iterable[Span]) -> Iterator[tuple[int, Span]]:
    """Yield each span with the number of its row."""
    number, previous = 0, None
    for span in spans:
        continues = (
            previous is not None
            and span.state in _GROUPED_STATES
            and label_of(previous) == label_of(span)
            and previous.window.meets(span.window)
        )
        number += not continues
        yield number, span
        previous = span


def _note(spans: Sequence[Span]) -> str:
    if label_of(spans[0]) == STATE_NAMES[State.INGESTED]:
        return ""
    runs = list(dict.fromkeys(run for span in spans for run in span.runs))
    if runs:
        return _listed([f"flow run {_run_text(run)}" for run in runs])
    of_dag_runs = list(dict.fromkeys(each for span in spans for each in span.expected if each.dag_run_id))
    reason = reason_of(spans[0])
    if of_dag_runs:
        return _listed([*(_task_text(each) for each in of_dag_runs), *([reason] if reason else [])])
    return "no DAG run" if spans[0].state is State.MISSING else reason or ""


def _listed(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - _MAX_LISTED} more"] if len(texts) > _MAX_LISTED else []
    return "; ".join([*texts[:_MAX_LISTED], *more])


def _run_text(run: KnownRun) -> str:
    status = run.status.value.replace("_", " ")
    replaced = ", replaced on request" if run.replaced else ""
    replaced += f" of {run.replaced_by}" if run.replaced and run.replaced_by else ""
    return f"{run.id} ({status}{replaced})"


def _task_text(expected: ExpectedWindow) -> str:
    return f"DAG run {expected.dag_run_id}, task {expected.task_state or 'not started'}"


def _table_rows(rows: Sequence[TimelineRow]) -> list[dict[str, Any]]:
    utc = shortest_format((instant for row in rows for instant in (row.start, row.end)), zone=timezone.utc)
    return [
        {
            "from": utc(row.start),
            "to": utc(row.end),
            "windows": str(row.windows),
            "state": Text(f"{SIGNS[row.state]} {row.label}", style=STYLES[row.state]),
            "note": row.note,
        }
        for row in rows
    ]


def _title(report: CoverageReport) -> str:
    without_dag = "Flow Service and ledger" if report.from_ledger else "Flow Service only"
    source = f"DAG {report.dag_id}" if report.dag_id else without_dag
    return f"Dataflow {report.flow_id or 'unknown'}, {source}"


def _print_bar(console: Console, spans: Iterable[Span], *, within: IngestionWindow) -> None:
    """Print the time line, its scale and the signs that it uses."""
    cells = min(console.width - 2, _MAX_CELLS)
    bar = bar_of(spans, within=within, cells=cells)
    print_line(console, Text.assemble("|", *((SIGNS[state], STYLES[state]) if state else " " for state in bar), "|"))
    utc = shortest_format((within.start, within.end), zone=timezone.utc)
    start, end = utc(within.start), utc(within.end)
    print_line(console, f"{start}{end:>{max(cells + 2 - len(start), 1)}}")
    print_line(console, "  ".join(f"{SIGNS[state]} {STATE_NAMES[state]}" for state in STATE_NAMES if state in set(bar)))


def _advice(report: CoverageReport) -> Iterator[str]:
    """Yield notices, runs without a window, and commands that fill the gaps, with a blank line before each part."""
    for notice in report.notices:
        yield ""
        yield notice
    if report.coverage.unplaced:
        yield ""
        yield "Flow Service reported no window for these runs; each may cover a window listed as missing or ingested:"
        yield from (f"  {_run_text(run)}" for run in report.coverage.unplaced)
    if report.fill_command:
        yield ""
        yield "To ingest the missing and failed windows, after a preview:"
        yield f"  {report.fill_command}"
    if report.fill:
        yield ""
        order = ", one after the other" if len(report.fill) > 1 else ""
        start = (
            "Or with Airflow's commands or REST API"
            if report.fill_command
            else "To ingest the missing and failed windows"
        )
        yield f"{start}{order}:"
        yield from _with_requests(report.fill, report.requests)
    if report.again:
        yield ""
        yield (
            "--reprocess-behavior runs all tasks of a DAG run again. These tasks succeeded and would ingest their "
            f"windows a second time, so clear only the failed task instead: {', '.join(report.again)}"
        )
    if report.trigger:
        yield ""
        yield "No backfill creates exactly these windows. Trigger these DAG runs (or clear the failed task):"
        yield from _with_requests(report.trigger, report.requests[len(report.fill) :])
    yield ""


def _with_requests(commands: Sequence[str], requests: Sequence[str]) -> Iterator[str]:
    """Yield each command, and the request to Airflow's REST API that does the same."""
    for command, request in zip(commands, requests, strict=False):
        yield f"  {command}"
        yield f"    {request}"
