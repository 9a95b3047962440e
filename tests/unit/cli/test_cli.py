# SPDX-License-Identifier: Apache-2.0
"""Commands of the command line: imports, arguments, and the output of `windows`."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice.cli import get_flowservice_cli_commands
from airflow_flowservice.cli.output import airflow_console, output_format
from airflow_flowservice.cli.planned_windows import PlannedWindow, contiguity_text, planned_windows
from airflow_flowservice.cli.windows_command import print_windows
from airflow_flowservice.windows.schedule import RunDates
from airflow_flowservice.windows.window import IngestionWindow

UTC = timezone.utc
ZURICH = ZoneInfo("Europe/Zurich")
BEGIN = datetime(2026, 3, 27, 23, tzinfo=UTC)
DAY = timedelta(days=1)


def in_new_python(code):
    """Run code in a new interpreter and return its output, parsed as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_commands_add_one_module_to_airflow():
    """Every `airflow` command reads the provider's commands; this imports only one small module."""
    added = in_new_python(
        """
import sys, json, airflow.cli.cli_config, airflow_flowservice
before = set(sys.modules)
from airflow_flowservice.cli import get_flowservice_cli_commands
get_flowservice_cli_commands()
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    )
    assert ["airflow_flowservice.cli"] == added


def test_module_imports_nothing():
    """The module of the commands imports no other module, not even of Airflow."""
    added = in_new_python(
        """
import sys, json, typing, __future__
before = set(sys.modules)
import airflow_flowservice.cli
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    )
    assert ["airflow_flowservice", "airflow_flowservice.cli"] == added


@pytest.mark.skipif(versions.version() < (3, 2), reason="Airflow supports commands of providers since 3.2")
def test_airflow_finds_the_commands():
    """Airflow finds the commands by the provider's key `cli`."""
    from airflow.providers_manager import ProvidersManager

    assert get_flowservice_cli_commands in ProvidersManager().cli_command_functions


@pytest.mark.skipif(versions.version() < (3, 2), reason="Airflow supports commands of providers since 3.2")
@pytest.mark.parametrize(
    "options",
    [
        ["--dag-id", "dag", "--from", "2026-01-01", "--to", "2026-01-02"],
        ["dag", "--from-date", "2026-01-01", "--to-date", "2026-01-02T03:04:05+02:00", "--json"],
        [
            "-d",
            "dag",
            "--from=2026-01-01",
            "--to=2026-01-02",
            "-t",
            "task",
            "-f",
            "file.py",
            "-B",
            "bundle",
            "-o",
            "yaml",
        ],
    ],
)
def test_both_command_lines_accept_the_same_arguments(options):
    """`airflow flowservice windows` and `python -m airflow_flowservice windows` share one definition."""
    from airflow.cli.cli_parser import get_parser

    from airflow_flowservice.__main__ import _parser

    of_airflow, of_package = (
        get_parser().parse_args(["flowservice", "windows", *options]),
        _parser().parse_args(["windows", *options]),
    )
    assert {**vars(of_airflow), "func": None} == {**vars(of_package), "func": None}
    assert of_airflow.func.__name__ == of_package.func.__name__


@pytest.mark.parametrize(
    ("options", "output"),
    [([], "table"), (["--json"], "json"), (["-o", "json"], "json"), (["--output", "plain"], "plain")],
)
@pytest.mark.parametrize("name", ["check", "coverage", "windows"])
def test_output_option(name, options, output, capsys):
    """Each command has Airflow's option `--output`; `--json` is a deprecated alias of `--output json`."""
    from airflow_flowservice.__main__ import _parser

    dates = ["--from", "2026-01-01", "--to", "2026-01-02"]
    required = {"check": [], "coverage": dates, "windows": ["--dag-id", "dag", *dates]}
    assert output == output_format(_parser().parse_args([name, *required[name], *options]))
    assert ("--json" in options) == ("--json is deprecated" in capsys.readouterr().err)


def test_dates_have_the_meaning_of_backfill_dates():
    """A date without a time zone is in Airflow's default time zone."""
    from airflow.cli.cli_config import ARG_BACKFILL_FROM_DATE

    from airflow_flowservice.__main__ import _parser

    options = _parser().parse_args(["windows", "-d", "dag", "--from", "2026-01-01", "--to", "2026-01-02"])
    assert ARG_BACKFILL_FROM_DATE.kwargs["type"]("2026-01-01") == options.from_date


@pytest.mark.parametrize(("options", "expected"), [(["--help"], "windows"), (["windows", "--help"], "Exit status")])
def test_help(options, expected, capsys):
    """The help lists the command, and explains the exit status."""
    from airflow_flowservice.__main__ import main

    with pytest.raises(SystemExit) as exit_of:
        main(options)
    assert 0 == exit_of.value.code
    assert expected in capsys.readouterr().out


def planned(day, *, length=DAY, note="", faults=()):
    """Create the planned window that ends with a DAG run, a number of days after the begin."""
    end = BEGIN + day * DAY
    window = IngestionWindow(end - length, end) if length else None
    return PlannedWindow(run_after=end, logical_date=end, window=window, note=note, faults=faults)


@pytest.mark.parametrize(
    ("windows", "text"),
    [
        ([planned(1)], "1 window from 2026-03-27T23:00:00Z to 2026-03-28T23:00:00Z is contiguous."),
        ([planned(1), planned(2)], "2 windows from 2026-03-27T23:00:00Z to 2026-03-29T23:00:00Z are contiguous."),
        (
            [planned(1), planned(3, faults=("gap",)), planned(5, faults=("gap",)), planned(5, faults=("overlap",))],
            "4 windows from 2026-03-27T23:00:00Z to 2026-04-01T23:00:00Z: 2 gaps, 1 overlap.",
        ),
        ([planned(1, length=None, faults=("no window",))], "1 DAG run without a window."),
        (
            [planned(1, length=None, faults=("no window",))] * 2 + [planned(3)],
            "1 window from 2026-03-29T23:00:00Z to 2026-03-30T23:00:00Z: 2 DAG runs without a window.",
        ),
    ],
)
def test_contiguity_text(windows, text):
    """One line states the number of windows, their range, and the faults."""
    assert text == contiguity_text(windows)


def test_gaps_and_overlaps_are_noted_at_the_later_window():
    """The note precedes other notes; a DAG run without a window in between does not matter."""

    class EventsTimetable:
        """Timetable in which a period begins at the previous event."""

        event_dates = (BEGIN,)

    spans = [(BEGIN, BEGIN + DAY), (BEGIN + 2 * DAY, BEGIN + 3 * DAY), (BEGIN + 2.5 * DAY, BEGIN + 4 * DAY)]
    runs = [
        RunDates(run_after=end, logical_date=end, data_interval_start=start, data_interval_end=end)
        for start, end in spans
    ]
    runs.insert(1, RunDates(run_after=BEGIN - DAY))
    now = BEGIN + 3 * DAY
    windows = planned_windows(runs, timetable=EventsTimetable(), zone=UTC, now=now)
    assert ["", "gap of 24 h", "overlap of 12 h; not over yet"] == [each.note for each in windows if each.window]
    assert [(), ("no window",), ("gap",), ("overlap",)] == [each.faults for each in windows]


def shown(windows, *, width=80, zone=ZURICH, **options):
    """Return the lines of the table."""
    console = airflow_console(file=io.StringIO(), **options)
    console.width = width
    print_windows(console, windows, zone=zone)
    return console.file.getvalue().splitlines()


def test_table_fits_a_narrow_terminal():
    """In 80 columns, notes are wrapped; without a terminal, there are no control characters."""
    windows = [
        planned(1),
        planned(2, length=timedelta(hours=23), note="day of 23 h"),
        planned(3, note="a long note " * 9),
    ]
    lines = shown(windows)
    assert [] == [line for line in lines if len(line) > 80 or "\x1b" in line]
    assert "2026-03-29 23:00 | 2026-03-29 00:00 | 2026-03-29 23:00 |   23 h | day of 23 h" == lines[3].rstrip()
    assert 9 == sum(line.count("long") for line in lines)


def test_only_dates_if_all_times_are_midnight():
    """Daily windows in UTC show no times."""
    midnight = datetime(2026, 1, 2, tzinfo=UTC)
    daily = PlannedWindow(run_after=midnight, logical_date=midnight, window=IngestionWindow(midnight - DAY, midnight))
    cells = [cell.strip() for cell in shown([daily], zone=UTC)[2].split("|")]
    assert ["2026-01-02", "2026-01-01", "2026-01-02", "24 h", ""] == cells
    assert "Times are in UTC; a window does not include its end." == shown([daily], zone=UTC)[-2]


def test_wide_terminal_shows_local_run_dates():
    """For a schedule outside UTC, a wide terminal has a column of local times. Each terminal names the zone."""
    narrow, wide = shown([planned(1), planned(2)]), shown([planned(1), planned(2)], width=120)
    assert "run_local" in wide[0]
    assert re.match(r"2026-03-28 23:00 \| 2026-03-29 00:00 \| 2026-03-27 23:00 \| 2026-03-28 23:00", wide[2])
    assert "run_local" not in narrow[0]
    assert ["The schedule's time zone is Europe/Zurich."] * 2 == [wide[-2], narrow[-2]]


def test_notes_are_printed_without_markup():
    """The text of an error is printed literally."""
    assert "[red]:key: no style[/]" in "\n".join(shown([planned(1, note="[red]:key: no style[/]")], width=100))


@pytest.mark.parametrize(("faults", "colour"), [((), "32"), (("gap",), "31")])
def test_terminal_has_colours(faults, colour):
    """The last line is green if the windows are contiguous, or else red."""
    last = shown([planned(1, faults=faults)], force_terminal=True, color_system="standard", no_color=False)[-1]
    assert f"\x1b[1;{colour}m" == last[: len(colour) + 5]
