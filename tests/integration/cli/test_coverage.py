# SPDX-License-Identifier: Apache-2.0
"""Run `airflow flowservice coverage` on Airflow's own tables, with the emulator over real HTTP."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import yaml
from instants import instant

from airflow_flowservice._airflow import database, versions
from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.cli.timeline import SIGNS, label_of, timeline_rows
from airflow_flowservice.coverage.cover import ExpectedWindow, KnownRun, State, cover
from airflow_flowservice.coverage.state_bar import bar_of
from airflow_flowservice.emulator.settings import HOURLY_FLOW_ID
from airflow_flowservice.windows.window import IngestionWindow
from tests.dag_history import delete_history
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, ran, summary

__all__ = ["ran"]
DATES = ("--from", "2026-01-01", "--to", "2026-01-08")
OTHER_FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"


@pytest.fixture
def session(airflow_db: Any) -> Iterator[Any]:
    """Open a session of the metadata database that the commands read, and empty the tables afterwards."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as opened:
        yield opened
    with create_session() as cleaning:
        delete_history(cleaning, XComModel, TaskInstance, DagRun)


@pytest.fixture
def add_day(ran: Callable[..., str], session: Any) -> Callable[..., None]:
    """Return a function that adds the DAG run and task instance of a day of January to the database."""

    def add(number: int, *, window: int | None = None, **fields: Any) -> None:
        """Add the DAG run of a day; that of day 2 has the window of day 1."""
        if window is not None:
            fields["pushed"] = summary(window, BEGIN + (number - 2) * DAY, flow_id=fields.pop("flow_id", FLOW))
        ran(BEGIN + (number - 1) * DAY, **fields)
        session.commit()

    return add


@pytest.fixture
def daily(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedule the DAG `daily` daily from January."""
    from airflow.timetables.trigger import CronTriggerTimetable

    schedule = database.DagSchedule(timetable=CronTriggerTimetable("0 0 * * *", timezone="UTC"), start=BEGIN)
    monkeypatch.setattr(database, "dag_schedule_of", lambda _, dag_id: schedule if dag_id == "daily" else None)


@pytest.fixture
def make_run(connect: Callable[..., str]) -> Callable[..., str]:
    """Return a function that ingests a day of January with Flow Service, and returns the flow run's id."""
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.hooks import client_of

    def make(number: int, *, flow_id: str = FLOW) -> str:
        start = BEGIN + (number - 1) * DAY
        client = client_of(connections.stored_connection(connect()))
        created = client.create_run(
            flow_id=flow_id,
            window=IngestionWindow(start, start + DAY),
            start_time=datetime.now(timezone.utc) - timedelta(seconds=5),
        )
        return created.id

    return make


@pytest.fixture
def seven_days(add_day: Callable[..., None], daily: None) -> None:
    """Add 1, 6 and 7 as ingested, 2 as failed and 3 as missing with a DAG run; 4 and 5 have no DAG run."""
    add_day(2, window=1)
    add_day(3, state="failed", run_state="failed")
    add_day(4, state="skipped", run_state="success")
    add_day(7, window=6)
    add_day(8, window=7)


def states(shown: Any) -> list[str]:
    """Return the state of each span."""
    return [span["state"] for span in shown.json["spans"]]


def test_state_of_each_window(seven_days: None, command: Any) -> None:
    """The states are from XComs and the schedule; a note states that Flow Service was not queried."""
    shown = command("coverage", "--dag-id", "daily", *DATES, "--output=json")
    assert ["ingested", "failed", "missing", "missing", "missing", "ingested", "ingested"] == states(shown)
    assert (1, False, False) == (shown.status, shown.json["whole"], shown.json["asked_flow_service"])
    assert {"windows": 3, "seconds": 3 * 86400} == shown.json["totals"]["missing"]
    assert FLOW == shown.json["flow_id"]
    assert "Flow Service was not queried" in shown.err
    failed = shown.json["spans"][1]
    assert ("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z") == (failed["window_start"], failed["window_end"])
    assert [("ingest", "failed")] == [(run["task_id"], run["task_state"]) for run in failed["dag_runs"]]


def test_schedule_that_cannot_be_decoded(seven_days: None, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The windows of DAG runs are shown, and a notice states that others are not."""
    schedule = database.DagSchedule(timetable=None, start=BEGIN)
    monkeypatch.setattr(database, "dag_schedule_of", lambda *_: schedule)
    shown = command("coverage", "--dag-id", "daily", *DATES, "--output=json")
    assert ["ingested", "ingested", "ingested"] == states(shown)
    assert "The schedule of DAG daily cannot be decoded here" in " ".join(shown.json["notices"])


def test_table(seven_days: None, command: Any) -> None:
    """Time line and table have a sign for each state; contiguous windows with the same state share a row."""
    shown = command("coverage", "--dag-id", "daily", *DATES)
    lines = shown.out.splitlines()
    bar = next(line for line in lines if line.startswith("|"))
    assert ["=", "x", ".", "="] == [sign for sign, previous in zip(bar[1:-1], bar, strict=False) if sign != previous]
    assert any(line.startswith("2026-01-03 | 2026-01-06") and "3 | . missing" in line for line in lines)
    assert any(line.startswith("2026-01-06 | 2026-01-08") and "2 | = ingested" in line for line in lines)
    assert any("x failed   | DAG run scheduled__2026-01-03T00:00:00+00:00, task failed" in line for line in lines)
    assert "3 ingested, 3 missing, 1 failed." == lines[-1]
    assert "\x1b" not in shown.out
    assert 1 == shown.status


@pytest.mark.usefixtures("seven_days")
def test_yaml_has_the_json_document(command: Any) -> None:
    """`--output yaml` and `--json` print the same values as `--output json`."""
    options = ("coverage", "--dag-id", "daily", *DATES)
    document = command(*options, "-o", "json").json
    assert document == yaml.safe_load(command(*options, "-o", "yaml").out)
    assert document == command(*options, "--json").json


@pytest.mark.usefixtures("seven_days")
def test_plain_has_only_rows(command: Any) -> None:
    """`--output plain` prints one line for each row of the table."""
    lines = command("coverage", "--dag-id", "daily", *DATES, "-o", "plain").out.splitlines()
    assert ["from", "to", "windows", "state", "note"] == lines[0].split()
    assert ["2026-01-01", "2026-01-02", "1", "=", "ingested"] == lines[1].split()
    assert 5 == len(lines)


def test_printed_command(seven_days: None, command: Any) -> None:
    """Airflow's command line accepts the command: it has the dates of DAG runs, and runs existing DAG runs again."""
    from airflow.cli.cli_parser import get_parser

    shown = command("coverage", "--dag-id", "daily", *DATES)
    (line,) = (line.strip() for line in shown.out.splitlines() if line.startswith("  airflow "))
    options = get_parser().parse_args(shlex.split(line)[1:])
    assert ("daily", "completed") == (options.dag_id, options.reprocess_behavior)
    assert (BEGIN + 2 * DAY, BEGIN + 5 * DAY) == (options.from_date, options.to_date)
    document = command("coverage", "--dag-id", "daily", *DATES, "--output=json").json
    assert [line] == document["fill"]
    (request,) = document["requests"]
    assert request.startswith('POST /api/v2/backfills {"dag_id": "daily", "from_date": "2026-01-03T00:00:00+00:00"')
    assert f"    {request}" in shown.out.splitlines()
    assert document["fill_command"] is None


def test_fill_is_named_if_it_is_simpler(add_day: Any, daily: None, command: Any) -> None:
    """One command replaces several; the command line accepts it."""
    for number in (2, 4):
        add_day(number, window=number - 1)
    shown = command("coverage", "--dag-id", "daily", *DATES, "--output=json")
    assert 2 == len(shown.json["fill"]) == len(shown.json["requests"])
    printed = shown.json["fill_command"]
    assert f"  {printed}" in command("coverage", "--dag-id", "daily", *DATES).out.splitlines()
    program = versions.command_program()
    assert printed.startswith(f"{program} fill --dag-id daily --from 2026-01-01T00:00:00Z ")
    options = shlex.split(printed.removeprefix(program))
    assert [1, 2] == [command(*options, more).status for more in ("--dry-run", "--chunk=1y")]


def test_all_windows_are_ingested(add_day: Any, daily: None, command: Any) -> None:
    """The exit status is 0, and no command is printed."""
    for number in (2, 3):
        add_day(number, window=number - 1)
    shown = command("coverage", "--dag-id", "daily", "--from", "2026-01-01", "--to", "2026-01-03")
    assert (0, "2 ingested.") == (shown.status, shown.out.splitlines()[-1])
    assert "backfill" not in shown.out


def test_flow_service_reports_replaced_and_external_runs(
    add_day: Any, daily: None, command: Any, connect: Any, make_run: Any
) -> None:
    """Only Flow Service reports a duplicated window and a window that was ingested outside the DAG."""
    make_run(1)
    make_run(2)
    add_day(2, window=1)
    dates = ("--from", "2026-01-01", "--to", "2026-01-03")
    airflow_only = command("coverage", "--dag-id", "daily", *dates, "--output=json")
    assert ["ingested", "missing"] == states(airflow_only)
    queried = command("coverage", "--dag-id", "daily", *dates, "--output=json", "--conn-id", connect())
    assert (["twice", "outside"], 1, True) == (states(queried), queried.status, queried.json["asked_flow_service"])
    assert [False, True] == sorted(run["outside"] for run in queried.json["spans"][0]["flow_runs"])


def test_flow_service_cannot_be_reached(seven_days: None, command: Any, connect: Any) -> None:
    """Airflow's records are shown, and a note states the reason."""
    conn_id = connect(host="http://127.0.0.1:9", extra={"max_attempts": 1})
    shown = command("coverage", "--dag-id", "daily", *DATES, "--output=json", "--conn-id", conn_id)
    assert (7, 1, False) == (len(states(shown)), shown.status, shown.json["asked_flow_service"])
    assert "Flow Service could not be queried" in shown.err
    assert "What to do: check the connection's host" in shown.err


def test_flow_service_only(command: Any, connect: Any, make_run: Any) -> None:
    """Without a DAG and a database, the whole time between the dates is expected."""
    for number in (1, 2, 2, 4):
        make_run(number)
    options = ("--flow-id", FLOW, "--conn-id", connect(), "--from", "2026-01-01", "--to", "2026-01-06")
    shown = command("coverage", *options, "--output=json")
    assert ["ingested", "twice", "missing", "ingested", "missing"] == states(shown)
    assert (1, []) == (shown.status, shown.json["fill"])
    table = command("coverage", *options)
    assert "Flow Service only" in table.out.splitlines()[0]
    assert "backfill" not in table.out


def test_dataflow_that_adobe_schedules(command: Any, connect: Any, emulator: Any) -> None:
    """The windows of its flow runs are ingested, and hours without one are missing."""
    for hour in (0, 1, 3):
        start = BEGIN + timedelta(hours=hour)
        emulator.add_run(flow_id=HOURLY_FLOW_ID, window_start=start, window_end=start + timedelta(hours=1))
    dates = ("--from", "2026-01-01T00:00Z", "--to", "2026-01-01T04:00Z")
    shown = command("coverage", "--flow-id", HOURLY_FLOW_ID, "--conn-id", connect(), *dates, "--output=json")
    assert ["ingested", "ingested", "missing", "ingested"] == states(shown)
    assert ["2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"] == [
        shown.json["spans"][2][name] for name in ("window_start", "window_end")
    ]


def test_flow_service_only_without_windows(command: Any, connect: Any, make_run: Any, emulator: Any) -> None:
    """If Flow Service reports no windows, the state is unknown, and the runs are listed separately."""
    run_id = make_run(1)
    emulator.plan_fault(kind="GET /runs", action="hide_windows")
    options = ("--flow-id", FLOW, "--conn-id", connect(), "--from", "2026-01-01", "--to", "2026-01-06")
    shown = command("coverage", *options, "--output=json")
    assert (["unknown"], [run_id], 0) == (states(shown), [run["id"] for run in shown.json["unplaced"]], shown.status)
    table = command("coverage", *options).out
    assert f"  {run_id} (success)" in table
    assert "Flow Service reported no window for these runs" in table
    assert "1 with unknown outcome." == table.splitlines()[-1]


def test_future_time_is_not_missing(command: Any, connect: Any) -> None:
    """The last span ends now."""
    tomorrow = (datetime.now(timezone.utc) + 2 * DAY).date().isoformat()
    options = ("--flow-id", FLOW, "--conn-id", connect(), "--from", "2026-01-01", "--to", tomorrow, "--output=json")
    (span,) = command("coverage", *options).json["spans"]
    assert timedelta(minutes=5) > abs(datetime.now(timezone.utc) - instant(span["window_end"]))


def test_several_dataflows(add_day: Any, daily: None, command: Any) -> None:
    """One dataflow must be selected. A task without a flow run belongs to it, but not a task of another dataflow."""
    add_day(2, window=1)
    add_day(2, window=101, task_id="other", flow_id=OTHER_FLOW)
    add_day(3, state="failed", run_state="failed")
    add_day(3, window=102, task_id="other", flow_id=OTHER_FLOW)
    dates = ("--from", "2026-01-01", "--to", "2026-01-03")
    shown = command("coverage", "--dag-id", "daily", *dates)
    assert (2, "") == (shown.status, shown.out)
    assert f"  {OTHER_FLOW}, of task other" in shown.err
    by_flow = [
        command("coverage", "-d", "daily", *dates, "--output=json", "--flow-id", flow) for flow in (FLOW, OTHER_FLOW)
    ]
    assert [["ingested", "failed"], ["ingested", "ingested"]] == [states(each) for each in by_flow]
    assert ["ingested", "ingested"] == states(
        command("coverage", "-d", "daily", *dates, "--output=json", "-t", "other")
    )


def test_succeeded_tasks_that_would_run_again_are_named(add_day: Any, daily: None, command: Any) -> None:
    """Airflow runs all tasks of a DAG run again, so the window of a succeeded task would be duplicated."""
    add_day(2, state="failed", run_state="failed", pushed=summary(1, BEGIN, status="failed"))
    add_day(2, window=101, task_id="other", flow_id=OTHER_FLOW, run_state="failed")
    add_day(2, window=101, task_id="watch", flow_id=OTHER_FLOW, run_state="failed", operator="FlowRunSensor")
    dates = ("--from", "2026-01-01", "--to", "2026-01-02", "--flow-id", FLOW)
    shown = command("coverage", "-d", "daily", *dates)
    assert [line for line in shown.out.splitlines() if line.endswith("clear only the failed task instead: other")]
    assert ["other"] == command("coverage", "-d", "daily", *dates, "--output=json", "-t", "ingest").json["again"]
    add_day(3, window=2, task_id="other", flow_id=OTHER_FLOW)
    whole = ("--from", "2026-01-02", "--to", "2026-01-03", "--flow-id", OTHER_FLOW)
    assert [] == command("coverage", "-d", "daily", *whole, "--output=json").json["again"]


def test_task_with_missing_window_is_not_named(add_day: Any, daily: None, command: Any) -> None:
    """A task that succeeded without a flow run should run again."""
    add_day(2)
    found = command("coverage", "-d", "daily", "--from", "2026-01-01", "--to", "2026-01-02", "--output=json").json
    assert ([], True) == (found["again"], found["fill"][0].endswith("--reprocess-behavior completed"))


def test_gaps_that_no_backfill_creates(add_day: Any, daily: None, command: Any) -> None:
    """For a window in a DAG run's conf, the output has a trigger command."""
    conf = {"window_start": "2026-01-01T06:00:00Z", "window_end": "2026-01-01T07:00:00Z"}
    add_day(1, run_type="manual", conf=conf, state="failed", run_state="failed")
    add_day(2, window=1)
    shown = command("coverage", "-d", "unscheduled", "--from", "2026-01-01", "--to", "2026-01-02")
    assert 2 == shown.status
    add_day(1, run_type="manual", conf=conf, state="failed", run_state="failed", dag_id="unscheduled")
    shown = command("coverage", "-d", "unscheduled", "--from", "2026-01-01", "--to", "2026-01-02")
    assert (1, "1 failed.") == (shown.status, shown.out.splitlines()[-1])
    conf = '{"window_start": "2026-01-01T06:00:00Z", "window_end": "2026-01-01T07:00:00Z"}'
    assert f"  airflow dags trigger unscheduled --conf '{conf}'" in shown.out.splitlines()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "2026-01-02", "--to", "2026-01-01", "-d", "daily"), "--from and --to are no valid range"),
        (("--from", "2026-01-01", "--to", "2026-01-02"), "give --dag-id, or --flow-id and --conn-id"),
        (("--from", "2026-01-01", "--to", "2026-01-02", "--flow-id", FLOW), "give --dag-id, or --flow-id and --conn"),
        (("--from", "2026-01-01", "--to", "2026-01-02", "-d", "absent"), "Airflow's database has no DAG 'absent'"),
        (("--from", "2025-01-01", "--to", "2025-02-01", "-d", "daily"), "DAG 'daily' has no window in 2025-01-01T00"),
        (("--from", "2026-01-01"), "--to"),
    ],
)
@pytest.mark.usefixtures("session", "daily")
def test_nothing_to_show(options: tuple[str, ...], message: str, command: Any) -> None:
    """The exit status is 2, standard error has the reason, and standard output is empty."""
    shown = command("coverage", *options)
    assert (2, "") == (shown.status, shown.out)
    assert message in shown.err


def test_unknown_connection_without_dag(command: Any, airflow_db: Any) -> None:
    """Without a DAG and a connection, there is nothing to show."""
    shown = command("coverage", "--flow-id", FLOW, "--conn-id", "nowhere", *DATES)
    assert (2, "") == (shown.status, shown.out)
    assert "the connection 'nowhere' does not exist" in shown.err


def test_bar_shows_the_most_urgent_state() -> None:
    """A short failed window is visible in a time line of a year."""
    year = IngestionWindow(BEGIN, BEGIN + 365 * DAY)
    hour = IngestionWindow(BEGIN + 100 * DAY, BEGIN + 100 * DAY + timedelta(hours=1))
    whole = cover([ExpectedWindow(window=year, task_state="running")], [])
    gap = cover([ExpectedWindow(window=hour, task_state="failed")], [])
    bar = bar_of([*whole.spans, *gap.spans], within=year, cells=20)
    assert [State.RUNNING] * 5 + [State.FAILED] + [State.RUNNING] * 14 == bar
    assert [None] * 19 == [cell for cell in bar_of(gap.spans, within=year, cells=20) if cell is None]


def test_every_state_has_its_own_sign() -> None:
    """The states differ without colours."""
    assert len(State) == len(set(SIGNS.values()))


def test_gap_between_windows_divides_rows() -> None:
    """Only contiguous windows share a row."""
    windows = [IngestionWindow(BEGIN + number * DAY, BEGIN + (number + 1) * DAY) for number in (0, 1, 3)]
    rows = timeline_rows(cover([ExpectedWindow(window=window) for window in windows], []).spans)
    assert [(2, State.MISSING), (1, State.MISSING)] == [(row.windows, row.state) for row in rows]


@pytest.mark.parametrize(
    ("task_state", "status", "label"),
    [
        (None, None, "missing"),
        ("queued", None, "scheduled"),
        ("deferred", None, "running"),
        ("deferred", FlowRunStatus.SCHEDULED, "scheduled"),
        ("deferred", FlowRunStatus.IN_PROGRESS, "running"),
        ("success", FlowRunStatus.SUCCESS, "ingested"),
        ("success", FlowRunStatus.PARTIAL_SUCCESS, "ingested in part"),
        ("success", FlowRunStatus.UNKNOWN, "unknown outcome"),
    ],
)
def test_label(task_state: str | None, status: FlowRunStatus | None, label: str) -> None:
    """Windows ingested in part and scheduled windows have separate labels."""
    window = IngestionWindow(BEGIN, BEGIN + DAY)
    runs = [KnownRun(id="r", window=window, status=status)] if status else []
    (span,) = cover([ExpectedWindow(window=window, dag_run_id="d", task_state=task_state)], runs).spans
    assert label == label_of(span)
