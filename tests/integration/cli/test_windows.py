# SPDX-License-Identifier: Apache-2.0
"""Run `airflow flowservice windows` on real DAG files, and compare it with the dates of Airflow's timetables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow_versions import DagSerialization
from instants import instant

from airflow_flowservice.__main__ import main
from airflow_flowservice._airflow import versions

UTC = timezone.utc
BACKFILL = ("--from-date", "--to-date")
TIME = ("--from", "--to")
KEYS = ["run_after", "logical_date", "window_start", "window_end", "seconds", "note"]
ZOO = '''
"""DAGs with all kinds of schedules."""
import logging
from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset
try:
    from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable, CronPartitionTimetable
    from airflow.sdk import CronTriggerTimetable, DeltaTriggerTimetable, MultipleCronTriggerTimetable
except ImportError:  # before 3.2
    from airflow.timetables.assets import AssetOrTimeSchedule
    from airflow.timetables.interval import CronDataIntervalTimetable
    from airflow.timetables.trigger import CronTriggerTimetable, DeltaTriggerTimetable, MultipleCronTriggerTimetable
    CronPartitionTimetable = None
from airflow.timetables.events import EventsTimetable
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator

print("printed by the DAG file")
logging.getLogger(__name__).warning("logged by the DAG file")
zurich = {"timezone": "Europe/Zurich"}


def dag(dag_id, schedule, **arguments):
    with DAG(dag_id, schedule=schedule, start_date=pendulum.datetime(2020, 1, 1)) as made:
        OnDemandFlowRunOperator(task_id="ingest", flow_id="f", **arguments)
    return made


dag("daily", "@daily")
dag("hourly_zurich", CronTriggerTimetable("0 * * * *", **zurich))
dag("daily_zurich", CronTriggerTimetable("0 0 * * *", **zurich))
dag("interval_zurich", CronTriggerTimetable("0 0 * * *", interval=timedelta(days=1), **zurich))
dag("data_interval", CronDataIntervalTimetable("0 0 * * *", **zurich))
if CronPartitionTimetable:
    dag("partitions", CronPartitionTimetable("0 0 * * *", run_offset=-1, **zurich))
    dag("partitions_too_early", CronPartitionTimetable("0 0 * * *", **zurich))
dag("several_crons", MultipleCronTriggerTimetable("0 6 * * *", "30 18 * * 1-5", **zurich))
dag("delta", timedelta(hours=6))
dag("delta_trigger", DeltaTriggerTimetable(timedelta(hours=8)))
dag("asset_or_time", AssetOrTimeSchedule(timetable=CronTriggerTimetable("@daily", **zurich), assets=[Asset("a")]))
dag("events", EventsTimetable([pendulum.datetime(2026, 1, day) for day in (1, 3, 9)]))
dag("impossible", CronTriggerTimetable("0 0 30 2 *", timezone="UTC"))
dag("manual", None)
dag("once", "@once")
dag("assets", [Asset("a")])
dag("offset", "@daily", window_offset=timedelta(hours=-6))
dag("too_late", "@daily", window_offset=timedelta(hours=6))
dag("reaching_back", "@daily", window="since_last_success")
dag("named", "@daily", window_start="{{ conf }}", window_end="{{ conf }}")

with DAG("ended", schedule="@daily", start_date=pendulum.datetime(2026, 1, 1), end_date=pendulum.datetime(2026, 1, 31)):
    OnDemandFlowRunOperator(task_id="ingest", flow_id="f")
with DAG("starts_with_its_task", schedule=timedelta(hours=7)):
    OnDemandFlowRunOperator(task_id="ingest", flow_id="f", start_date=pendulum.datetime(2026, 1, 1))
with DAG("without", schedule="@daily"):
    RetriggerFlowRunOperator(task_id="again", flow_run_id="r")
with DAG("two_alike", schedule="@daily"):
    OnDemandFlowRunOperator(task_id="one", flow_id="f", window_offset=timedelta(hours=-6))
    OnDemandFlowRunOperator(task_id="other", flow_id="g", window_offset=timedelta(hours=-6))
with DAG("two_unlike", schedule="@daily"):
    OnDemandFlowRunOperator(task_id="one", flow_id="f")
    OnDemandFlowRunOperator(task_id="other", flow_id="g", window_offset=timedelta(hours=-6))
    OnDemandFlowRunOperator(task_id="third", flow_id="g", window_start="{{ conf }}", window_end="{{ conf }}")
    RetriggerFlowRunOperator(task_id="again", flow_run_id="r")
with DAG("mapped", schedule="@daily", default_args={"window_offset": timedelta(hours=-6)}):
    OnDemandFlowRunOperator.partial(task_id="ingest").expand(flow_id=["f", "g"])
with DAG("mapped_partial", schedule="@daily"):
    OnDemandFlowRunOperator.partial(task_id="ingest", window_offset=timedelta(hours=-6)).expand(flow_id=["f", "g"])
with DAG("mapped_offset", schedule="@daily"):
    OnDemandFlowRunOperator.partial(task_id="ingest", flow_id="f").expand(window_offset=[timedelta(hours=-6)])
with DAG("mapped_window", schedule="@daily"):
    OnDemandFlowRunOperator.partial(task_id="ingest", flow_id="f").expand_kwargs(
        [{"window_start": "2026-01-01T00:00Z", "window_end": "2026-01-02T00:00Z"}]
    )
'''
PERIODIC = [
    "daily",
    "hourly_zurich",
    "daily_zurich",
    "interval_zurich",
    "data_interval",
    pytest.param("partitions", marks=pytest.mark.needs_airflow(3, 2, "partitions")),
    "several_crons",
    "delta",
    "delta_trigger",
    "asset_or_time",
    "events",
]


class Shown:
    """Output and exit status of a command."""

    def __init__(self, status: int | None, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the JSON objects."""
        return list(json.loads(self.out))

    @property
    def windows(self) -> list[tuple[str, str, str]]:
        """Return start and end, as `MM-DDTHH:MM`, and note of each row."""
        return [(row["window_start"][5:16], row["window_end"][5:16], row["note"]) for row in self.rows]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the DAG file."""
    path = tmp_path_factory.mktemp("dags") / "zoo.py"
    path.write_text(ZOO)
    return path


@pytest.fixture
def show(zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the command in this process, by default for the dates of a backfill."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(
        dag_id: str, first: str, last: str, *options: str, path: Path | None = zoo, edges: tuple[str, str] = BACKFILL
    ) -> Shown:
        begin, end = edges
        file = ["--dagfile-path", str(path)] if path else []
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_of:
            main(["windows", "--dag-id", dag_id, begin, first, end, last, *file, *options])
        return Shown(exit_of.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("dag_id", "dates", "note"),
    [
        ("ended", ("2026-02-10", "2026-02-12"), "no DAG runs after 2026-01-31"),
        ("ended", ("2025-12-28", "2025-12-30"), "no DAG runs before 2026-01-01"),
        ("ended", ("2026-01-02", "2026-01-04"), ""),
        ("delta", ("2026-01-01", "2026-01-02"), "counts a timedelta from the time of its first DAG run"),
        ("daily", ("2026-01-01", "2026-01-02"), ""),
    ],
)
def test_dag_runs_that_only_a_backfill_creates_are_noted(
    dag_id: str, dates: tuple[str, str], note: str, show: Any
) -> None:
    """The scheduler creates none before `start_date` and after `end_date`, and counts a timedelta in another way."""
    shown = show(dag_id, *dates, "--output=json", edges=TIME)
    assert note in shown.err
    assert bool(note) is ("scheduler" in shown.err)


def test_timedelta_counts_from_the_start_of_the_task(show: Any) -> None:
    """The windows do not depend on `--from` if only the task has a start date."""
    edges = ("2026-01-01T00:00", "2026-01-01T05:00", "2026-01-02T00:00")
    shown = [show("starts_with_its_task", each, "2026-01-03", "--output=json", edges=TIME).windows for each in edges]
    assert 7 == len(shown[0])
    assert [shown[0][-len(each) :] for each in shown] == shown


@pytest.mark.parametrize("dag_id", PERIODIC)
@pytest.mark.parametrize(("first", "last"), [("2026-01-01", "2026-01-12"), ("2026-03-27", "2026-03-31T12:00+02:00")])
def test_dag_runs_are_those_of_a_backfill(dag_id: str, first: str, last: str, show: Any, zoo: Path) -> None:
    """The dates are those that `airflow backfill create` gets from the scheduler's DAG, in the same order."""
    from airflow.cli.cli_config import parsedate

    dag = DagSerialization.from_dict(DagSerialization.to_dict(versions.dag_bag(str(zoo)).dags[dag_id]))
    expected = [
        (info.run_after, info.logical_date) for info in dag.iter_dagrun_infos_between(parsedate(first), parsedate(last))
    ]
    if not expected:
        assert 2 == show(dag_id, first, last, "--output=json").status
        return
    assert expected == [
        tuple(row[key] and instant(row[key]) for key in ("run_after", "logical_date"))
        for row in show(dag_id, first, last, "--output=json").rows
    ]


@pytest.mark.parametrize(
    ("dag_id", "dates", "windows"),
    [
        ("daily", ("2026-01-01", "2026-01-03"), [("01-01T00:00", "01-02T00:00"), ("01-02T00:00", "01-03T00:00")]),
        # Windows across an edge are shown completely.
        (
            "daily",
            ("2026-01-01T12:00", "2026-01-02T00:00:01"),
            [("01-01T00:00", "01-02T00:00"), ("01-02T00:00", "01-03T00:00")],
        ),
        (
            "data_interval",
            ("2026-01-01", "2026-01-02"),
            [("12-31T23:00", "01-01T23:00"), ("01-01T23:00", "01-02T23:00")],
        ),
        ("interval_zurich", ("2026-01-01", "2026-01-01T23:00"), [("12-31T23:00", "01-01T23:00")]),
        (
            "several_crons",
            ("2026-01-02", "2026-01-02T17:30"),
            [("01-01T17:30", "01-02T05:00"), ("01-02T05:00", "01-02T17:30")],
        ),
        # A timedelta counts from the start date of the DAG.
        (
            "delta",
            ("2026-01-01T05:00", "2026-01-01T07:00"),
            [("01-01T00:00", "01-01T06:00"), ("01-01T06:00", "01-01T12:00")],
        ),
        ("offset", ("2026-01-01T18:00", "2026-01-02T18:00"), [("01-01T18:00", "01-02T18:00")]),
        ("events", ("2026-01-02", "2026-01-04"), [("01-01T00:00", "01-03T00:00"), ("01-03T00:00", "01-09T00:00")]),
        pytest.param(
            "partitions",
            ("2026-01-01", "2026-01-02"),
            [("12-31T23:00", "01-01T23:00"), ("01-01T23:00", "01-02T23:00")],
            marks=pytest.mark.needs_airflow(3, 2, "partitions"),
        ),
    ],
)
def test_range_of_time(dag_id: str, dates: tuple[str, str], windows: list[tuple[str, str]], show: Any) -> None:
    """`--from` and `--to` select windows by their time, as in the other commands; the end is exclusive."""
    shown = show(dag_id, *dates, "--output=json", edges=TIME)
    assert windows == [(start, end) for start, end, _ in shown.windows]
    assert 0 == shown.status


def test_event_without_a_window_in_a_range_of_time(show: Any) -> None:
    """A DAG run without a window is shown if its date is in the range."""
    shown = show("events", "2026-01-01", "2026-01-02", "--output=json", edges=TIME)
    assert [None, "2026-01-01T00:00:00Z"] == [row["window_start"] for row in shown.rows]
    later = show("events", "2026-01-01T00:00:01", "2026-01-02", "--output=json", edges=TIME)
    assert ["2026-01-01T00:00:00Z"] == [row["window_start"] for row in later.rows]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dag-id", "daily"], "give --from and --to, or --from-date and --to-date"),
        (["--dag-id", "daily", "--from", "2026-01-01"], "give --from and --to, or --from-date and --to-date"),
        (["--dag-id", "daily", "--from", "2026-01-01", "--to-date", "2026-01-02"], "give --from and --to, or"),
        (["-d", "daily", "--from=2026-01-01", "--to=2026-01-02", "--from-date=2026-01-01"], "give --from and --to, or"),
        (["-d", "daily", "--from", "2026-01-02", "--to", "2026-01-02"], "is not before --to"),
        (["-d", "events", "--from", "2027-01-02", "--to", "2027-01-03"], "has no window between 2027-01-02"),
        (["--from", "2026-01-01", "--to", "2026-01-02"], "give one DAG by --dag-id"),
        (["other", "-d", "daily", "--from", "2026-01-01", "--to", "2026-01-02"], "give one DAG by --dag-id"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: list[str], message: str, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 2, and standard error states which arguments are needed."""
    with pytest.raises(SystemExit) as exit_of:
        main(["windows", *arguments, "-f", str(zoo)])
    shown = Shown(exit_of.value.code, *capsys.readouterr())
    assert (2, "") == (shown.status, shown.out)
    assert message in shown.err


def test_dag_id_without_an_option_is_deprecated(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A DAG id without `--dag-id` has the same output, and a note."""
    dates = ["--from", "2026-01-01", "--to", "2026-01-02", "--dagfile-path", str(zoo), "--output=json"]
    shown = []
    for dag_id in (["daily"], ["--dag-id", "daily"]):
        with pytest.raises(SystemExit):
            main(["windows", *dag_id, *dates])
        shown.append(Shown(0, *capsys.readouterr()))
    assert shown[0].rows == shown[1].rows
    assert ("deprecated" in shown[0].err, "deprecated" in shown[1].err) == (True, False)


@pytest.mark.parametrize("option", ["--output=json", "--json"])
def test_standard_output_has_only_json(option: str, show: Any) -> None:
    """Output and logs of the DAG file go to standard error; the keys have this order."""
    shown = show("daily", "2026-01-02", "2026-01-03", option)
    assert [KEYS, KEYS] == [list(row) for row in shown.rows]
    assert {
        "run_after": "2026-01-02T00:00:00Z",
        "logical_date": "2026-01-02T00:00:00Z",
        "window_start": "2026-01-01T00:00:00Z",
        "window_end": "2026-01-02T00:00:00Z",
        "seconds": 86400,
        "note": "",
    } == shown.rows[0]
    assert "printed by the DAG file" in shown.err
    assert 0 == shown.status


def test_yaml_has_the_json_document(show: Any) -> None:
    """`--output yaml` prints the same values as `--output json`."""
    as_json, as_yaml = (show("daily", "2026-01-02", "2026-01-03", "-o", output) for output in ("json", "yaml"))
    assert as_json.rows == yaml.safe_load(as_yaml.out)


def test_plain_has_only_rows(show: Any) -> None:
    """`--output plain` prints columns without lines, legend and summary."""
    lines = show("daily", "2026-01-02", "2026-01-03", "-o", "plain").out.splitlines()
    assert ["run", "window_start", "window_end", "length", "note"] == lines[0].split()
    assert ["2026-01-02", "2026-01-01", "2026-01-02", "24", "h"] == lines[1].split()
    assert 3 == len(lines)


def test_logical_dates_that_differ_from_the_starts(show: Any) -> None:
    """The dates that `airflow backfill create` takes are shown beside the starts of the DAG runs."""
    shown = show("data_interval", "2026-01-01T23:00", "2026-01-02T23:00", "-o", "plain").out.splitlines()
    assert ["logical_date", "run_after", "run_local", "window_start"] == shown[0].split()[:4]
    assert ["2026-01-01", "23:00", "2026-01-02", "23:00"] == shown[1].split()[:4]
    table = show("data_interval", "2026-01-01T23:00", "2026-01-02T23:00").out
    assert "The dates of a backfill are logical dates; a DAG run starts after run_after." in table


@pytest.mark.parametrize(
    ("first", "last", "hours"),
    [("2026-03-28T23:00", "2026-03-29T22:00", 23), ("2026-10-24T22:00", "2026-10-25T23:00", 25)],
)
def test_hourly_windows_across_a_clock_change(first: str, last: str, hours: int, show: Any) -> None:
    """A local day has 23 or 25 contiguous windows of one hour."""
    shown = show("hourly_zurich", first, last, "--output=json")
    assert [3600] * (hours + 1) == [row["seconds"] for row in shown.rows]
    assert {""} == {row["note"] for row in shown.rows}
    assert 0 == shown.status


@pytest.mark.parametrize("dag_id", ["daily_zurich", "data_interval", "asset_or_time"])
@pytest.mark.parametrize(
    ("dates", "windows"),
    [
        (
            ("2026-03-28", "2026-03-30T22:00"),
            [
                ("03-27T23:00", "03-28T23:00", ""),
                ("03-28T23:00", "03-29T22:00", "local day of 23 h"),
                ("03-29T22:00", "03-30T22:00", ""),
            ],
        ),
        (
            ("2026-10-24", "2026-10-26T23:00"),
            [
                ("10-23T22:00", "10-24T22:00", ""),
                ("10-24T22:00", "10-25T23:00", "local day of 25 h"),
                ("10-25T23:00", "10-26T23:00", ""),
            ],
        ),
    ],
    ids=["23 hours", "25 hours"],
)
def test_days_of_clock_changes(
    dag_id: str, dates: tuple[str, str], windows: list[tuple[str, str, str]], show: Any
) -> None:
    """The days are marked, and the windows are contiguous, for timetables with different logical dates."""
    first, last = dates
    shown = show(dag_id, f"{first}T00:00", last, "--output=json")
    if dag_id == "data_interval":  # selects DAG runs by the start of their data interval
        assert windows[1:] == shown.windows[:2]
    else:
        assert windows == shown.windows
    assert 0 == shown.status


@pytest.mark.parametrize(
    ("first", "last", "note", "summary"),
    [
        ("2026-03-28", "2026-03-31", "overlap of 1 h", "2026-03-27T23:00:00Z to 2026-03-30T22:00:00Z: 1 overlap."),
        ("2026-10-24", "2026-10-27", "gap of 1 h", "2026-10-23T22:00:00Z to 2026-10-26T23:00:00Z: 1 gap."),
    ],
)
def test_interval_of_a_day_is_not_contiguous(first: str, last: str, note: str, summary: str, show: Any) -> None:
    """With `CronTriggerTimetable(interval=timedelta(days=1))`, a clock change is noted, and the exit status is 1."""
    shown = show("interval_zurich", first, last, "--output=json")
    assert (["", note, ""], 1) == ([row["note"] for row in shown.rows], shown.status)
    table = show("interval_zurich", first, last)
    assert (f"3 windows from {summary}", 1) == (table.out.splitlines()[-1], table.status)


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_partitions(show: Any) -> None:
    """The window of a partitioned DAG run begins at its partition date; the DAG run has no logical date."""
    # The arguments are partition dates, or in Airflow 3.2, as for its backfills, the dates of DAG runs.
    last = "2026-03-30" if versions.version() >= (3, 3) else "2026-03-31"
    shown = show("partitions", "2026-03-28", last, "--output=json")
    assert [
        ("03-27T23:00", "03-28T23:00", ""),
        ("03-28T23:00", "03-29T22:00", "local day of 23 h"),
        ("03-29T22:00", "03-30T22:00", ""),
    ] == shown.windows
    assert [None] * 3 == [row["logical_date"] for row in shown.rows]
    assert "partition dates" in show("partitions", "2026-03-28", last).out


@pytest.mark.parametrize(
    ("dag_id", "dates", "windows"),
    [
        (
            "several_crons",
            ("2026-01-02", "2026-01-04"),
            [
                ("01-01T17:30", "01-02T05:00", ""),
                ("01-02T05:00", "01-02T17:30", ""),
                ("01-02T17:30", "01-03T05:00", ""),
            ],
        ),
        (
            "delta",
            ("2026-01-01", "2026-01-01T06:00"),
            [("12-31T18:00", "01-01T00:00", ""), ("01-01T00:00", "01-01T06:00", "")],
        ),
        ("offset", ("2026-01-02", "2026-01-02"), [("12-31T18:00", "01-01T18:00", "")]),
        ("two_alike", ("2026-01-02", "2026-01-02"), [("12-31T18:00", "01-01T18:00", "")]),
        ("mapped", ("2026-01-02", "2026-01-02"), [("12-31T18:00", "01-01T18:00", "")]),
        ("mapped_partial", ("2026-01-02", "2026-01-02"), [("12-31T18:00", "01-01T18:00", "")]),
        ("without", ("2026-01-02", "2026-01-02"), [("01-01T00:00", "01-02T00:00", "")]),
    ],
)
def test_windows(dag_id: str, dates: tuple[str, str], windows: list[tuple[str, str, str]], show: Any) -> None:
    """Other schedules, and tasks with `window_offset`, have these windows."""
    shown = show(dag_id, *dates, "--output=json")
    assert (windows, 0) == (shown.windows, shown.status)


def test_dag_run_without_a_window(show: Any) -> None:
    """The row states the reason, all other windows are shown, and the exit status is 1."""
    shown = show("events", "2026-01-01", "2026-01-31", "--output=json")
    assert [None, 172_800, 518_400] == [row["seconds"] for row in shown.rows]
    assert (None, None) == (shown.rows[0]["window_start"], shown.rows[0]["window_end"])
    assert "What to do:" in shown.rows[0]["note"]
    assert 1 == shown.status
    assert "1 DAG run without a window." in show("events", "2026-01-01", "2026-01-31").out


def test_windows_that_are_not_over(show: Any) -> None:
    """A backfill skips these windows, and the schedule creates them later; they are shown and marked."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first, last = ((today + timedelta(days=days)).isoformat() for days in (-1, 2))
    shown = show("daily", first, last, "--output=json")
    assert ["", ""] == [row["note"] for row in shown.rows[:2]]
    assert ("not over yet", 0) == (shown.rows[-1]["note"], shown.status)


@pytest.mark.parametrize(
    ("dag_id", "note"),
    [
        ("reaching_back", "a window starts at the end of the last successful window"),
        ("too_late", "window_offset is 6:00:00"),
        pytest.param("partitions_too_early", "set run_offset=-1", marks=pytest.mark.needs_airflow(3, 2, "partitions")),
        ("without", "has no OnDemandFlowRunOperator"),
    ],
)
def test_notes(dag_id: str, note: str, show: Any) -> None:
    """Notes about all windows are on standard error."""
    shown = show(dag_id, "2026-01-02", "2026-01-03", "--output=json")
    assert note in shown.err
    # Airflow 3.2 selects by the dates of DAG runs: Zurich's 2 January begins before the 2nd of UTC.
    count = 1 if dag_id == "partitions_too_early" and versions.version() < (3, 3) else 2
    assert (count, 0) == (len(shown.rows), shown.status)


@pytest.mark.parametrize(
    ("dag_id", "options", "message"),
    [
        ("manual", [], "has no time schedule (None)"),
        ("once", [], "has no time schedule (@once)"),
        ("assets", [], "has no time schedule (Asset)"),
        ("named", [], "window_start and window_end are arguments of 'ingest' in DAG 'named'"),
        ("mapped_window", [], "window_start and window_end are arguments of 'ingest' in DAG 'mapped_window'"),
        ("mapped_offset", [], "maps window_offset"),
        ("impossible", [], "gives no run dates"),
        ("unknown", [], "there is no DAG 'unknown' in "),
        ("daily", ["--task-id", "other"], "has no OnDemandFlowRunOperator 'other'; it has: ingest"),
        ("two_unlike", ["--task-id", "again"], "has no OnDemandFlowRunOperator 'again'; it has: one, other, third"),
        ("two_unlike", [], "Choose one with --task-id:\n  one: window_offset=None"),
        ("two_unlike", ["-t", "third"], "window_start and window_end are arguments of 'third'"),
    ],
)
def test_nothing_to_show(dag_id: str, options: list[str], message: str, show: Any) -> None:
    """The exit status is 2, standard error has the reason, and standard output is empty."""
    shown = show(dag_id, "2026-01-02", "2026-01-03", *options)
    assert (2, "") == (shown.status, shown.out)
    assert message in shown.err


def test_task_id_selects_a_task(show: Any) -> None:
    """If tasks have different windows, `--task-id` selects one."""
    windows = [
        show("two_unlike", "2026-01-02", "2026-01-02", "--output=json", "-t", name).windows for name in ("one", "other")
    ]
    assert [[("01-01T00:00", "01-02T00:00", "")], [("12-31T18:00", "01-01T18:00", "")]] == windows


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("2026-01-02T01:00", "2026-01-02T02:00", "has no DAG run from 2026-01-02T01:00:00+00:00"),
        ("2026-01-03", "2026-01-02", "is after --to-date"),
        ("soon", "2026-01-02", "--from-date"),
    ],
)
def test_dates_without_dag_runs(first: str, last: str, message: str, show: Any) -> None:
    """Dates without a DAG run are an error, not contiguous windows."""
    shown = show("daily", first, last)
    assert (2, "") == (shown.status, shown.out)
    assert message in shown.err


def test_file_that_cannot_be_imported(tmp_path: Path, show: Any) -> None:
    """The message states the import error, not that the DAG is unknown."""
    path = tmp_path / "broken.py"
    path.write_text("from airflow.sdk import DAG\nimport no_such_module\nbroken = DAG('broken')\n")
    shown = show("broken", "2026-01-02", "2026-01-03", path=path)
    assert (2, "") == (shown.status, shown.out)
    assert f"{path}: ModuleNotFoundError: No module named 'no_such_module'" in shown.err.splitlines()[-1]


def test_missing_file(tmp_path: Path, show: Any) -> None:
    """The message for a wrong path differs from that for an unknown DAG."""
    shown = show("daily", "2026-01-02", "2026-01-03", path=tmp_path / "none.py")
    assert (2, f"Error: the file {tmp_path / 'none.py'} does not exist\n") == (shown.status, shown.err)


def test_folder_without_dags(tmp_path: Path, show: Any) -> None:
    """The message names the folder."""
    shown = show("daily", "2026-01-02", "2026-01-03", path=tmp_path)
    assert 2 == shown.status
    assert f"there is no DAG in {tmp_path}" in shown.err


def test_dag_file_may_import_modules_of_its_folder(tmp_path: Path, show: Any) -> None:
    """A given file is read as in a DAG folder, even if it does not contain the words that Airflow searches for."""
    (tmp_path / "my_factory.py").write_text(
        "from airflow.sdk import DAG\n\ndef make(name):\n    return DAG(name, schedule='@daily')\n"
    )
    path = tmp_path / "made.py"
    path.write_text("from my_factory import make\nmade = make('made_elsewhere')\n")
    assert 0 == show("made_elsewhere", "2026-01-02", "2026-01-03", path=path).status


@pytest.mark.slow
def test_examples_are_contiguous(show: Any) -> None:
    """The windows of this package's example DAGs are contiguous."""
    folder = Path(__file__).parents[3] / "dags_examples"
    for dag_id in ("flowservice_daily", "flowservice_files_hourly", "flowservice_sensor"):
        shown = show(dag_id, "2026-03-25", "2026-04-02", path=folder)
        assert 0 == shown.status, shown.err
        assert shown.out.endswith(" are contiguous.\n")


def test_unknown_bundle(show: Any) -> None:
    """The message contains Airflow's reason."""
    shown = show("daily", "2026-01-02", "2026-01-03", "--bundle-name", "unknown", path=None)
    assert 2 == shown.status
    assert "Requested bundle 'unknown' is not configured" in shown.err


@pytest.mark.slow
class TestProcesses:
    """Run the commands in new processes, with an unused Airflow."""

    @pytest.fixture
    def home(self, tmp_path: Path, zoo: Path) -> Path:
        """Create an `AIRFLOW_HOME` that contains only a DAG folder."""
        (tmp_path / "dags").mkdir()
        (tmp_path / "dags" / "zoo.py").write_text(zoo.read_text())
        return tmp_path

    @pytest.fixture
    def run(self, home: Path) -> Any:
        """Return a function that runs a command."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}

        def run(*command: str) -> Shown:
            done = subprocess.run(
                [sys.executable, "-m", *command],
                env={**plain, "AIRFLOW_HOME": str(home)},
                cwd=home,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            return Shown(done.returncode, done.stdout, done.stderr)

        return run

    def test_python_m(self, run: Any, home: Path) -> None:
        """The command finds the DAG in the DAG folder, and creates no database and no configuration."""
        shown = run(
            "airflow_flowservice",
            "windows",
            "--dag-id",
            "daily_zurich",
            "--from",
            "2026-03-27T23:00",
            "--to",
            "2026-03-30",
            "--output=json",
        )
        assert ["", "local day of 23 h", ""] == [row["note"] for row in shown.rows]
        assert 0 == shown.status
        assert [home / "dags" / "zoo.py"] == [
            path for path in home.rglob("*") if path.is_file() and path.suffix != ".pyc"
        ]

    def test_airflow_command(self, run: Any, home: Path) -> None:
        """`airflow flowservice windows` has the same output and exit status."""
        from airflow_flowservice._airflow import versions

        if versions.version() < (3, 2):
            pytest.skip("Airflow supports commands of providers since 3.2")
        file = str(home / "dags" / "zoo.py")
        options = ("-d", "interval_zurich", "--from-date", "2026-03-28", "--to-date", "2026-03-31", "-f", file)
        shown = run("airflow", "flowservice", "windows", *options, "--output=json")
        assert ["", "overlap of 1 h", ""] == [row["note"] for row in shown.rows]
        assert 1 == shown.status
        assert [] == [path for path in home.rglob("*") if ".db" in path.name]
