# SPDX-License-Identifier: Apache-2.0
"""`airflow flowservice failed-records`: show which rows of a flow run failed, and why."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice.cli.output import (
    CommandError,
    airflow_console,
    quiet_retries,
    quiet_stdout,
    write_document,
    write_error,
    write_note,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from airflow_flowservice.api.failed_records import DiagnosticFile, FailedRecords, FailedRow
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.cli.failed_records_report import FailedRecordsReport, RowCounts

    Write = Callable[[bytes], Any]
    Advance = Callable[[int], Any]

_FORMATS = ("table", "json", "yaml", "plain")
# As shells report a process that SIGINT ended.
_INTERRUPTED = 130
# The progress bar is drawn after each of these steps.
_STEP_BYTES = 65_536
_ENABLE_DIAGNOSTICS = (
    "enable error diagnostics on the dataflow (in Experience Platform: Sources, Dataflows, the dataflow, Update "
    "dataflow, Dataflow detail), then clear the task, whose next flow run has them. If they are enabled, the rows are "
    "older than 30 days, or the flow run failed before it read a row"
)


def failed_records(arguments: argparse.Namespace) -> NoReturn:
    """Print the failed rows by code and exit: 0 if none failed, 1 if some did, 2 if there is nothing to show."""
    from airflow_flowservice.exceptions import FlowServiceError

    try:
        with quiet_stdout(), quiet_retries():
            report = _report(arguments)
    except (CommandError, FlowServiceError) as error:
        write_error(CommandError(str(error)))
        sys.exit(2)
    except KeyboardInterrupt:
        write_error(CommandError("interrupted; no file was written"))
        sys.exit(_INTERRUPTED)
    output = arguments.format or arguments.output
    if arguments.format:
        write_note("--format is deprecated; use --output")
    if output in ("json", "yaml"):
        write_document(report.to_dict(), output=output)
    else:
        from airflow_flowservice.cli.failed_records_report import print_report

        print_report(airflow_console(), report, output=output)
    if report.files_error:
        write_note(f"The files that failed could not be listed: {report.files_error}")
    sys.exit(0 if report.is_empty else 1)


def _report(arguments: argparse.Namespace) -> FailedRecordsReport:
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.hooks import client_of

    limit, output = arguments.limit, None if arguments.file is None else Path(arguments.file)
    if limit is not None and limit < 1:
        raise CommandError(f"--limit is {limit}; give a number from 1 on")
    if output is not None:
        _require_new_or_regular(output)
    with client_of(connections.stored_connection(arguments.conn_id)) as client:
        report = _read(client.failed_records(arguments.flow_run_id), limit=limit, output=output)
    if report.is_empty:
        _require_no_failure(report.run)
    return report


def _read(records: FailedRecords, *, limit: int | None, output: Path | None) -> FailedRecordsReport:
    """Read the failed rows, one at a time, and list the failed files."""
    from airflow_flowservice.cli.failed_records_report import FailedRecordsReport, RowCounts

    counts = RowCounts()
    row_files = records.row_files()
    failed_files, files_error = _failed_files(records, has_rows=bool(row_files))
    file: AbstractContextManager[Write | None] = nullcontext() if output is None else _complete_file(output)
    is_cut = False
    with file as write, _progress(row_files) as advance:
        for row in _rows(records, row_files, advance=advance):
            if limit is not None and counts.rows == limit:
                is_cut = True
                break
            _add(row, counts=counts, write=write)
    return FailedRecordsReport(
        run=records.run,
        counts=counts,
        files=tuple(failed_files),
        files_error=files_error,
        is_cut=is_cut,
        output=str(output) if output is not None and counts.rows else None,
    )


def _failed_files(records: FailedRecords, *, has_rows: bool) -> tuple[list[DiagnosticFile], str | None]:
    """Return the files that failed, and the error if they cannot be listed and there are failed rows to show."""
    from airflow_flowservice.exceptions import ApiError

    try:
        return records.failed_files(), None
    except ApiError as error:
        if not has_rows:
            raise
        return [], str(error)


def _rows(records: FailedRecords, files: Sequence[DiagnosticFile], *, advance: Advance) -> Iterator[FailedRow | None]:
    for file in files:
        received = 0
        with closing(records.rows(file)) as rows:
            for row in rows:
                yield row
                received += 0 if row is None else len(row.line) + 1
                if received >= _STEP_BYTES:
                    advance(received)
                    received = 0
        advance(received)


def _add(row: FailedRow | None, *, counts: RowCounts, write: Write | None) -> None:
    counts.add(row)
    if row is not None and write is not None:
        write(row.line + b"\n")


def _require_no_failure(run: FlowRun) -> None:
    """Raise if the flow run has not ended, or if records failed that Adobe does not list.

    :raises CommandError: the message states the reason and the remedy.
    """
    from airflow_flowservice.api.models import FlowRunStatus
    from airflow_flowservice.cli.failed_records_report import summary_line

    if not run.status.ended:
        raise CommandError(f"{summary_line(run)}: it has not ended. Run this command again after its end")
    if run.status is FlowRunStatus.SUCCESS and not run.failed_records:
        return
    if run.status is FlowRunStatus.PARTIAL_SUCCESS and run.failed_records == 0:
        return
    errors = "".join(f"\n  {error}" for error in run.errors)
    reported = f" The flow run reports:{errors}\n" if errors else " "
    raise CommandError(
        f"{summary_line(run)}: Adobe has no list of its failed rows.{reported}What to do: {_ENABLE_DIAGNOSTICS}"
    )


# --- the output file ---


def _require_new_or_regular(path: Path) -> None:
    """Raise unless the file can be created or replaced.

    :raises CommandError: the path is a format, a folder or a device, or its folder does not exist.
    """
    if str(path) == "-":
        raise CommandError("--file - is not a file; rows are written only to a file, which only its owner can read")
    if str(path) in _FORMATS:
        raise CommandError(f"--file is a file for the failed rows; for the format, use --output {path}")
    try:
        if not path.parent.is_dir():
            raise CommandError(f"--file {path}: the folder {path.parent} does not exist")
        is_regular = stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise CommandError(f"--file {path} cannot be written: {getattr(error, 'strerror', error)}") from error
    if not is_regular:
        raise CommandError(f"--file {path} is not a regular file; name a new file, or one that can be replaced")


@contextmanager
def _complete_file(path: Path) -> Iterator[Write]:
    """Create a file that only its owner can read, and that appears under its name when it is complete.

    After an error, and if nothing was written, there is no file.

    :raises CommandError: the file cannot be written.
    """
    try:
        # `mkstemp` creates the file with mode 0600.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".failed-records-", suffix=".part")
    except OSError as error:
        raise CommandError(f"--file {path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
            is_empty = file.tell() == 0
        if not is_empty:
            os.replace(temporary, path)
    except OSError as error:
        raise CommandError(f"--file {path} cannot be written: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def _progress(files: Sequence[DiagnosticFile]) -> Iterator[Advance]:
    """Show a progress bar on standard error if it is a terminal; yield a function that adds downloaded bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:  # Some releases of rich end also a disabled progress bar with a line break.
        yield lambda received: None
        return
    sizes = [file.size for file in files if file.size is not None]
    total = sum(sizes) if len(sizes) == len(files) else None
    columns = (TextColumn("Downloading failed rows"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda received: progress.advance(task, received)
