# SPDX-License-Identifier: Apache-2.0
"""Commands `airflow flowservice coverage --all` and `freshness`: one row for each dataflow, the worst first."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from rich.text import Text

from airflow_flowservice.cli.metadata_session import metadata_session
from airflow_flowservice.cli.output import (
    CommandError,
    airflow_console,
    output_format,
    print_line,
    print_rows,
    quiet_stdout,
    write_document,
    write_error,
    write_note,
)
from airflow_flowservice.cli.time_length import length_of
from airflow_flowservice.coverage.cover import State
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from airflow_flowservice._airflow.fleet_reader import Fleet
    from airflow_flowservice.coverage.fleet import DagStatus, DataflowStatus

_MOST_DAGS = 2


def show_all(arguments: argparse.Namespace) -> NoReturn:
    """Print the coverage of all dataflows and exit: 0 if it is complete, 1 if not, 2 if there is nothing to show."""
    try:
        if arguments.dag_id or arguments.task_id or arguments.from_date or arguments.to_date:
            raise CommandError("--all shows all dataflows up to now: omit --dag-id, --task-id, --from and --to")
        flow_ids = None if arguments.flow_id is None else [arguments.flow_id]
        with quiet_stdout():
            fleet = _read(arguments, since=length_of(arguments.since or "366d", name="since"), flow_ids=flow_ids)
    except CommandError as error:
        write_error(error)
        sys.exit(2)
    _emit_metrics(fleet, arguments)
    output = output_format(arguments)
    if output in ("json", "yaml"):
        write_document({**_document(fleet), "whole": not _wrong(fleet)}, output=output)
    else:
        console = airflow_console()
        print_rows(console, [_coverage_row(row, now=fleet.within.end) for row in fleet.rows], output=output)
        if output == "table":
            print_line(console, _legend(fleet))
            print_line(console, Text(_summary(fleet), style="bold red" if _wrong(fleet) else "bold green"))
    _exit(fleet, is_wrong=_wrong(fleet))


def freshness(arguments: argparse.Namespace) -> NoReturn:
    """Print the lag of dataflows and exit: 0 if all are fresh, 1 if one lags more, 2 if there is nothing to show."""
    try:
        max_lag = length_of(arguments.max_lag, name="max-lag")
        if bool(arguments.flow_id) is bool(arguments.all):
            raise CommandError("give --flow-id, or --all for all dataflows")
        since = max(length_of(arguments.since, name="since"), 2 * max_lag)
        with quiet_stdout():
            fleet = _read(arguments, since=since, flow_ids=arguments.flow_id)
    except CommandError as error:
        write_error(error)
        sys.exit(2)
    _emit_metrics(fleet, arguments)
    late = {row.key for row in fleet.rows if row.is_late(max_lag)}
    rows = sorted(fleet.rows, key=lambda row: (row.key not in late, -(row.lag or timedelta(0))))
    output = output_format(arguments)
    if output in ("json", "yaml"):
        dataflows = [{**row.to_json(), "late": row.key in late} for row in rows]
        max_lag_s = int(max_lag.total_seconds())
        write_document(
            {**_document(fleet), "max_lag_seconds": max_lag_s, "fresh": not late, "dataflows": dataflows},
            output=output,
        )
    else:
        console = airflow_console()
        print_rows(console, [_freshness_row(row, is_late=row.key in late) for row in rows], output=output)
        if output == "table":
            text = f"{len(late)} of {len(rows)} dataflows lag more than {arguments.max_lag}."
            print_line(console, Text(text, style="bold red" if late else "bold green"))
    _exit(fleet, is_wrong=bool(late))


def _read(arguments: argparse.Namespace, *, since: timedelta, flow_ids: Collection[str] | None) -> Fleet:
    from airflow_flowservice._airflow import fleet_reader, versions
    from airflow_flowservice.exceptions import FlowServiceError

    now = versions.utc_now()
    try:
        with metadata_session() as session:
            fleet = fleet_reader.read_fleet(
                session,
                now=now,
                since=now - since,
                conn_id=arguments.conn_id,
                tag=getattr(arguments, "tag", None),
                flow_ids=flow_ids,
            )
    except FlowServiceError as error:
        raise CommandError(str(error)) from error
    missing = set(flow_ids or ()) - {row.key.flow_id for row in fleet.rows}
    if missing:
        raise CommandError(f"no record has the dataflow {', '.join(sorted(missing))}: check --flow-id and --conn-id")
    if not fleet.rows:
        raise CommandError(
            "no dataflow is known: no DAG has a task of this package, and the ledger has no entry. Check --conn-id and "
            "--tag, and run this command with the scheduler's configuration"
        )
    return fleet


def _emit_metrics(fleet: Fleet, arguments: argparse.Namespace) -> None:
    """Set the gauges of each dataflow, if `--metrics` is given. A value that is not known is omitted."""
    from airflow_flowservice._airflow import metrics, versions

    if not arguments.metrics:
        return
    versions.start_stats()
    for row in fleet.rows:
        if row.lag is not None:
            metrics.dataflow_gauge("lag_seconds", int(row.lag.total_seconds()), key=row.key)
        # Without the ledger, no window is known to be missing.
        if fleet.error is None:
            metrics.dataflow_gauge("windows.missing", row.counts.get(State.MISSING, 0), key=row.key)


def _document(fleet: Fleet) -> dict[str, Any]:
    return {
        "from": iso(fleet.within.start),
        "to": iso(fleet.within.end),
        "ledger_read": fleet.error is None,
        "warnings": list(fleet.warnings),
        "dataflows": [row.to_json() for row in fleet.rows],
    }


def _wrong(fleet: Fleet) -> bool:
    return any(row.is_wrong for row in fleet.rows)


def _exit(fleet: Fleet, *, is_wrong: bool) -> NoReturn:
    for warning in fleet.warnings:
        write_note(f"warning: a connection that no task uses, or its ledger, cannot be read. {warning}")
    if fleet.error is not None:
        write_note(f"the ledger could not be read, so the result is incomplete; the exit status is 2. {fleet.error}")
        sys.exit(2)
    sys.exit(1 if is_wrong else 0)


def _coverage_row(row: DataflowStatus, *, now: datetime) -> dict[str, Any]:
    from airflow_flowservice.cli.timeline import SIGNS, STYLES

    bar = Text.assemble("|", *((SIGNS[state], STYLES[state]) if state else " " for state in row.bar), "|")
    state = Text(*_state_text(row))
    counts = {name: str(row.counts.get(state_of) or "") for name, state_of in _COUNTS.items()}
    if row.has_more:
        counts["missing"] += "+" if counts["missing"] else ""
    return {
        "state": state,
        "dataflow": row.name or row.key.flow_id,
        "sandbox": row.key.sandbox or "unknown",
        "DAGs": _dags_text(row),
        "last window end": _minute(row.last.end) if row.last else "never",
        "lag": lag_text(row.lag),
        "next due": _minute(row.next_due) if row.next_due else "",
        **counts,
        "time": bar,
    }


_COUNTS = {
    "missing": State.MISSING,
    "failed": State.FAILED,
    "duplicated": State.DUPLICATED,
    "running": State.RUNNING,
    "unknown": State.UNKNOWN,
}


def _freshness_row(row: DataflowStatus, *, is_late: bool) -> dict[str, Any]:
    return {
        "result": Text("late", style="bold red") if is_late else Text("ok", style="green"),
        "dataflow": row.name or row.key.flow_id,
        "sandbox": row.key.sandbox or "unknown",
        "DAGs": _dags_text(row),
        "last window end": _minute(row.last.end) if row.last else "never",
        "lag": lag_text(row.lag),
        "note": row.lag_note,
    }


def _state_text(row: DataflowStatus) -> tuple[str, str]:
    from airflow_flowservice.cli.coverage_report import STATE_NAMES
    from airflow_flowservice.cli.timeline import SIGNS, STYLES

    if row.state is None:
        return "  no window", ""
    return f"{SIGNS[row.state]} {STATE_NAMES[row.state]}", STYLES[row.state]


def _dags_text(row: DataflowStatus) -> str:
    texts = [f"{dag.dag_id}{_dag_note(dag)}" for dag in row.dags[:_MOST_DAGS]]
    more = len(row.dags) - _MOST_DAGS
    return ", ".join([*texts, *([f"and {more} more"] if more > 0 else [])])


def _dag_note(dag: DagStatus) -> str:
    if dag.is_stale:
        return " (deleted or broken)"
    notes = [*(["paused"] if dag.is_paused else []), *([] if dag.is_decoded else ["schedule unreadable"])]
    return f" ({', '.join(notes)})" if notes else ""


def lag_text(lag: timedelta | None) -> str:
    """Return a lag such as `2d 03h`; a question mark if it is not known."""
    if lag is None:
        return "?"
    minutes = int(lag.total_seconds()) // 60
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    return f"{days}d {hours:02}h" if days else f"{hours}h {rest:02}m"


def _minute(instant: datetime) -> str:
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M")


def _legend(fleet: Fleet) -> str:
    from airflow_flowservice.cli.coverage_report import STATE_NAMES
    from airflow_flowservice.cli.timeline import SIGNS

    states = {state for row in fleet.rows for state in row.bar}
    signs = "  ".join(f"{SIGNS[state]} {STATE_NAMES[state]}" for state in STATE_NAMES if state in states)
    return f"Time: {_minute(fleet.within.start)} to {_minute(fleet.within.end)} UTC  {signs}"


def _summary(fleet: Fleet) -> str:
    wrong = sum(row.is_wrong for row in fleet.rows)
    text = f"{wrong} of {len(fleet.rows)} dataflows have missing, failed or duplicated windows."
    if wrong:
        text += " To see the windows of one: airflow flowservice coverage --dag-id D --from DATE --to DATE"
    return text
