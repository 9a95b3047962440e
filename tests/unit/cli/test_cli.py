"""The command line: what it costs each `airflow` command, that both ways to it agree, and how windows look."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from airflow_flowservice._airflow import versions
from airflow_flowservice.cli import get_flowservice_cli_commands
from airflow_flowservice.cli.rows import Row, rows_of, verdict_of
from airflow_flowservice.cli.table import show
from airflow_flowservice.windows.schedule import RunDates
from airflow_flowservice.windows.window import IngestionWindow

UTC = timezone.utc
ZURICH = ZoneInfo("Europe/Zurich")
BEGIN = datetime(2026, 3, 27, 23, tzinfo=UTC)
DAY = timedelta(days=1)


def in_a_new_python(code):
    """What some code prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


def test_airflow_pays_next_to_nothing_for_it():
    """Every `airflow` command, which reads the provider anyway, asks for its commands: one small module comes along."""
    added = in_a_new_python(
        """
import sys, json, airflow.cli.cli_config, airflow_flowservice
before = set(sys.modules)
from airflow_flowservice.cli import get_flowservice_cli_commands
get_flowservice_cli_commands()
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    )
    assert ["airflow_flowservice.cli"] == added


def test_the_module_itself_imports_nothing():
    """Not even Airflow."""
    added = in_a_new_python(
        """
import sys, json, typing, __future__
before = set(sys.modules)
import airflow_flowservice.cli
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    )
    assert ["airflow_flowservice", "airflow_flowservice.cli"] == added


@pytest.mark.skipif(versions.version() < (3, 2), reason="Airflow takes a provider's commands since 3.2")
def test_airflow_knows_the_commands():
    """Its discovery finds them by the provider's key `cli`."""
    from airflow.providers_manager import ProvidersManager

    assert get_flowservice_cli_commands in ProvidersManager().cli_command_functions


@pytest.mark.skipif(versions.version() < (3, 2), reason="Airflow takes a provider's commands since 3.2")
@pytest.mark.parametrize(
    "options",
    [
        ["dag", "--from", "2026-01-01", "--to", "2026-01-02"],
        ["dag", "--from-date", "2026-01-01", "--to-date", "2026-01-02T03:04:05+02:00", "--json"],
        ["dag", "--from=2026-01-01", "--to=2026-01-02", "-t", "task", "-f", "file.py", "-B", "bundle"],
    ],
)
def test_both_command_lines_take_the_same(options):
    """`airflow flowservice windows` and `python -m airflow_flowservice windows` are made of one definition."""
    from airflow.cli.cli_parser import get_parser

    from airflow_flowservice.__main__ import _parser

    airflows, ours = (
        get_parser().parse_args(["flowservice", "windows", *options]),
        _parser().parse_args(["windows", *options]),
    )
    assert {**vars(airflows), "func": None} == {**vars(ours), "func": None}
    assert airflows.func.__name__ == ours.func.__name__


def test_dates_mean_what_they_mean_in_a_backfill():
    """A date without a zone is in Airflow's default time zone."""
    from airflow.cli.cli_config import ARG_BACKFILL_FROM_DATE

    from airflow_flowservice.__main__ import _parser

    options = _parser().parse_args(["windows", "dag", "--from", "2026-01-01", "--to", "2026-01-02"])
    assert ARG_BACKFILL_FROM_DATE.kwargs["type"]("2026-01-01") == options.from_date


@pytest.mark.parametrize(("options", "expected"), [(["--help"], "windows"), (["windows", "--help"], "Exit status")])
def test_help(options, expected, capsys):
    """It lists the command, and explains the exit status."""
    from airflow_flowservice.__main__ import main

    with pytest.raises(SystemExit) as exit_of:
        main(options)
    assert 0 == exit_of.value.code
    assert expected in capsys.readouterr().out


def row(day, *, length=DAY, note="", faults=()):
    """A run so many days after the begin, of the window before it."""
    end = BEGIN + day * DAY
    window = IngestionWindow(end - length, end) if length else None
    return Row(run_after=end, logical_date=end, window=window, note=note, faults=faults)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row(1)], "1 window from 2026-03-27T23:00:00Z to 2026-03-28T23:00:00Z tiles."),
        ([row(1), row(2)], "2 windows from 2026-03-27T23:00:00Z to 2026-03-29T23:00:00Z tile."),
        (
            [row(1), row(3, faults=("gap",)), row(5, faults=("gap",)), row(5, faults=("overlap",))],
            "4 windows from 2026-03-27T23:00:00Z to 2026-04-01T23:00:00Z: 2 gaps, 1 overlap.",
        ),
        ([row(1, length=None, faults=("no window",))], "1 run without a window."),
        (
            [row(1, length=None, faults=("no window",))] * 2 + [row(3)],
            "1 window from 2026-03-29T23:00:00Z to 2026-03-30T23:00:00Z: 2 runs without a window.",
        ),
    ],
)
def test_the_verdict(rows, verdict):
    """One line says how many windows, over which time, and what is wrong."""
    assert verdict == verdict_of(rows)


def test_gaps_and_overlaps_are_noted_at_the_window_that_begins_there():
    """Beside what else there is to say of it, and across a run that has no window."""

    class EventsTimetable:
        """The period of a run of it begins at the event before."""

        event_dates = (BEGIN,)

    spans = [(BEGIN, BEGIN + DAY), (BEGIN + 2 * DAY, BEGIN + 3 * DAY), (BEGIN + 2.5 * DAY, BEGIN + 4 * DAY)]
    runs = [
        RunDates(run_after=end, logical_date=end, data_interval_start=start, data_interval_end=end)
        for start, end in spans
    ]
    runs.insert(1, RunDates(run_after=BEGIN - DAY))
    now = BEGIN + 3 * DAY
    rows = rows_of(runs, timetable=EventsTimetable(), zone=UTC, now=now)
    assert ["", "gap of 24 h", "overlap of 12 h; not over yet"] == [row.note for row in rows if row.window]
    assert [(), ("no window",), ("gap",), ("overlap",)] == [row.faults for row in rows]


def shown(rows, *, width=80, zone=ZURICH, **options):
    """What the table looks like."""
    console = Console(file=io.StringIO(), width=width, **options)
    show(console, rows, zone=zone)
    return console.file.getvalue().splitlines()


def test_the_table_fits_a_narrow_terminal():
    """80 columns; notes are not cut off; no control characters where there is no terminal."""
    rows = [row(1), row(2, length=timedelta(hours=23), note="local day of 23 h"), row(3, note="a long note " * 9)]
    lines = shown(rows)
    assert [] == [line for line in lines if len(line) > 80 or "\x1b" in line]
    assert "2026-03-29 23:00  2026-03-29 00:00  2026-03-29 23:00    23 h  local day of 23 h" == lines[3].rstrip()
    assert 9 == sum(line.count("long") for line in lines)


def test_only_dates_where_all_are_midnights():
    """Daily windows in UTC are easy to read."""
    midnight = datetime(2026, 1, 2, tzinfo=UTC)
    daily = Row(run_after=midnight, logical_date=midnight, window=IngestionWindow(midnight - DAY, midnight))
    assert ["2026-01-02", "2026-01-01", "2026-01-02", "24", "h"] == shown([daily], zone=UTC)[2].split()
    assert "Times are in UTC; a window does not include its end." == shown([daily], zone=UTC)[-2]


def test_a_wide_terminal_shows_local_run_dates():
    """Of a schedule that is elsewhere; its zone is always named."""
    narrow, wide = shown([row(1), row(2)]), shown([row(1), row(2)], width=120)
    assert "run, local" in wide[0]
    assert re.match(r"2026-03-28 23:00  2026-03-29 00:00  2026-03-27 23:00  2026-03-28 23:00", wide[2])
    assert "run, local" not in narrow[0]
    assert ["The schedule's time zone is Europe/Zurich."] * 2 == [wide[-2], narrow[-2]]


def test_no_markup_in_notes():
    """An error's text is shown as it is."""
    assert "[red]not a style[/]" in "\n".join(shown([row(1, note="[red]not a style[/]")], width=100))


@pytest.mark.parametrize(("faults", "colour"), [((), "32"), (("gap",), "31")])
def test_a_terminal_has_colours(faults, colour):
    """Green where windows tile, and red where not."""
    last = shown([row(1, faults=faults)], force_terminal=True, color_system="standard", no_color=False)[-1]
    assert f"\x1b[1;{colour}m" == last[: len(colour) + 5]
