# SPDX-License-Identifier: Apache-2.0
"""Command `airflow flowservice fill`: create the DAG runs that ingest missing and failed windows."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from airflow_flowservice._airflow import backfill_commands, dag_coverage, fill_actions, timetables, versions
from airflow_flowservice.cli.coverage_command import coverage_range, found_runs, read_history
from airflow_flowservice.cli.fill_report import BATCHES_A_DAY, FillReport, count_of
from airflow_flowservice.cli.fill_runner import FillRunner
from airflow_flowservice.cli.metadata_session import metadata_session
from airflow_flowservice.cli.output import (
    CommandError,
    airflow_console,
    print_line,
    print_rows,
    quiet_retries,
    quiet_stdout,
    write_document,
    write_error,
    write_note,
)
from airflow_flowservice.coverage.cover import GAP_STATES, State
from airflow_flowservice.coverage.fill_plan import (
    MARGIN,
    RESTATED_STATES,
    FillOptions,
    count_unknown,
    plan_fill,
    widened_range,
)
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.chunks import ChunkLength
from airflow_flowservice.windows.window import EPOCH, IngestionWindow

if TYPE_CHECKING:
    import argparse

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.cli.coverage_command import DagRecords
    from airflow_flowservice.coverage.cover import Coverage
    from airflow_flowservice.coverage.fill_plan import FillStep

_INTERRUPTED = 130


def fill(arguments: argparse.Namespace) -> NoReturn:
    """Fill the gaps of a range, and exit: 0 if nothing is left to fill, 1 if something is, 2 if nothing can be filled.

    With `--dry-run`, the exit status is 1 if there is something to fill.
    """
    try:
        _require_options(arguments)
        with quiet_stdout(), quiet_retries():
            planner = _Planner(arguments)
            report = planner.report()
    except CommandError as error:
        write_error(error)
        sys.exit(2)
    _write_notes(report, arguments)
    if not report.windows:
        _show(report, arguments, filled=0)
        sys.exit(0)
    if not arguments.dry_run and arguments.output in ("table", "plain"):
        _show(report, arguments, filled=0)
    if arguments.dry_run or not _is_confirmed(report, arguments):
        if arguments.dry_run:
            _show(report, arguments, filled=0)
        else:
            write_note("nothing was changed, because the number was not confirmed")
        sys.exit(1)
    sys.exit(_run(planner, report, arguments))


def _require_options(arguments: argparse.Namespace) -> None:
    """Raise an error if the options contradict each other.

    :raises CommandError: they do.
    """
    if arguments.restate and arguments.include_unknown:
        raise CommandError("--restate ingests only windows that are ingested: omit --include-unknown")
    if arguments.restate and arguments.yes:
        raise CommandError("--yes does not confirm --restate: give --confirm-restate N with the number of DAG runs")
    if arguments.confirm_restate is not None and not arguments.restate:
        raise CommandError("--confirm-restate confirms only --restate")
    is_document = arguments.output in ("json", "yaml")
    if is_document and not (arguments.dry_run or arguments.yes or arguments.confirm_restate is not None):
        raise CommandError(f"--output {arguments.output} cannot ask for confirmation: give --dry-run or --yes")


class _Planner:
    """Reader of the records from which the steps of a fill are planned.

    :raises CommandError: there is no such DAG, it has several dataflows, or the ledger cannot be read.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self.within = coverage_range(arguments.from_date, arguments.to_date)
        # The state of a window across an edge of the range depends on time outside of the range.
        self._around = IngestionWindow(max(self.within.start - MARGIN, EPOCH), self.within.end + MARGIN)
        self._chunk = _chunk_of(arguments.chunk)
        self._records = self._read()
        self._found: list[FlowRun] = []
        if arguments.conn_id is not None:
            self._found, _ = found_runs(self._records.flow_id, conn_id=arguments.conn_id, within=self._around)
        self._coverage = self._read_coverage()

    def report(self) -> FillReport:
        """Return the plan for all windows.

        :raises CommandError: the DAG has no window in the range.
        """
        arguments = self._arguments
        if not any(span.window.overlaps(self.within) for span in self._coverage.spans):
            raise CommandError(
                f"DAG {arguments.dag_id!r} has no window in {self.within}: it has no DAG run there, and its schedule "
                "has no DAG run that is over. Move --from or --to"
            )
        counts_unknown = not (arguments.restate or arguments.include_unknown)
        return FillReport(
            dag_id=arguments.dag_id,
            flow_id=self._records.flow_id,
            within=self.within,
            steps=tuple(self._plan(self._options())),
            now=versions.utc_now(),
            max_active_runs=arguments.max_active_runs,
            unknown=count_unknown(self._coverage, within=self.within) if counts_unknown else 0,
            unplaced=len(self._coverage.unplaced),
            paused=self._is_paused(),
            restate=arguments.restate,
            chunk=None if self._chunk is None else str(self._chunk),
        )

    def read_steps(self, only: frozenset[IngestionWindow]) -> list[FillStep]:
        """Read the records again, and return the steps for the given windows.

        :raises CommandError: the records cannot be read.
        """
        with quiet_stdout(), quiet_retries():
            self._records = self._read()
            self._coverage = self._read_coverage()
            return self._plan(replace(self._options(), only=only))

    def _is_paused(self) -> bool:
        with metadata_session() as session:
            return fill_actions.is_paused(session, self._arguments.dag_id)

    def _plan(self, options: FillOptions) -> list[FillStep]:
        return plan_fill(self._coverage, dag_id=self._arguments.dag_id, options=options)

    def _options(self) -> FillOptions:
        arguments = self._arguments
        unknown = {State.UNKNOWN} if arguments.include_unknown else set()
        return FillOptions(
            states=RESTATED_STATES if arguments.restate else frozenset(GAP_STATES | unknown),
            within=self.within,
            succeeded=backfill_commands.succeeded_tasks(
                self._records.all_rows, dag_id=arguments.dag_id, any_state=arguments.restate
            ),
            chunk=self._chunk,
            zone=timetables.zone_of(self._records.plan.timetable),
            restate=arguments.restate,
            flow_id=self._records.flow_id,
        )

    def _read(self) -> DagRecords:
        records = read_history(self._arguments, within=self._around)
        if records.records.error is not None:
            raise CommandError(
                f"the ledger cannot be read, so no window is known to be missing: {records.records.error}"
            )
        return records

    def _read_coverage(self) -> Coverage:
        return self._cover(widened_range(self._cover(self.within), self.within))

    def _cover(self, within: IngestionWindow) -> Coverage:
        return dag_coverage.coverage_of(
            self._records.rows,
            plans=[self._records.plan],
            within=within,
            now=versions.utc_now(),
            found=self._found,
            records=self._records.records,
        )


def _chunk_of(text: str | None) -> ChunkLength | None:
    try:
        return None if text is None else ChunkLength.parse(text)
    except WindowError as error:
        raise CommandError(f"--chunk: {error.message}; {error.remedy}") from error


def _write_notes(report: FillReport, arguments: argparse.Namespace) -> None:
    if report.unknown:
        write_note(
            f"{report.unknown} windows with an unknown outcome are not filled; --include-unknown fills them, and may "
            "ingest data a second time"
        )
    if report.unplaced and not report.restate:
        write_note(
            f"{report.unplaced} flow runs have no known window, so each may have ingested a window that would be "
            "filled; `coverage` lists them"
        )
    if len(report.windows) > BATCHES_A_DAY:
        remedy = "--chunk, such as --chunk 1mo," if report.chunk is None else "A longer --chunk"
        write_note(
            f"{len(report.windows)} flow runs create at least as many batches. Adobe's guardrail for Profile is "
            f"{BATCHES_A_DAY} batches a day for each sandbox. {remedy} needs fewer flow runs"
        )
    if report.windows and report.paused:
        write_note(f"DAG {report.dag_id!r} is paused, so its DAG runs stay queued until you unpause it")


def _show(report: FillReport, arguments: argparse.Namespace, *, filled: int) -> None:
    if arguments.output in ("json", "yaml"):
        write_document({**report.to_dict(), "filled": filled}, output=arguments.output)
        return
    console = airflow_console()
    if not report.windows:
        if arguments.output == "table":
            print_line(console, "No window is ingested." if report.restate else "There is no gap to fill.")
        return
    print_rows(console, report.rows(), output=arguments.output)
    if arguments.output == "plain":
        return
    print_line(console, "Times are in UTC; a window does not include its end.")
    print_line(console)
    print_line(console, "The same by Airflow's REST API:")
    for request in report.requests():
        print_line(console, f"  {request}")
    print_line(console)
    print_line(console, f"This would {report.dag_runs_text}.")


def _is_confirmed(report: FillReport, arguments: argparse.Namespace) -> bool:
    """Return whether the user confirms the number of DAG runs."""
    count = len(report.windows)
    if arguments.yes:
        return True
    if arguments.confirm_restate is not None:
        return bool(arguments.confirm_restate == count)
    expected = f"restate {count}" if report.restate else str(count)
    purpose = "ingest the windows again" if report.restate else "continue"
    sys.stderr.write(f"Type {expected} to {purpose}: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() == expected


def _run(planner: _Planner, report: FillReport, arguments: argparse.Namespace) -> int:
    """Fill the windows, and return the exit status."""
    runner = FillRunner(
        read_steps=planner.read_steps,
        dag_id=report.dag_id,
        now=report.now,
        max_active_runs=arguments.max_active_runs,
    )
    status = 0
    try:
        with quiet_stdout():
            runner.run(report.windows)
    except KeyboardInterrupt:
        write_note("interrupted; the same command continues with the windows that are still open")
        status = _INTERRUPTED
    except fill_actions.FillRefusedError as error:
        write_error(CommandError(f"Airflow refused a step: {error}"))
        status = 1
    except CommandError as error:
        write_error(error)
        status = 1
    filled, total = len(runner.filled), count_of(report.steps)
    if arguments.output in ("json", "yaml"):
        write_document({**report.to_dict(), "filled": filled}, output=arguments.output)
    elif arguments.output == "table":
        print_line(airflow_console(), f"{filled} of {total} DAG runs were created or run again.")
    if status == 0 and filled < total:
        write_note(f"{total - filled} windows were no longer open, or another process fills them")
    return status
