# SPDX-License-Identifier: Apache-2.0
"""Verify that commands print text from outside without escape sequences and additional lines."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

import pytest

from airflow_flowservice.api.models import Flow, FlowRun
from airflow_flowservice.checks import findings
from airflow_flowservice.cli.check_command import finding_printer
from airflow_flowservice.cli.coverage_report import CoverageReport
from airflow_flowservice.cli.output import CommandError, airflow_console, print_line, write_error, write_note
from airflow_flowservice.cli.timeline import print_coverage
from airflow_flowservice.coverage.cover import ExpectedWindow, cover, known_runs
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
WINDOW = IngestionWindow(BEGIN, BEGIN + timedelta(days=1))
EVIL = "\x1b[2J\x1b]0;title\x07 \r\nok           forged\x9b31m\u2028"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def of_newest_run() -> findings.Finding:
    errors = [{"code": EVIL, "message": EVIL}]
    raw = {"id": EVIL, "metrics": {"statusSummary": {"status": f"failed{EVIL}", "errors": errors}}}
    return findings.of_newest_run(FlowRun.parse(raw))


@pytest.mark.parametrize(
    "finding",
    [
        of_newest_run(),
        next(findings.of_flow(Flow.parse({"id": EVIL, "name": EVIL}), needs_delta_column=None)),
        findings.note("settings", f"extra has unknown keys: {EVIL}", remedy=EVIL),
    ],
    ids=["run", "flow", "connection"],
)
def test_check_prints_one_line_for_a_finding(finding):
    stream = io.StringIO()
    finding_printer(stream)(finding)
    [line] = stream.getvalue().splitlines()
    assert line.isprintable()
    assert "forged" in line


def test_check_prints_only_its_own_escape_sequences_in_a_terminal():
    stream = Terminal()
    finding_printer(stream)(of_newest_run())
    foreign = ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u2028", "\r")
    assert [text for text in foreign if text in stream.getvalue()] == []


@pytest.mark.parametrize("output", ["table", "plain"])
def test_coverage_prints_no_foreign_escape_sequences(output):
    """Ids of flow runs come from XComs, and ids of DAG runs from Airflow's database."""
    summary = FlowRunSummary.from_json(
        {
            "id": f"run{EVIL}",
            "status": "failed",
            "window_start": "2026-01-01T00:00:00Z",
            "window_end": "2026-01-02T00:00:00Z",
        }
    )
    expected = [ExpectedWindow(window=WINDOW, dag_id="daily", dag_run_id=f"manual{EVIL}", task_state=f"failed{EVIL}")]
    coverage = cover(expected, known_runs([summary]), within=WINDOW)
    report = CoverageReport(within=WINDOW, coverage=coverage, dag_id=f"daily{EVIL}", flow_id=EVIL)
    stream = io.StringIO()
    print_coverage(airflow_console(file=stream), report, output=output)
    lines = stream.getvalue().split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("ok ") for line in lines)


def test_messages_of_commands(capsys):
    """An error may have several lines, which list the choices; each of them is printable."""
    write_error(CommandError("choose:\n  a\x1b[2J\n  b\x9b"))
    write_note("note\x07")
    assert capsys.readouterr().err == "Error: choose:\n  a\ufffd[2J\n  b\ufffd\nNote: note\ufffd\n"


def test_line_with_line_breaks_is_one_line():
    stream = io.StringIO()
    print_line(airflow_console(file=stream), EVIL)
    assert stream.getvalue().count("\n") == 1
