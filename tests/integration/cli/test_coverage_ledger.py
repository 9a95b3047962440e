# SPDX-License-Identifier: Apache-2.0
"""Run `airflow flowservice coverage` with a ledger, after Airflow's history was deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice._airflow import database, history_start
from airflow_flowservice._airflow.variable_ledger import ledger_key
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.cli.test_coverage import add_day, daily, session, states
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, ran, summary

__all__ = ["add_day", "daily", "ran", "session"]
MONTH = ("--from", "2026-01-01", "--to", "2026-01-31")
ORG = "EMULATOR@AdobeOrg"


def entry(number: int, *, sandbox: str = "prod", dag_id: str = "daily", **fields: Any) -> LedgerEntry:
    """Return the entry of a day of January that the next day's DAG run ingested."""
    start = BEGIN + (number - 1) * DAY
    defaults = {
        "dataflow": DataflowKey(ORG, sandbox, FLOW),
        "window": IngestionWindow(start, start + DAY),
        "state": EntryState.INGESTED,
        "owner": f"{dag_id}/scheduled__{(start + DAY).isoformat()}/ingest/-1",
        "flow_run_id": summary(number, start)["id"],
        "delivered": True,
        "intent": {"order": "{}", "max_tries": 2, "token": "made-up", "written_at": start.timestamp()},
        "output_records": 1440,
        "updated_at": (start + DAY).timestamp(),
    }
    return LedgerEntry(**{**defaults, **fields})


@pytest.fixture
def store(session: Any) -> Iterator[Callable[..., None]]:
    """Return a function that stores entries in Airflow's Variables, as tasks do; remove them afterwards."""
    from airflow.models.variable import Variable
    from sqlalchemy import delete

    def put(*entries: LedgerEntry) -> None:
        for each in entries:
            text = json.dumps(each.to_json())
            session.add(Variable(key=ledger_key(*each.key), val=text, description=text))
        session.commit()

    yield put
    session.rollback()
    session.execute(delete(Variable))
    session.commit()


@pytest.fixture
def store_in_database(session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that stores entries in a SQL ledger, which the configuration selects."""
    file = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{file}")
    ledger.migrate()
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "ledger")
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(file)}))

    def put(*entries: LedgerEntry) -> None:
        for each in entries:
            ledger.put(replace(each, version=0))

    return put


@pytest.fixture
def month(add_day: Any, daily: None) -> None:
    """Add thirty days of DAG runs that ingested their windows."""
    for number in range(2, 32):
        add_day(number, window=number - 1)


@pytest.fixture
def clean(session: Any) -> Callable[..., None]:
    """Return a function that deletes rows of DAG runs before a day of January, as `airflow db clean`."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import delete, select

    models = {"xcom": XComModel, "task_instance": TaskInstance, "dag_run": DagRun}

    def run(*tables: str, before: int) -> None:
        old = select(DagRun.run_id).where(DagRun.run_after < BEGIN + (before - 1) * DAY)
        run_ids = list(session.scalars(old))
        for name in tables:
            model: Any = models[name]
            session.execute(delete(model).where(model.run_id.in_(run_ids)))
        session.commit()

    return run


@pytest.fixture
def coverage(command: Any) -> Callable[..., Any]:
    """Return a function that runs the command for the month and returns its result."""

    def run(*options: str, dag_id: str = "daily", output: str = "json") -> Any:
        return command("coverage", "--dag-id", dag_id, *MONTH, f"--output={output}", *options)

    return run


TABLES = ("xcom", "task_instance", "dag_run")


@pytest.mark.usefixtures("month")
@pytest.mark.parametrize("tables", [TABLES, TABLES[:2], TABLES[:1]], ids=["runs", "tasks", "xcoms"])
def test_deleted_history_of_ingested_windows(tables: Any, clean: Any, store: Any, coverage: Any) -> None:
    """Thirty days are ingested, and the history of twenty is deleted: thirty days are ingested, none is filled."""
    store(*(entry(number) for number in range(1, 31)))
    clean(*tables, before=22)
    shown = coverage()
    assert (["ingested"] * 30, 0) == (states(shown), shown.status)
    assert ([], []) == (shown.json["fill"], shown.json["trigger"])
    assert "backfill" not in coverage(output="table").out


@pytest.mark.usefixtures("month")
@pytest.mark.parametrize("tables", [TABLES, TABLES[:2], TABLES[:1]], ids=["runs", "tasks", "xcoms"])
def test_deleted_history_without_entries(tables: Any, clean: Any, coverage: Any) -> None:
    """Windows without a record are unknown, without a command; the output shows where the history begins."""
    clean(*tables, before=22)
    shown = coverage()
    assert (["unknown"] * 20 + ["ingested"] * 10, 0) == (states(shown), shown.status)
    assert ([], []) == (shown.json["fill"], shown.json["trigger"])
    assert all(span["reason"] for span in shown.json["spans"][:20])
    table = coverage(output="table").out
    assert "2026-01-22T00:00:00Z" in table
    assert "begin" in table
    assert "backfill" not in table


NEW = "11111111-0000-4000-8000-000000000000"


@pytest.fixture
def continued(monkeypatch: pytest.MonkeyPatch, daily: None) -> None:
    """Make the DAG's task ingest into a new dataflow that continues the earlier one."""
    schedule = database.dag_schedule_of(None, "daily")  # type: ignore[arg-type]
    task = database.TaskSettings(task_id="ingest", flow_id=NEW, conn_id="flowservice_default", continues=(FLOW,))
    changed = replace(schedule, tasks=(task,))  # type: ignore[type-var]
    monkeypatch.setattr(database, "dag_schedule_of", lambda _, dag_id: changed if dag_id == "daily" else None)


@pytest.mark.usefixtures("month", "continued")
@pytest.mark.parametrize("with_option", [False, True], ids=["by the task", "by the option"])
def test_windows_of_the_earlier_dataflow(clean: Any, store: Any, coverage: Any, with_option: bool) -> None:
    """They are ingested for the dataflow that continues it, also if it has ingested nothing yet."""
    store(*(entry(number) for number in range(1, 30)))
    clean(*TABLES, before=40)
    shown = coverage(*(["--flow-id", NEW] if with_option else []))
    assert (NEW, ["ingested"] * 29 + ["missing"], 1) == (shown.json["flow_id"], states(shown), shown.status)


@pytest.mark.usefixtures("month")
@pytest.mark.parametrize(("conn_id", "status"), [("former", 0), ("flowservice_default", 2)])
def test_unreadable_ledger_of_another_task(
    coverage: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, conn_id: str, status: int
) -> None:
    """The ledger of a task that ingests another dataflow does not have to be readable; that of the dataflow has to."""
    schedule = database.dag_schedule_of(None, "daily")  # type: ignore[arg-type]
    tasks = (
        database.TaskSettings(task_id="ingest", flow_id=FLOW, conn_id="flowservice_default"),
        database.TaskSettings(task_id="other", flow_id=NEW, conn_id="former"),
    )
    changed = replace(schedule, tasks=tasks)  # type: ignore[type-var]
    monkeypatch.setattr(database, "dag_schedule_of", lambda _, dag_id: changed if dag_id == "daily" else None)
    connect(conn_id, extra={"ledger_conn_id": "absent"})
    shown = coverage()
    assert (status, FLOW) == (shown.status, shown.json["flow_id"])


@pytest.mark.usefixtures("month", "continued")
def test_history_of_the_earlier_dataflow(coverage: Any) -> None:
    """Without entries in the ledger, Airflow's history counts."""
    shown = coverage()
    assert (NEW, ["ingested"] * 30, 0) == (shown.json["flow_id"], states(shown), shown.status)


@pytest.mark.usefixtures("month")
def test_entries_with_an_id_in_upper_case(clean: Any, store: Any, coverage: Any) -> None:
    """Earlier versions stored the id as the DAG has it."""
    upper = DataflowKey(ORG, "prod", FLOW.upper())
    store(*(entry(number, dataflow=upper) for number in range(1, 16)), *(entry(number) for number in range(16, 31)))
    clean(*TABLES, before=22)
    shown = coverage()
    assert (FLOW, ["ingested"] * 30, 0) == (shown.json["flow_id"], states(shown), shown.status)


@pytest.mark.usefixtures("month")
@pytest.mark.parametrize("first", [10, 22], ids=["gap in the span", "entries after the span"])
def test_limited_span_before_the_history(clean: Any, store: Any, command: Any, first: int) -> None:
    """Windows before the first entry are unknown, with a reason and without a command; the output has the begin."""
    store(*(entry(number) for number in range(first, 31)))
    clean(*TABLES, before=22)
    span = ("--from", "2026-01-03", "--to", "2026-01-15")
    shown = command("coverage", "--dag-id", "daily", *span, "--output=json")
    unknown = min(first, 15) - 3
    assert (["unknown"] * unknown + ["ingested"] * (12 - unknown), 0) == (states(shown), shown.status)
    assert {"before Airflow's history"} == {span["reason"] for span in shown.json["spans"][:unknown]}
    assert ([], [], []) == tuple(shown.json[name] for name in ("fill", "trigger", "again"))
    (notice,) = shown.json["notices"]
    assert "history of DAG daily begins at 2026-01-22T00:00:00Z" in notice


@pytest.mark.usefixtures("month")
@pytest.mark.parametrize("kind", ["variables", "database"])
def test_range_does_not_change_since_when_the_ledger_is_complete(
    clean: Any, store: Any, command: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    """Entries outside of the range show that two early windows were stored late, so those between them are unknown."""
    late = {"updated_at": (BEGIN + 60 * DAY).timestamp()}
    put = store if kind == "variables" else request.getfixturevalue("store_in_database")
    put(entry(3, **late), entry(6, **late), *(entry(number) for number in range(10, 31)))
    clean(*TABLES, before=22)
    shown = command("coverage", "--dag-id", "daily", "--from", "2026-01-03", "--to", "2026-01-07", "--output=json")
    expected = ["ingested", "unknown", "unknown", "ingested"]
    assert (expected, 0, []) == (states(shown), shown.status, shown.json["fill"])


@pytest.mark.usefixtures("month")
def test_later_entries_show_that_a_window_is_missing(clean: Any, store: Any, command: Any) -> None:
    """The ledger is complete up to its last window, also if that is after the range."""
    store(*(entry(number) for number in range(1, 31) if number != 7))
    clean(*TABLES, before=22)
    shown = command("coverage", "--dag-id", "daily", "--from", "2026-01-06", "--to", "2026-01-08", "--output=json")
    assert (["ingested", "missing"], 1) == (states(shown), shown.status)


@pytest.mark.usefixtures("month")
def test_gap_between_entries_is_missing(clean: Any, store: Any, coverage: Any) -> None:
    """The ledger would have the window, so the command fills it. A window before the first entry is unknown."""
    store(*(entry(number) for number in range(3, 31) if number != 7))
    clean(*TABLES, before=22)
    shown = coverage()
    expected = ["unknown"] * 2 + ["ingested"] * 4 + ["missing"] + ["ingested"] * 23
    assert (expected, 1) == (states(shown), shown.status)
    (fill,) = shown.json["fill"]
    assert "--from-date 2026-01-08T00:00:00+00:00 --to-date 2026-01-08T00:00:00+00:00" in fill


@pytest.mark.usefixtures("month")
def test_backfill_after_the_deletion(clean: Any, session: Any, ran: Any, coverage: Any) -> None:
    """A DAG run for an old date that started later does not move the begin of the history."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import update

    clean(*TABLES, before=22)
    run_id = ran(BEGIN + DAY, run_type="backfill", pushed=summary(1, BEGIN))
    late = update(DagRun).where(DagRun.run_id == run_id).values(start_date=BEGIN + 60 * DAY)
    session.execute(late)
    session.commit()
    shown = coverage()
    assert ["ingested", "unknown"] == states(shown)[:2]
    assert [] == shown.json["fill"]


def test_dag_without_any_run_is_missing(daily: None, session: Any, coverage: Any) -> None:
    """A DAG that never ran has no deleted history."""
    shown = coverage("--flow-id", FLOW)
    assert (["missing"] * 30, 1) == (states(shown), len(shown.json["fill"]))


def test_renamed_and_deleted_dags(daily: None, session: Any, store: Any, coverage: Any) -> None:
    """The windows of the former DAG stay ingested, in the new DAG and without any DAG."""
    store(*(entry(number, dag_id="former") for number in range(1, 31)))
    assert ["ingested"] * 30 == states(coverage("--flow-id", FLOW))
    deleted = coverage(dag_id="former")
    assert (["ingested"] * 30, 0, FLOW) == (states(deleted), deleted.status, deleted.json["flow_id"])


def test_renamed_dag_knows_its_dataflow(
    session: Any, store: Any, coverage: Any, daily: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first DAG run, the arguments of its task name the dataflow."""
    schedule = database.dag_schedule_of(session, "daily")
    assert schedule is not None
    task = database.TaskSettings(task_id="ingest", flow_id=FLOW, conn_id="flowservice_default")
    known = database.DagSchedule(timetable=schedule.timetable, start=schedule.start, tasks=(task,))
    monkeypatch.setattr(database, "dag_schedule_of", lambda *_: known)
    store(*(entry(number, dag_id="former") for number in range(1, 31)))
    assert ["ingested"] * 30 == states(coverage())


@pytest.mark.usefixtures("month")
def test_restated_window(store: Any, coverage: Any) -> None:
    """It is not duplicated, and the exit status is 0. The JSON has the time and the task of the request."""
    new = "99999999-0000-4000-8000-000000000000"
    earlier = EarlierRun(
        flow_run_id=summary(3, BEGIN)["id"], replaced_at=BEGIN.timestamp(), replaced_by="daily/manual/ingest/-1"
    )
    store(*(entry(number) for number in range(1, 31) if number != 3))
    store(entry(3, flow_run_id=new, earlier=(earlier,)))
    shown = coverage()
    assert (["ingested"] * 2 + ["restated"], 0, True) == (states(shown)[:3], shown.status, shown.json["whole"])
    assert {"windows": 1, "seconds": 86400} == shown.json["totals"]["restated"]
    runs = {run["id"]: (run["replaced_at"], run["replaced_by"]) for run in shown.json["spans"][2]["flow_runs"]}
    assert {new: (None, None), earlier.flow_run_id: ("2026-01-01T00:00:00Z", "daily/manual/ingest/-1")} == runs
    table = coverage(output="table").out
    assert "r restated" in table
    assert "29 ingested, 1 restated." == table.splitlines()[-1]


@pytest.mark.usefixtures("month")
def test_other_sandboxes_do_not_count(clean: Any, store: Any, coverage: Any, connect: Any) -> None:
    """The connection selects the sandbox; without it, the sandbox with entries of the DAG."""
    store(*(entry(number, sandbox="dev", dag_id="other") for number in range(1, 31)))
    store(*(entry(number) for number in range(11, 31)))
    clean(*TABLES, before=22)
    assert ["unknown"] * 10 + ["ingested"] * 20 == states(coverage())
    for sandbox, unknown in (("prod", 10), ("dev", 0), ("empty", 20)):
        conn_id = connect(host="http://127.0.0.1:9", extra={"sandbox": sandbox, "max_attempts": 1})
        assert unknown == states(coverage("--conn-id", conn_id)).count("unknown"), sandbox


@pytest.mark.usefixtures("month")
def test_ledger_in_a_database(
    clean: Any, coverage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: Any
) -> None:
    """The option `ledger_conn_id` selects it. If it cannot be read, nothing is missing, and the exit status is 2."""
    file = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{file}")
    ledger.migrate()
    for number in range(1, 31):
        ledger.put(entry(number))
    clean(*TABLES, before=22)
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "ledger")
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    assert (["ingested"] * 30, 0) == (states(coverage()), coverage().status)
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "none.db")}))
    shown = coverage("--flow-id", FLOW)
    assert (["unknown"] * 20 + ["ingested"] * 10, 2) == (states(shown), shown.status)
    assert ([], [], False) == (shown.json["fill"], shown.json["trigger"], shown.json["ledger_read"])
    assert "the ledger could not be read" in shown.err
    table = coverage(output="table")
    assert "The ledger of ingested windows cannot be read" in " ".join(table.out.split())
    assert "backfill create" not in table.out


def test_failed_window_has_no_command_without_the_ledger(
    add_day: Any, daily: None, coverage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another DAG may have ingested the window. It stays failed."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "absent")
    add_day(2, state="failed", run_state="failed", pushed=summary(1, BEGIN, status="failed"))
    shown = coverage()
    assert ("failed", "unknown", 2, []) == (*states(shown)[:2], shown.status, shown.json["fill"])


@pytest.mark.usefixtures("month")
def test_disabled_ledger_is_not_read(store: Any, clean: Any, coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER", "none")
    store(*(entry(number) for number in range(1, 31)))
    clean(*TABLES, before=22)
    assert ["unknown"] * 20 + ["ingested"] * 10 == states(coverage())


@pytest.mark.usefixtures("daily")
def test_entries_that_are_not_ingested(store: Any, coverage: Any, add_day: Any, session: Any) -> None:
    """Neither a created flow run, a claim nor an entry that cannot be read is missing."""
    from airflow.models.variable import Variable

    add_day(2, window=1)
    claimed = {"state": EntryState.CLAIMED, "flow_run_id": None}
    store(entry(1), entry(2, state=EntryState.CREATED), entry(3, **claimed), entry(5))
    key = ledger_key(entry(4).dataflow, entry(4).window)
    session.add(Variable(key=key, val="changed", description="changed"))
    session.commit()
    shown = coverage()
    assert ["ingested", "unknown", "unknown", "unknown", "ingested"] == states(shown)[:5]
    assert "claimed by daily/" in shown.json["spans"][2]["reason"]


@pytest.mark.usefixtures("daily")
def test_entry_that_cannot_be_read_is_unknown(
    store: Any, coverage: Any, add_day: Any, session: Any, connect: Any
) -> None:
    """The Variable's key has the window, if the connection shows which dataflow the key means."""
    from airflow.models.variable import Variable

    add_day(2, window=1)
    store(entry(1), entry(3))
    key = ledger_key(entry(2).dataflow, entry(2).window)
    session.add(Variable(key=key, val="changed", description="changed"))
    session.commit()
    conn_id = connect(host="http://127.0.0.1:9", extra={"sandbox": "prod", "max_attempts": 1})
    shown = coverage("--conn-id", conn_id)
    assert ["ingested", "unknown", "ingested"] == states(shown)[:3]
    assert "cannot be read" in shown.json["spans"][1]["reason"]


@pytest.mark.usefixtures("daily")
@pytest.mark.parametrize("fields", [{"flow_run_id": ["a"]}, {"intent": "text"}, {"flow_id": None}])
def test_edited_entry_is_unknown(
    store: Any, command: Any, add_day: Any, session: Any, connect: Any, fields: dict[str, Any]
) -> None:
    """A user changed a field; the other windows, and all commands, are as before."""
    from airflow.models.variable import Variable

    add_day(2, window=1)
    store(entry(1), entry(3))
    text = json.dumps({**entry(2).to_json(), **fields})
    session.add(Variable(key=ledger_key(entry(2).dataflow, entry(2).window), val=text, description=text))
    session.commit()
    arguments = ("--dag-id", "daily", "--from", "2026-01-01", "--to", "2026-01-04", "-o", "json")
    conn_id = connect(host="http://127.0.0.1:9", extra={"sandbox": "prod", "max_attempts": 1})
    shown = command("coverage", *arguments, "--conn-id", conn_id)
    assert (["ingested", "unknown", "ingested"], 0) == (states(shown), shown.status)
    filled = command("fill", *arguments, "--dry-run", "--conn-id", conn_id)
    assert (0, [], 1) == (filled.status, filled.json["steps"], filled.json["unknown"])
    assert 0 == command("ledger", "export", "--flow-id", FLOW).status


@pytest.mark.usefixtures("daily")
def test_copied_variable_is_unknown(store: Any, coverage: Any, add_day: Any, session: Any, connect: Any) -> None:
    """A user copied the Variable of the first window to the second, and did not change the text: no entry of it."""
    from airflow.models.variable import Variable

    add_day(2, window=1)
    store(entry(1), entry(3))
    text = json.dumps(entry(1).to_json())
    session.add(Variable(key=ledger_key(entry(2).dataflow, entry(2).window), val=text, description=text))
    session.commit()
    conn_id = connect(host="http://127.0.0.1:9", extra={"sandbox": "prod", "max_attempts": 1})
    assert ["ingested", "unknown", "ingested"] == states(coverage("--conn-id", conn_id))[:3]


def test_first_begin_is_within_an_hour(session: Any, ran: Any) -> None:
    """Tasks of one backfill start in any order, so the earliest date of the first hour is the begin."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import update

    for number, minutes in ((5, 0), (2, 30), (1, 90)):
        run_id = ran(BEGIN + number * DAY)
        started = BEGIN + 60 * DAY + timedelta(minutes=minutes)
        session.execute(update(DagRun).where(DagRun.run_id == run_id).values(start_date=started))
    found = history_start.history_start(session, "daily")
    assert found is not None
    assert (BEGIN + 2 * DAY, None) == (found.tasks, found.outputs)
    assert history_start.history_start(session, "absent") is None


def test_first_begins_of_several_dags(session: Any, ran: Any) -> None:
    """Each DAG has its own first hour, also if the first hours overlap, and in any number of DAGs."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import update

    expected = {}
    for number in range(60):
        dag_id = f"dag_{number}"
        for days, minutes in ((5, 0), (2, 40), (1, 80)):
            run_id = ran(BEGIN + (number + days) * DAY, dag_id=dag_id)
            started = BEGIN + 90 * DAY + timedelta(minutes=30 * number + minutes)
            is_run = (DagRun.dag_id == dag_id) & (DagRun.run_id == run_id)
            session.execute(update(DagRun).where(is_run).values(start_date=started))
        expected[dag_id] = BEGIN + (number + 2) * DAY
    found = history_start.history_starts(session, [*expected, "absent"])
    assert expected == {dag_id: start.tasks for dag_id, start in found.items()}
