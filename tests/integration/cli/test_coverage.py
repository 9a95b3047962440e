"""`airflow flowservice coverage` on Airflow's own tables, with the emulator over real HTTP."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from instants import instant

from airflow_flowservice._airflow import database
from airflow_flowservice.cli.timeline import SIGNS, bar_of, rows_of
from airflow_flowservice.coverage.cover import Asked, State, cover
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, ran, summary

__all__ = ["ran"]
DATES = ("--from", "2026-01-01", "--to", "2026-01-08")
OTHER_FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"


@pytest.fixture
def session(airflow_db: Any) -> Iterator[Any]:
    """A session of the metadata database that commands read as well; empty again afterwards."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as opened:
        yield opened
    with create_session() as cleaning:
        for model in (XComModel, TaskInstance, DagRun):
            cleaning.execute(delete(model))


@pytest.fixture
def leave(ran: Callable[..., str], session: Any) -> Callable[..., None]:
    """Leave the DAG run and task of a day of January, for the command to find."""

    def leave(number: int, *, window: int | None = None, **fields: Any) -> None:
        """Day 2 has the window of day 1."""
        if window is not None:
            fields["pushed"] = summary(window, BEGIN + (number - 2) * DAY, flow_id=fields.pop("flow_id", FLOW))
        ran(BEGIN + (number - 1) * DAY, **fields)
        session.commit()

    return leave


@pytest.fixture
def daily(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DAG `daily` is scheduled daily from January on."""
    from airflow.timetables.trigger import CronTriggerTimetable

    schedule = database.DagSchedule(timetable=CronTriggerTimetable("0 0 * * *", timezone="UTC"), start=BEGIN)
    monkeypatch.setattr(database, "schedule_of", lambda _, dag_id: schedule if dag_id == "daily" else None)


@pytest.fixture
def make_run(connect: Callable[..., str]) -> Callable[..., str]:
    """Have Flow Service ingest a day of January; gives the flow run's id."""
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
def seven_days(leave: Callable[..., None], daily: None) -> None:
    """1 is in; 2 failed; 3 is missing though it has a DAG run; 4 and 5 have no DAG run; 6 and 7 are in."""
    leave(2, window=1)
    leave(3, state="failed", run_state="failed")
    leave(4, state="skipped", run_state="success")
    leave(7, window=6)
    leave(8, window=7)


def states(shown: Any) -> list[str]:
    """The state of each span."""
    return [span["state"] for span in shown.json["spans"]]


def test_each_window_is_told(seven_days: None, command: Any) -> None:
    """From XComs and the schedule alone; with a remark that Flow Service was not asked."""
    shown = command("coverage", "--dag-id", "daily", *DATES, "--json")
    assert ["ingested", "failed", "missing", "missing", "missing", "ingested", "ingested"] == states(shown)
    assert (1, False, False) == (shown.status, shown.json["whole"], shown.json["asked_flow_service"])
    assert {"windows": 3, "seconds": 3 * 86400} == shown.json["totals"]["missing"]
    assert FLOW == shown.json["flow_id"]
    assert "Flow Service was not asked" in shown.err
    failed = shown.json["spans"][1]
    assert ("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z") == (failed["window_start"], failed["window_end"])
    assert [("ingest", "failed")] == [(run["task_id"], run["task_state"]) for run in failed["dag_runs"]]


def test_for_people(seven_days: None, command: Any) -> None:
    """A sign for each state in bar and table, readable without colour; windows that are alike stand together."""
    shown = command("coverage", "--dag-id", "daily", *DATES)
    lines = shown.out.splitlines()
    bar = next(line for line in lines if line.startswith("|"))
    assert ["=", "x", ".", "="] == [sign for sign, before in zip(bar[1:-1], bar, strict=False) if sign != before]
    assert any(line.startswith("2026-01-03  2026-01-06") and "3  . missing" in line for line in lines)
    assert any(line.startswith("2026-01-06  2026-01-08") and "2  = ingested" in line for line in lines)
    assert any("failed    DAG run scheduled__2026-01-03T00:00:00+00:00, task failed" in line for line in lines)
    assert "3 ingested, 3 missing, 1 failed." == lines[-1]
    assert "\x1b" not in shown.out
    assert 1 == shown.status


def test_the_printed_command(seven_days: None, command: Any) -> None:
    """It is what Airflow's own command line takes: the runs' dates, and the DAG runs that are there run again."""
    from airflow.cli.cli_parser import get_parser

    shown = command("coverage", "--dag-id", "daily", *DATES)
    (line,) = (line.strip() for line in shown.out.splitlines() if line.startswith("  airflow "))
    options = get_parser().parse_args(shlex.split(line)[1:])
    assert ("daily", "completed") == (options.dag_id, options.reprocess_behavior)
    assert (BEGIN + 2 * DAY, BEGIN + 5 * DAY) == (options.from_date, options.to_date)
    assert [line] == command("coverage", "--dag-id", "daily", *DATES, "--json").json["fill"]


def test_all_is_in(leave: Any, daily: None, command: Any) -> None:
    """Exit status 0, and nothing to do."""
    for number in (2, 3):
        leave(number, window=number - 1)
    shown = command("coverage", "--dag-id", "daily", "--from", "2026-01-01", "--to", "2026-01-03")
    assert (0, "2 ingested.") == (shown.status, shown.out.splitlines()[-1])
    assert "backfill" not in shown.out


def test_flow_service_shows_what_a_clear_left_and_what_was_made_outside(
    leave: Any, daily: None, command: Any, connect: Any, make_run: Any
) -> None:
    """A window is in twice, one was ingested by somebody else; both only Flow Service knows."""
    make_run(1)
    make_run(2)
    leave(2, window=1)
    dates = ("--from", "2026-01-01", "--to", "2026-01-03")
    alone = command("coverage", "--dag-id", "daily", *dates, "--json")
    assert ["ingested", "missing"] == states(alone)
    asked = command("coverage", "--dag-id", "daily", *dates, "--json", "--conn-id", connect())
    assert (["twice", "outside"], 1, True) == (states(asked), asked.status, asked.json["asked_flow_service"])
    assert [False, True] == sorted(run["outside"] for run in asked.json["spans"][0]["flow_runs"])


def test_flow_service_cannot_be_reached(seven_days: None, command: Any, connect: Any) -> None:
    """What Airflow knows is shown, and the reason is remarked."""
    conn_id = connect(host="http://127.0.0.1:9", extra={"max_attempts": 1})
    shown = command("coverage", "--dag-id", "daily", *DATES, "--json", "--conn-id", conn_id)
    assert (7, 1, False) == (len(states(shown)), shown.status, shown.json["asked_flow_service"])
    assert "Flow Service could not be asked" in shown.err
    assert "What to do: check the connection's host" in shown.err


def test_flow_service_alone(command: Any, connect: Any, make_run: Any) -> None:
    """All of the time between the dates is expected; no DAG, and no database."""
    for number in (1, 2, 2, 4):
        make_run(number)
    options = ("--flow-id", FLOW, "--conn-id", connect(), "--from", "2026-01-01", "--to", "2026-01-06")
    shown = command("coverage", *options, "--json")
    assert ["ingested", "twice", "missing", "ingested", "missing"] == states(shown)
    assert (1, []) == (shown.status, shown.json["fill"])
    table = command("coverage", *options)
    assert "Flow Service alone" in table.out.splitlines()[0]
    assert "backfill" not in table.out


def test_flow_service_alone_without_windows(command: Any, connect: Any, make_run: Any, emulator: Any) -> None:
    """Nobody can tell what is missing then; the runs are listed apart."""
    run_id = make_run(1)
    emulator.plan_fault(kind="GET /runs", action="hide_windows")
    options = ("--flow-id", FLOW, "--conn-id", connect(), "--from", "2026-01-01", "--to", "2026-01-06")
    shown = command("coverage", *options, "--json")
    assert (["unknown"], [run_id], 0) == (states(shown), [run["id"] for run in shown.json["unplaced"]], shown.status)
    assert f"  {run_id} (success)" in command("coverage", *options).out


def test_the_time_that_is_not_over_is_not_missing(command: Any, connect: Any) -> None:
    """Nobody could have ingested it."""
    tomorrow = (datetime.now(timezone.utc) + 2 * DAY).date().isoformat()
    options = ("--flow-id", FLOW, "--conn-id", connect(), "--from", "2026-01-01", "--to", tomorrow, "--json")
    (span,) = command("coverage", *options).json["spans"]
    assert timedelta(minutes=5) > abs(datetime.now(timezone.utc) - instant(span["window_end"]))


def test_several_dataflows(leave: Any, daily: None, command: Any) -> None:
    """One of them has to be named; a task that has told nothing may feed it, one that feeds another does not."""
    leave(2, window=1)
    leave(2, window=101, task_id="other", flow_id=OTHER_FLOW)
    leave(3, state="failed", run_state="failed")
    leave(3, window=102, task_id="other", flow_id=OTHER_FLOW)
    dates = ("--from", "2026-01-01", "--to", "2026-01-03")
    shown = command("coverage", "--dag-id", "daily", *dates)
    assert (2, "") == (shown.status, shown.out)
    assert f"  {OTHER_FLOW}, of task other" in shown.err
    by_flow = [command("coverage", "-d", "daily", *dates, "--json", "--flow-id", flow) for flow in (FLOW, OTHER_FLOW)]
    assert [["ingested", "failed"], ["ingested", "ingested"]] == [states(each) for each in by_flow]
    assert ["ingested", "ingested"] == states(command("coverage", "-d", "daily", *dates, "--json", "-t", "other"))


def test_a_task_that_the_command_would_run_again_is_told(leave: Any, daily: None, command: Any) -> None:
    """Airflow runs all tasks of a DAG run again, and this one's window would be in twice."""
    leave(2, state="failed", run_state="failed", pushed=summary(1, BEGIN, status="failed"))
    leave(2, window=101, task_id="other", flow_id=OTHER_FLOW, run_state="failed")
    leave(2, window=101, task_id="watch", flow_id=OTHER_FLOW, run_state="failed", operator="FlowRunSensor")
    dates = ("--from", "2026-01-01", "--to", "2026-01-02", "--flow-id", FLOW)
    shown = command("coverage", "-d", "daily", *dates)
    assert [line for line in shown.out.splitlines() if line.endswith("clear the failed task alone instead: other")]
    assert ["other"] == command("coverage", "-d", "daily", *dates, "--json", "-t", "ingest").json["again"]
    leave(3, window=2, task_id="other", flow_id=OTHER_FLOW)
    whole = ("--from", "2026-01-02", "--to", "2026-01-03", "--flow-id", OTHER_FLOW)
    assert [] == command("coverage", "-d", "daily", *whole, "--json").json["again"]


def test_a_task_whose_own_window_is_missing_is_not_told_so(leave: Any, daily: None, command: Any) -> None:
    """It succeeded without a flow run, and is what the command is for."""
    leave(2)
    found = command("coverage", "-d", "daily", "--from", "2026-01-01", "--to", "2026-01-02", "--json").json
    assert ([], True) == (found["again"], found["fill"][0].endswith("--reprocess-behavior completed"))


def test_gaps_that_no_backfill_makes(leave: Any, daily: None, command: Any) -> None:
    """Windows that somebody named: the advice is another one."""
    conf = {"window_start": "2026-01-01T06:00:00Z", "window_end": "2026-01-01T07:00:00Z"}
    leave(1, run_type="manual", conf=conf, state="failed", run_state="failed")
    leave(2, window=1)
    shown = command("coverage", "-d", "unscheduled", "--from", "2026-01-01", "--to", "2026-01-02")
    assert 2 == shown.status
    leave(1, run_type="manual", conf=conf, state="failed", run_state="failed", dag_id="unscheduled")
    shown = command("coverage", "-d", "unscheduled", "--from", "2026-01-01", "--to", "2026-01-02")
    assert (1, "1 failed.") == (shown.status, shown.out.splitlines()[-1])
    conf = '{"window_start": "2026-01-01T06:00:00Z", "window_end": "2026-01-01T07:00:00Z"}'
    assert f"  airflow dags trigger unscheduled --conf '{conf}'" in shown.out.splitlines()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "2026-01-02", "--to", "2026-01-01", "-d", "daily"), "--from and --to do not give a span of time"),
        (("--from", "2026-01-01", "--to", "2026-01-02"), "give --dag-id, or --flow-id and --conn-id"),
        (("--from", "2026-01-01", "--to", "2026-01-02", "--flow-id", FLOW), "give --dag-id, or --flow-id and --conn"),
        (("--from", "2026-01-01", "--to", "2026-01-02", "-d", "nobody"), "Airflow's database has no DAG 'nobody'"),
        (("--from", "2025-01-01", "--to", "2025-02-01", "-d", "daily"), "DAG 'daily' has no window in 2025-01-01T00"),
        (("--from", "2026-01-01"), "--to"),
    ],
)
@pytest.mark.usefixtures("session", "daily")
def test_nothing_to_show(options: tuple[str, ...], message: str, command: Any) -> None:
    """Exit status 2, the reason on standard error, and nothing on standard output."""
    shown = command("coverage", *options)
    assert (2, "") == (shown.status, shown.out)
    assert message in shown.err


def test_an_unknown_connection_without_a_dag(command: Any, airflow_db: Any) -> None:
    """There is nothing to show then."""
    shown = command("coverage", "--flow-id", FLOW, "--conn-id", "nowhere", *DATES)
    assert (2, "") == (shown.status, shown.out)
    assert "the connection 'nowhere' does not exist" in shown.err


def test_the_bar_shows_what_needs_somebody() -> None:
    """A missing hour in a year is seen, however narrow the bar."""
    year = IngestionWindow(BEGIN, BEGIN + 365 * DAY)
    hour = IngestionWindow(BEGIN + 100 * DAY, BEGIN + 100 * DAY + timedelta(hours=1))
    whole = cover([Asked(window=year, task_state="running")], [])
    gap = cover([Asked(window=hour, task_state="failed")], [])
    bar = bar_of([*whole.spans, *gap.spans], within=year, cells=20)
    assert [State.RUNNING] * 5 + [State.FAILED] + [State.RUNNING] * 14 == bar
    assert [None] * 19 == [cell for cell in bar_of(gap.spans, within=year, cells=20) if cell is None]


def test_every_state_has_a_sign_of_its_own() -> None:
    """Colour is not needed."""
    assert len(State) == len(set(SIGNS.values()))


def test_a_gap_between_windows_divides_rows() -> None:
    """Only windows that meet stand together."""
    windows = [IngestionWindow(BEGIN + number * DAY, BEGIN + (number + 1) * DAY) for number in (0, 1, 3)]
    rows = rows_of(cover([Asked(window=window) for window in windows], []).spans)
    assert [(2, State.MISSING), (1, State.MISSING)] == [(row.windows, row.state) for row in rows]
