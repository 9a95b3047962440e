# SPDX-License-Identifier: Apache-2.0
"""Commands `airflow flowservice ledger export|forget|import|migrate`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice.cli.metadata_session import metadata_session
from airflow_flowservice.cli.output import (
    CommandError,
    airflow_console,
    print_line,
    print_rows,
    quiet_stdout,
    write_document,
    write_error,
    write_note,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_flowservice.ledger.entry import LedgerEntry
    from airflow_flowservice.ledger.store import Ledger
    from airflow_flowservice.windows.window import IngestionWindow

DEFAULT_CONN_ID = "flowservice_default"
JSON_LINES = "jsonl"
_MAX_LISTED = 20


def ledger_command(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], NoReturn]:
    """Return a command that exits with the status of a function, or with 2 after an error."""

    @wraps(run)
    def command(arguments: argparse.Namespace) -> NoReturn:
        from airflow_flowservice.exceptions import FlowServiceError

        try:
            status = run(arguments)
        except CommandError as error:
            write_error(error)
            sys.exit(2)
        except FlowServiceError as error:
            write_error(CommandError(str(error)))
            sys.exit(2)
        sys.exit(status)

    return command


@ledger_command
def migrate(arguments: argparse.Namespace) -> int:
    """Create or upgrade the tables, and exit with 0."""
    from airflow_flowservice._airflow import ledgers

    with quiet_stdout():
        conn_id = arguments.ledger_conn_id or _configured_ledger(arguments.conn_id)
        done = ledgers.stored_sql_ledger(conn_id).migrate() if conn_id else None
    if done is None:
        return _report_no_migration(arguments)
    change = {None: "created", done.after: "up to date"}.get(done.before, "upgraded")
    result = {"ledger_conn_id": conn_id, "result": change, "before": done.before, "after": done.after}
    if arguments.output in ("json", "yaml"):
        write_document(result, output=arguments.output)
    else:
        print_line(airflow_console(), f"The ledger's tables in {conn_id!r} are {change} (version {done.after}).")
    return 0


def _report_no_migration(arguments: argparse.Namespace) -> int:
    if arguments.output in ("json", "yaml"):
        result = {"ledger_conn_id": None, "result": "not needed", "before": None, "after": None}
        write_document(result, output=arguments.output)
    else:
        print_line(airflow_console(), "The ledger is in Airflow's Variables, which need no migration.")
    write_note("for a ledger in a SQL database, give --ledger-conn-id, or set ledger_conn_id")
    return 0


@ledger_command
def export(arguments: argparse.Namespace) -> int:
    """Print the entries, and exit with 0, or with 2 if there is none."""
    with quiet_stdout(), opened_ledger(arguments) as ledger:
        entries = list(_entries(ledger, arguments, within=range_of(arguments, is_required=False)))
    if not entries:
        raise CommandError("the ledger has no entry that matches the arguments")
    if arguments.output == JSON_LINES:
        for entry in entries:
            sys.stdout.write(f"{json.dumps(entry.to_json())}\n")
    else:
        _show(entries, output=arguments.output)
    return 0


@ledger_command
def forget(arguments: argparse.Namespace) -> int:
    """Remove entries; without `--confirm`, only show them.

    Exit with 0 if all were removed or shown, 1 if one changed meanwhile, 2 if there is none.
    """
    with quiet_stdout(), opened_ledger(arguments) as ledger:
        within = range_of(arguments, is_required=True)
        overlapping = list(_entries(ledger, arguments, within=within))
        entries = [each for each in overlapping if within.start <= each.window.start and each.window.end <= within.end]
        _require_one_dataflow(overlapping)
        changed = _remove(ledger, entries) if arguments.confirm else []
    if not entries:
        raise CommandError(
            f"the ledger has no entry of {arguments.flow_id!r} whose window is in {within}"
            + (f"; {len(overlapping)} overlap only a part of it" if overlapping else "")
        )
    _show(entries, output=arguments.output)
    if len(overlapping) > len(entries):
        write_note(f"{len(overlapping) - len(entries)} windows are only in part between the dates, and are kept")
    if not arguments.confirm:
        write_note("nothing was removed; to remove these entries, add --confirm")
    elif changed:
        write_note(f"{len(changed)} entries changed meanwhile and were kept: run the command again")
    return 1 if changed else 0


@ledger_command
def import_entries(arguments: argparse.Namespace) -> int:
    """Store entries that the ledger does not have; without `--confirm`, only count them.

    Exit with 0 if all are stored, or can be; 1 if the ledger has a different entry for a window; 2 for invalid input.
    """
    if arguments.from_history == (arguments.file is not None):
        raise CommandError("give either a file of `ledger export`, or --from-history")
    if arguments.dag_id is not None and not arguments.from_history:
        raise CommandError("--dag-id requires --from-history")
    with quiet_stdout():
        entries = _history(arguments) if arguments.from_history else _read_entries(arguments.file)
        is_equal = _is_same_flow_run if arguments.from_history else _is_same_entry
        with opened_ledger(arguments) as ledger:
            counts = Counter(_import_all(ledger, entries, confirm=arguments.confirm, is_equal=is_equal))
    result = {name: counts[name] for name in ("new", "equal", "different")}
    if arguments.output in ("json", "yaml"):
        write_document(result, output=arguments.output)
    else:
        print_rows(airflow_console(), [{name: str(value) for name, value in result.items()}], output=arguments.output)
    if not arguments.confirm:
        write_note("nothing was stored; to store the new entries, add --confirm")
    if counts["different"]:
        write_note("the ledger's entries of the different windows are kept; see `ledger export`")
    return 1 if counts["different"] else 0


def _history(arguments: argparse.Namespace) -> list[LedgerEntry]:
    """Return the entries of the successful flow runs in Airflow's history.

    :raises CommandError: there is none.
    """
    from airflow_flowservice._airflow import database, versions
    from airflow_flowservice._airflow.ledger_history import ledger_history

    dag_ids = None if arguments.dag_id is None else [arguments.dag_id]
    with metadata_session() as session:
        rows = database.task_rows(session, dag_ids=dag_ids)
        history = ledger_history(rows, now=versions.utc_now().timestamp())
    if history.omitted:
        write_note(
            f"{len(history.omitted)} successful flow runs have no entry, because their XCom does not show dataflow, "
            f"window, organization or sandbox: {', '.join(sorted(history.omitted)[:_MAX_LISTED])}"
        )
    if history.repeated:
        write_note(f"{len(history.repeated)} windows have several successful flow runs; the last one is used")
    if not history.entries:
        raise CommandError("Airflow's history has no successful flow run")
    return list(history.entries.values())


@contextmanager
def opened_ledger(arguments: argparse.Namespace) -> Iterator[Ledger]:
    """Return the ledger in the SQL database that the arguments or the configuration name, else that in Variables.

    :raises CommandError: the ledger is disabled, or Airflow's metadata database cannot be used.
    """
    from airflow_flowservice._airflow import ledgers, metadata_ledger, versions

    conn_id = arguments.ledger_conn_id or _configured_ledger(arguments.conn_id)
    if conn_id is not None:
        yield ledgers.stored_sql_ledger(conn_id)
    elif versions.setting("ledger") == "none":
        raise CommandError(
            "the ledger is disabled: the option [flowservice] ledger is `none`. For a ledger in a SQL database, give "
            "--ledger-conn-id"
        )
    else:
        with metadata_session() as session:
            yield metadata_ledger.StoredLedger(session)


def _configured_ledger(conn_id: str | None) -> str | None:
    from airflow_flowservice._airflow import connections, ledgers
    from airflow_flowservice.exceptions import ConfigurationError

    try:
        extra = connections.stored_connection(conn_id or DEFAULT_CONN_ID).extra_dejson
    except ConfigurationError:
        if conn_id is not None:
            raise
        extra = None  # the default connection does not have to exist
    return ledgers.ledger_conn_id(extra)


def range_of(arguments: argparse.Namespace, *, is_required: bool) -> IngestionWindow | Any:
    """Return the range of `--from` and `--to`; None if both are optional and missing.

    :raises CommandError: the range is empty or reversed.
    """
    from airflow_flowservice.exceptions import WindowError
    from airflow_flowservice.windows.window import EPOCH, IngestionWindow

    start, end = arguments.from_date, arguments.to_date
    if start is None and end is None and not is_required:
        return None
    try:
        return IngestionWindow(start or EPOCH, end or datetime(9999, 12, 31, tzinfo=timezone.utc))
    except WindowError as error:
        raise CommandError(f"--from and --to are no valid range: {error.message}") from error


def _entries(ledger: Ledger, arguments: argparse.Namespace, *, within: IngestionWindow | None) -> Iterator[LedgerEntry]:
    for entry in ledger.entries(within=within):
        dataflow = entry.dataflow
        is_of_flow = arguments.flow_id in (None, dataflow.flow_id, dataflow.canonical.flow_id)
        if is_of_flow and arguments.sandbox in (None, dataflow.sandbox):
            yield entry


def _require_one_dataflow(entries: Iterable[LedgerEntry]) -> None:
    dataflows = sorted({entry.dataflow.canonical for entry in entries})
    if len(dataflows) > 1:
        listed = "".join(f"\n  {dataflow}" for dataflow in dataflows)
        raise CommandError(f"several dataflows have this id. Choose one with --sandbox:{listed}")


def _remove(ledger: Ledger, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Remove the entries, and return those that another process changed."""
    from airflow_flowservice.exceptions import LedgerConflictError

    changed = []
    for entry in entries:
        try:
            ledger.remove(entry)
        except LedgerConflictError:
            changed.append(entry)
    return changed


def _read_entries(file: str) -> list[LedgerEntry]:
    """Return the entries of a file with JSON lines.

    :raises CommandError: the file cannot be read or has no entry, or a line is none; nothing is stored.
    """
    from airflow_flowservice.ledger.entry import LedgerEntry

    entries = []
    with _opened(file) as lines:
        for number, line in enumerate(lines, start=1):
            # Some editors write a byte order mark.
            text = line.strip().removeprefix("\ufeff")
            if not text:
                continue
            try:
                entry = LedgerEntry.from_json(json.loads(text))
            except (ValueError, RecursionError):
                entry = None
            if entry is None:
                raise CommandError(f"line {number} of {file} is no entry of `ledger export`")
            entries.append(entry)
    if not entries:  # for instance since the command before a pipe failed
        raise CommandError(f"{file} has no entry")
    return entries


@contextmanager
def _opened(file: str) -> Iterator[Iterable[str]]:
    if file == "-":
        yield sys.stdin
        return
    try:
        with open(file, encoding="utf-8") as opened:
            yield opened
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read ({type(error).__name__})") from error


def _import_all(
    ledger: Ledger,
    entries: Sequence[LedgerEntry],
    *,
    confirm: bool,
    is_equal: Callable[[LedgerEntry, LedgerEntry], bool],
) -> Iterator[str]:
    """Store the entries that the ledger does not have, and yield `new`, `equal` or `different` for each."""
    from airflow_flowservice.exceptions import LedgerConflictError

    known = {each.key: each for each in ledger.entries({entry.dataflow for entry in entries})}
    for entry in entries:
        stored = known.get(entry.key)
        if stored is None and confirm:
            try:
                known[entry.key] = ledger.put(replace(entry, version=0))
                yield "new"
                continue
            except LedgerConflictError:
                stored = ledger.get(*entry.key)
        if stored is None:
            yield "new"
        else:
            yield "equal" if is_equal(stored, entry) else "different"


def _is_same_entry(stored: LedgerEntry, entry: LedgerEntry) -> bool:
    return replace(stored, version=entry.version) == entry


def _is_same_flow_run(stored: LedgerEntry, entry: LedgerEntry) -> bool:
    return entry.flow_run_id in (stored.flow_run_id, *(run.flow_run_id for run in stored.earlier))


def _show(entries: Sequence[LedgerEntry], *, output: str) -> None:
    if output in ("json", "yaml"):
        write_document([entry.to_json() for entry in entries], output=output)
        return
    console = airflow_console()
    print_rows(console, [_row(entry) for entry in entries], output=output)
    if output == "table":
        print_line(console)
        print_line(console, f"{len(entries)} entries. Times are in UTC; a window does not include its end.")


def _row(entry: LedgerEntry) -> dict[str, str]:
    from airflow_flowservice.windows.window import iso

    return {
        "dataflow": entry.dataflow.flow_id,
        "sandbox": entry.dataflow.sandbox,
        "from": iso(entry.window.start),
        "to": iso(entry.window.end),
        "state": entry.state.value,
        "flow_run": entry.flow_run_id or "",
        "owner": entry.owner,
    }
