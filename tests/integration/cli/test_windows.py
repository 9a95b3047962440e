"""`airflow flowservice windows` on real DAG files, held against the runs that Airflow's own timetables make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow_versions import DagSerialization
from instants import instant

from airflow_flowservice.__main__ import main
from airflow_flowservice._airflow import versions

UTC = timezone.utc
KEYS = ["run_after", "logical_date", "window_start", "window_end", "seconds", "note"]
ZOO = '''
"""DAGs of all kinds of schedules."""
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
    """What a command printed, and its exit status."""

    def __init__(self, status: int | None, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The JSON objects."""
        return list(json.loads(self.out))

    @property
    def windows(self) -> list[tuple[str, str, str]]:
        """Start, end and note of each row, from `MM-DDTHH:MM` to the same."""
        return [(row["window_start"][5:16], row["window_end"][5:16], row["note"]) for row in self.rows]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DAG file."""
    path = tmp_path_factory.mktemp("dags") / "zoo.py"
    path.write_text(ZOO)
    return path


@pytest.fixture
def show(zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(dag_id: str, first: str, last: str, *options: str, path: Path | None = zoo) -> Shown:
        where = ["--dagfile-path", str(path)] if path else []
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_of:
            main(["windows", dag_id, "--from", first, "--to", last, *where, *options])
        return Shown(exit_of.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("dag_id", PERIODIC)
@pytest.mark.parametrize(("first", "last"), [("2026-01-01", "2026-01-12"), ("2026-03-27", "2026-03-31T12:00+02:00")])
def test_the_runs_are_those_of_a_backfill(dag_id: str, first: str, last: str, show: Any, zoo: Path) -> None:
    """The dates are the ones that the scheduler's DAG gives to `airflow backfill create`, in its order."""
    from airflow.cli.cli_config import parsedate

    dag = DagSerialization.from_dict(DagSerialization.to_dict(versions.dag_bag(str(zoo)).dags[dag_id]))
    expected = [
        (info.run_after, info.logical_date) for info in dag.iter_dagrun_infos_between(parsedate(first), parsedate(last))
    ]
    if not expected:
        assert 2 == show(dag_id, first, last, "--json").status
        return
    assert expected == [
        tuple(row[key] and instant(row[key]) for key in ("run_after", "logical_date"))
        for row in show(dag_id, first, last, "--json").rows
    ]


def test_json_is_alone_on_standard_output(show: Any) -> None:
    """What the DAG file prints and logs goes elsewhere; the keys are these, in this order."""
    shown = show("daily", "2026-01-02", "2026-01-03", "--json")
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


@pytest.mark.parametrize(
    ("first", "last", "hours"),
    [("2026-03-28T23:00", "2026-03-29T22:00", 23), ("2026-10-24T22:00", "2026-10-25T23:00", 25)],
)
def test_hourly_windows_across_a_change_of_the_clock(first: str, last: str, hours: int, show: Any) -> None:
    """A local day has 23 or 25 of them, each of an hour, and they tile."""
    shown = show("hourly_zurich", first, last, "--json")
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
def test_days_on_which_the_clock_changes(
    dag_id: str, dates: tuple[str, str], windows: list[tuple[str, str, str]], show: Any
) -> None:
    """They are marked, and tile; whatever the timetable, which dates its runs differently."""
    first, last = dates
    shown = show(dag_id, f"{first}T00:00", last, "--json")
    if dag_id == "data_interval":  # its runs are looked up by the start of their interval
        assert windows[1:] == shown.windows[:2]
    else:
        assert windows == shown.windows
    assert 0 == shown.status


@pytest.mark.parametrize(
    ("first", "last", "note", "verdict"),
    [
        ("2026-03-28", "2026-03-31", "overlap of 1 h", "2026-03-27T23:00:00Z to 2026-03-30T22:00:00Z: 1 overlap."),
        ("2026-10-24", "2026-10-27", "gap of 1 h", "2026-10-23T22:00:00Z to 2026-10-26T23:00:00Z: 1 gap."),
    ],
)
def test_an_interval_of_a_day_does_not_tile(first: str, last: str, note: str, verdict: str, show: Any) -> None:
    """`CronTriggerTimetable(interval=timedelta(days=1))` where clocks change: exit status 1, and the place is told."""
    shown = show("interval_zurich", first, last, "--json")
    assert (["", note, ""], 1) == ([row["note"] for row in shown.rows], shown.status)
    table = show("interval_zurich", first, last)
    assert (f"3 windows from {verdict}", 1) == (table.out.splitlines()[-1], table.status)


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_partitions(show: Any) -> None:
    """A partitioned run owns the period that begins at its partition's date; it has no logical date."""
    # Dates are those of partitions; on Airflow 3.2, as its backfills have it, those of their runs.
    last = "2026-03-30" if versions.version() >= (3, 3) else "2026-03-31"
    shown = show("partitions", "2026-03-28", last, "--json")
    assert [
        ("03-27T23:00", "03-28T23:00", ""),
        ("03-28T23:00", "03-29T22:00", "local day of 23 h"),
        ("03-29T22:00", "03-30T22:00", ""),
    ] == shown.windows
    assert [None] * 3 == [row["logical_date"] for row in shown.rows]
    assert "partition's date" in show("partitions", "2026-03-28", last).out


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
    """Of other schedules, and of tasks that move their windows."""
    shown = show(dag_id, *dates, "--json")
    assert (windows, 0) == (shown.windows, shown.status)


def test_a_run_without_a_window(show: Any) -> None:
    """Its row says why; the others are shown, and the exit status is 1."""
    shown = show("events", "2026-01-01", "2026-01-31", "--json")
    assert [None, 172_800, 518_400] == [row["seconds"] for row in shown.rows]
    assert (None, None) == (shown.rows[0]["window_start"], shown.rows[0]["window_end"])
    assert "What to do:" in shown.rows[0]["note"]
    assert 1 == shown.status
    assert "1 run without a window." in show("events", "2026-01-01", "2026-01-31").out


def test_windows_that_are_not_over(show: Any) -> None:
    """A backfill leaves them out, and the schedule makes them later; they are shown and marked."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first, last = ((today + timedelta(days=days)).isoformat() for days in (-1, 2))
    shown = show("daily", first, last, "--json")
    assert ["", ""] == [row["note"] for row in shown.rows[:2]]
    assert ("not over yet", 0) == (shown.rows[-1]["note"], shown.status)


@pytest.mark.parametrize(
    ("dag_id", "remark"),
    [
        ("reaching_back", "a window reaches back to where the last success ended"),
        ("too_late", "window_offset is 6:00:00"),
        pytest.param("partitions_too_early", "set run_offset=-1", marks=pytest.mark.needs_airflow(3, 2, "partitions")),
        ("without", "has no OnDemandFlowRunOperator"),
    ],
)
def test_remarks(dag_id: str, remark: str, show: Any) -> None:
    """What the windows alone do not tell stands on standard error."""
    shown = show(dag_id, "2026-01-02", "2026-01-03", "--json")
    assert remark in shown.err
    # Airflow 3.2 goes by the dates of runs: Zurich's 2 January begins before the 2nd of UTC.
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
        ("two_unlike", [], "choose one with --task-id:\n  one: window_offset=None"),
        ("two_unlike", ["-t", "third"], "window_start and window_end are arguments of 'third'"),
    ],
)
def test_what_cannot_be_shown(dag_id: str, options: list[str], message: str, show: Any) -> None:
    """Exit status 2, the reason on standard error, and nothing on standard output."""
    shown = show(dag_id, "2026-01-02", "2026-01-03", *options)
    assert (2, "") == (shown.status, shown.out)
    assert message in shown.err


def test_the_task_that_is_named(show: Any) -> None:
    """Of tasks that differ, one can be chosen."""
    starts = [show("two_unlike", "2026-01-02", "2026-01-02", "--json", "-t", name).windows for name in ("one", "other")]
    assert [[("01-01T00:00", "01-02T00:00", "")], [("12-31T18:00", "01-01T18:00", "")]] == starts


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("2026-01-02T01:00", "2026-01-02T02:00", "makes no run from 2026-01-02T01:00:00+00:00"),
        ("2026-01-03", "2026-01-02", "is after --to"),
        ("soon", "2026-01-02", "--from"),
    ],
)
def test_dates_without_runs(first: str, last: str, message: str, show: Any) -> None:
    """Nothing to show is not the same as windows that tile."""
    shown = show("daily", first, last)
    assert (2, "") == (shown.status, shown.out)
    assert message in shown.err


def test_a_file_that_cannot_be_imported(tmp_path: Path, show: Any) -> None:
    """The cause is told, not that the DAG is unknown."""
    path = tmp_path / "broken.py"
    path.write_text("from airflow.sdk import DAG\nimport no_such_module\nbroken = DAG('broken')\n")
    shown = show("broken", "2026-01-02", "2026-01-03", path=path)
    assert (2, "") == (shown.status, shown.out)
    assert f"{path}: ModuleNotFoundError: No module named 'no_such_module'" in shown.err.splitlines()[-1]


def test_a_file_that_is_not_there(tmp_path: Path, show: Any) -> None:
    """A wrong path is told from a DAG that is unknown."""
    shown = show("daily", "2026-01-02", "2026-01-03", path=tmp_path / "none.py")
    assert (2, f"Error: there is no file {tmp_path / 'none.py'}\n") == (shown.status, shown.err)


def test_a_folder_without_dags(tmp_path: Path, show: Any) -> None:
    """It says where it looked."""
    shown = show("daily", "2026-01-02", "2026-01-03", path=tmp_path)
    assert 2 == shown.status
    assert f"there is no DAG in {tmp_path}" in shown.err


def test_a_dag_file_may_import_its_neighbours(tmp_path: Path, show: Any) -> None:
    """As in a DAG folder; and a file that is named is read, whatever words stand in it."""
    (tmp_path / "my_factory.py").write_text(
        "from airflow.sdk import DAG\n\ndef make(name):\n    return DAG(name, schedule='@daily')\n"
    )
    path = tmp_path / "made.py"
    path.write_text("from my_factory import make\nmade = make('made_elsewhere')\n")
    assert 0 == show("made_elsewhere", "2026-01-02", "2026-01-03", path=path).status


def test_the_examples(show: Any) -> None:
    """The DAGs that come with this package have windows that tile."""
    folder = Path(__file__).parents[3] / "dags_examples"
    for dag_id in ("flowservice_daily", "flowservice_files_hourly", "flowservice_sensor"):
        shown = show(dag_id, "2026-03-25", "2026-04-02", path=folder)
        assert 0 == shown.status, shown.err
        assert shown.out.endswith(" tile.\n")


def test_an_unknown_bundle(show: Any) -> None:
    """Airflow's own reason is told."""
    shown = show("daily", "2026-01-02", "2026-01-03", "--bundle-name", "unknown", path=None)
    assert 2 == shown.status
    assert "Requested bundle 'unknown' is not configured" in shown.err


class TestProcesses:
    """The commands as people type them, with an Airflow that was never used."""

    @pytest.fixture
    def home(self, tmp_path: Path, zoo: Path) -> Path:
        """An `AIRFLOW_HOME` with nothing but a DAG folder."""
        (tmp_path / "dags").mkdir()
        (tmp_path / "dags" / "zoo.py").write_text(zoo.read_text())
        return tmp_path

    @pytest.fixture
    def run(self, home: Path) -> Any:
        """Runs a command."""
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
        """The DAG is found in the DAG folder; no database and no configuration appear."""
        shown = run(
            "airflow_flowservice",
            "windows",
            "daily_zurich",
            "--from",
            "2026-03-28",
            "--to",
            "2026-03-30T22:00",
            "--json",
        )
        assert ["", "local day of 23 h", ""] == [row["note"] for row in shown.rows]
        assert 0 == shown.status
        assert [home / "dags" / "zoo.py"] == [
            path for path in home.rglob("*") if path.is_file() and path.suffix != ".pyc"
        ]

    def test_airflows_own_command_line(self, run: Any, home: Path) -> None:
        """`airflow flowservice windows` says the same; its exit status is that of the windows."""
        from airflow_flowservice._airflow import versions

        if versions.version() < (3, 2):
            pytest.skip("Airflow's command line takes a provider's commands since 3.2")
        options = ("interval_zurich", "--from", "2026-03-28", "--to", "2026-03-31", "-f", str(home / "dags" / "zoo.py"))
        shown = run("airflow", "flowservice", "windows", *options, "--json")
        assert ["", "overlap of 1 h", ""] == [row["note"] for row in shown.rows]
        assert 1 == shown.status
        assert [] == [path for path in home.rglob("*") if ".db" in path.name]
