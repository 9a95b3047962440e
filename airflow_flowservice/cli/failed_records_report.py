# SPDX-License-Identifier: Apache-2.0
"""Report of `airflow flowservice failed-records`: error codes by their number of rows, and failed files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_flowservice.cli.output import print_line, print_rows
from airflow_flowservice.plain_text import clean_text

if TYPE_CHECKING:
    from airflow_flowservice.api.failed_records import DiagnosticFile, FailedRow
    from airflow_flowservice.api.models import FlowRun

MAX_CODES = 100
"""Maximum number of different codes; rows with further codes are counted together."""
EXAMPLE_LENGTH = 500
"""Maximum number of characters of an example."""
NO_CODE = "(no code)"
_SHOWN_FILES = 20


@dataclass(kw_only=True)
class ErrorCode:
    """Rows with one error code, and an example.

    :param example: JSON of the first row with this code, on one line and cut.
    """

    code: str
    message: str
    example: str = field(repr=False)
    rows: int = 0


@dataclass(kw_only=True)
class RowCounts:
    """Failed rows by error code, in bounded memory. A row with several codes counts for each.

    :param rows: number of rows.
    :param unreadable: lines that are no rows, or are too long.
    :param other: number of times that a code was not counted separately.
    """

    rows: int = 0
    unreadable: int = 0
    other: int = 0
    codes: dict[str, ErrorCode] = field(default_factory=dict)

    def add(self, row: FailedRow | None) -> None:
        """Count a row, or a line that is no row."""
        if row is None:
            self.unreadable += 1
            return
        self.rows += 1
        messages = {error.code or NO_CODE: error.message for error in reversed(row.errors)}
        for code, message in (messages or {NO_CODE: "no message"}).items():
            if code not in self.codes:
                if len(self.codes) == MAX_CODES:
                    self.other += 1
                    continue
                self.codes[code] = ErrorCode(code=code, message=message, example=_example(row))
            self.codes[code].rows += 1

    def by_count(self) -> list[ErrorCode]:
        """Return the codes, the most frequent first."""
        return sorted(self.codes.values(), key=lambda each: (-each.rows, each.code))


def _example(row: FailedRow) -> str:
    values = {name: value for name, value in row.values.items() if name != "_errors"}
    return clean_text(json.dumps(values, ensure_ascii=False), length=EXAMPLE_LENGTH)


@dataclass(frozen=True, kw_only=True)
class FailedRecordsReport:
    """Failed rows and files of one flow run.

    :param files_error: the error if the failed files could not be listed.
    :param is_cut: True if there may be more rows than the limit.
    :param output: file with the rows, if one was written.
    """

    run: FlowRun
    counts: RowCounts = field(default_factory=RowCounts)
    files: tuple[DiagnosticFile, ...] = ()
    files_error: str | None = None
    is_cut: bool = False
    output: str | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether Adobe has no failed row and no failed file."""
        return not (self.counts.rows or self.counts.unreadable or self.files)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "flow_run_id": self.run.id,
            "flow_id": self.run.flow_id,
            "status": self.run.status.value,
            "input_records": self.run.input_records,
            "failed_records": self.run.failed_records,
            "rows": self.counts.rows,
            "is_cut": self.is_cut,
            "codes": [
                {"code": each.code, "rows": each.rows, "message": each.message, "example": each.example}
                for each in self.counts.by_count()
            ],
            "other_codes": self.counts.other,
            "unreadable_lines": self.counts.unreadable,
            "failed_files": [{"batch_id": each.batch_id, "name": each.name, "bytes": each.size} for each in self.files],
            "failed_files_error": self.files_error,
            "output": self.output,
        }


def print_report(console: Any, report: FailedRecordsReport, *, output: str) -> None:
    """Print the report.

    :param console: of `airflow_console`.
    :param output: `table`, or `plain` for only the rows of the table.
    """
    codes = report.counts.by_count()
    rows = [{"code": each.code, "rows": f"{each.rows:,}", "message": each.message} for each in codes]
    if output == "plain":
        print_rows(console, rows, output=output)
        return
    print_line(console, summary_line(report.run))
    if rows:
        print_line(console)
        print_rows(console, rows)
        print_line(console)
        print_line(console, "An example of each:")
        for each in codes:
            print_line(console, f"  {each.code}  {each.example}")
    _print_files(console, report)
    print_line(console)
    print_line(console, _last_line(report))


def summary_line(run: FlowRun) -> str:
    """Return status and known counts of a flow run in one line."""
    counts = ((run.input_records, "read"), (run.output_records, "written"), (run.failed_records, "failed"))
    known = [f"{count:,} records {verb}" for count, verb in counts if count is not None]
    return ", ".join([f"Flow run {run.id} is {run.status_word or 'waiting'}", *known])


def _print_files(console: Any, report: FailedRecordsReport) -> None:
    if not report.files:
        return
    print_line(console)
    print_line(console, "Files that failed:")
    for each in report.files[:_SHOWN_FILES]:
        size = "" if each.size is None else f" ({each.size:,} bytes)"
        print_line(console, f"  {each.name}{size}, batch {each.batch_id}")
    if len(report.files) > _SHOWN_FILES:
        print_line(console, f"  and {len(report.files) - _SHOWN_FILES:,} more; --output json has all")


def _last_line(report: FailedRecordsReport) -> str:
    counts = report.counts
    if report.is_empty:
        return "No row and no file failed."
    first = "The first " if report.is_cut else ""
    parts = [f"{first}{counts.rows:,} failed row{'' if counts.rows == 1 else 's'}"]
    if report.files:
        parts.append(f"{len(report.files):,} failed file{'' if len(report.files) == 1 else 's'}")
    if counts.unreadable:
        parts.append(f"{counts.unreadable:,} unreadable line{'' if counts.unreadable == 1 else 's'}")
    if counts.other:
        parts.append(f"{counts.other:,} errors with other codes")
    written = f" The rows are in {report.output}." if report.output else ""
    return f"{', '.join(parts)}.{written}"
