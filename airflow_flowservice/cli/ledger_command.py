"""Commands `airflow flowservice ledger ...`: create the tables of the SQL ledger, and export, import and forget."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

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
    from airflow_flowservice.ledger.sql_ledger import SqlLedger
    from airflow_flowservice.ledger.store import Ledger
    from airflow_flowservice.windows.window import IngestionWindow

DEFAULT_CONN_ID = "flowservice_default"
JSON_LINES = "jsonl"


def _command(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], NoReturn]:
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


@_command
def migrate(arguments: argparse.Namespace) -> int:
    """Create or upgrade the tables, and exit with 0."""
    with quiet_stdout():
        conn_id, ledger = _ledger(arguments)
        done = ledger.migrate()
    change = {None: "created", done.after: "up to date"}.get(done.before, "upgraded")
    result = {"ledger_conn_id": conn_id, "result": change, "before": done.before, "after": done.after}
    if arguments.output in ("json", "yaml"):
        write_document(result, output=arguments.output)
    else:
        print_line(airflow_console(), f"The ledger's tables in {conn_id!r} are {change} (version {done.after}).")
    return 0


@_command
def export(arguments: argparse.Namespace) -> int:
    """Print the entries, and exit with 0, or with 2 if there is none."""
    with quiet_stdout():
        _, ledger = _ledger(arguments)
        within = _within(arguments, is_required=False)
        entries = _entries(ledger, arguments, within=within)
        first = next(entries, None)
    if first is None:
        raise CommandError("the ledger has no entry that matches the arguments")
    entries = _chain(first, entries)
    if arguments.output == JSON_LINES:
        for entry in entries:
            sys.stdout.write(f"{json.dumps(entry.to_json())}\n")
    else:
        _show(list(entries), output=arguments.output)
    return 0


@_command
def forget(arguments: argparse.Namespace) -> int:
    """Remove entries; without `--confirm`, only show them.

    Exit with 0 if all were removed or shown, 1 if one changed meanwhile, 2 if there is none.
    """
    with quiet_stdout():
        _, ledger = _ledger(arguments)
        within = _within(arguments, is_required=True)
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


@_command
def import_entries(arguments: argparse.Namespace) -> int:
    """Store the entries of an export that the ledger does not have; without `--confirm`, only count them.

    Exit with 0 if all are stored, or can be; 1 if the ledger has a different entry for a window; 2 for invalid input.
    """
    with quiet_stdout():
        _, ledger = _ledger(arguments)
        entries = _read_entries(arguments.file)
        counts = Counter(_import_one(ledger, entry, confirm=arguments.confirm) for entry in entries)
    result = {name: counts[name] for name in ("new", "equal", "different")}
    if arguments.output in ("json", "yaml"):
        write_document(result, output=arguments.output)
    else:
        print_rows(airflow_console(), [{name: str(value) for name, value in result.items()}], output=arguments.output)
    if not arguments.confirm:
        write_note("nothing was stored; to store the new entries, add --confirm")
    if counts["different"]:
        write_note("the ledger's entries of the different windows are kept; see `airflow flowservice ledger export`")
    return 1 if counts["different"] else 0


def _ledger(arguments: argparse.Namespace) -> tuple[str, SqlLedger]:
    """Return the ledger's connection id and the ledger.

    :raises CommandError: no SQL ledger is configured.
    """
    from airflow_flowservice._airflow import ledgers

    conn_id = arguments.ledger_conn_id or _configured_ledger(arguments.conn_id)
    if conn_id is None:
        raise CommandError(
            "no SQL ledger is configured: give --ledger-conn-id, or set ledger_conn_id in the extra of the Flow "
            "Service connection, or the option [flowservice] ledger_conn_id"
        )
    return conn_id, ledgers.stored_sql_ledger(conn_id)


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


def _within(arguments: argparse.Namespace, *, is_required: bool) -> IngestionWindow | Any:
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
        if arguments.flow_id in (None, dataflow.flow_id) and arguments.sandbox in (None, dataflow.sandbox):
            yield entry


def _chain(first: LedgerEntry, rest: Iterator[LedgerEntry]) -> Iterator[LedgerEntry]:
    yield first
    yield from rest


def _require_one_dataflow(entries: Iterable[LedgerEntry]) -> None:
    dataflows = sorted({entry.dataflow for entry in entries})
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

    :raises CommandError: the file cannot be read, or a line is no entry; nothing is stored.
    """
    from airflow_flowservice.ledger.entry import LedgerEntry

    entries = []
    with _opened(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = LedgerEntry.from_json(json.loads(line))
            except ValueError:
                entry = None
            if entry is None:
                raise CommandError(f"line {number} of {file} is no entry of `airflow flowservice ledger export`")
            entries.append(entry)
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


def _import_one(ledger: Ledger, entry: LedgerEntry, *, confirm: bool) -> str:
    """Store an entry if the ledger has none of its window, and return `new`, `equal` or `different`."""
    from airflow_flowservice.exceptions import LedgerConflictError

    stored = ledger.get(*entry.key)
    if stored is None and confirm:
        try:
            ledger.put(replace(entry, version=0))
            return "new"
        except LedgerConflictError:
            stored = ledger.get(*entry.key)
    if stored is None:
        return "new"
    return "equal" if replace(stored, version=entry.version) == entry else "different"


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
