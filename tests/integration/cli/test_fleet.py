# SPDX-License-Identifier: Apache-2.0
"""Run `airflow flowservice coverage --all` and `freshness` on Airflow's own tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow_versions import NoStatsLogger, metrics_sent_to

from airflow_flowservice._airflow import dag_facts, database, versions
from airflow_flowservice.coverage.fleet import DagStatus
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.cli.test_coverage import add_day, daily, session
from tests.integration.cli.test_coverage_ledger import entry, store
from tests.integration.coverage.conftest import BEGIN, DAY, FLOW, ran, summary

__all__ = ["add_day", "daily", "ran", "session", "store"]
NOW = BEGIN + 9 * DAY + timedelta(hours=2)
NOTHING = "11111111-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the present time to the tenth day of January."""
    monkeypatch.setattr(versions, "utc_now", lambda: NOW)


@pytest.fixture
def dags(daily: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Schedule the DAG `daily`; return the states of DAGs, which a test can change."""
    states = {"daily": DagStatus(dag_id="daily", next_due=BEGIN + 10 * DAY, tags=("aep",))}
    schedule = database.dag_schedule_of(None, "daily")  # type: ignore[arg-type]
    monkeypatch.setattr(dag_facts, "dag_statuses", lambda *_, **__: states)
    monkeypatch.setattr(dag_facts, "dag_schedules", lambda *_, **__: {"daily": schedule})
    return states


@pytest.fixture
def fleet(command: Any) -> Callable[..., Any]:
    """Return a function that runs the command and returns its result."""

    def run(*options: str, output: str = "json") -> Any:
        return command("coverage", "--all", "--since", "218h", f"--output={output}", *options)

    return run


@pytest.fixture
def single(command: Any) -> Callable[..., Any]:
    """Return a function that runs the command for one dataflow of the DAG and returns its totals."""

    def run() -> dict[str, int]:
        dates = ("--from", BEGIN.isoformat(), "--to", NOW.isoformat())
        shown = command("coverage", "--dag-id", "daily", "--flow-id", FLOW, *dates, "--output=json")
        names = ("missing", "failed", "twice", "running", "unknown")
        return {name: shown.json["totals"].get(name, {"windows": 0})["windows"] for name in names}

    return run


@pytest.fixture
def history(add_day: Any, ran: Any, session: Any) -> None:
    """Add nine days: 2 failed, 3 and 4 missing, 5 duplicated, 8 running, all others ingested."""
    for number in (2, 6, 7, 8, 10):
        add_day(number, window=number - 1)
    add_day(3, state="failed", run_state="failed", pushed=summary(2, BEGIN + DAY, status="failed"))
    twice = summary(99, BEGIN + 4 * DAY)
    ran(BEGIN + 5 * DAY, run_type="manual", pushed=twice, dated=False)
    session.commit()
    add_day(9, state="deferred", run_state="running", pushed=summary(8, BEGIN + 7 * DAY, status="created"))


def only(shown: Any) -> Any:
    (row,) = shown.json["dataflows"]
    return row


@pytest.mark.usefixtures("history", "dags")
@pytest.mark.parametrize("with_ledger", [False, True], ids=["history", "ledger"])
def test_same_judgement_as_for_one_dataflow(fleet: Any, single: Any, store: Any, with_ledger: bool) -> None:
    """The counts are those of `coverage --dag-id`, also if the ledger has the windows."""
    if with_ledger:
        store(*(entry(number) for number in (1, 5, 6, 7, 9)), entry(8, state=EntryState.CREATED))
    shown = fleet()
    row = only(shown)
    expected = {"missing": 2, "failed": 1, "twice": 1, "running": 0, "unknown": 1}
    assert (expected, expected) == (row["windows"], single())
    assert (1, "twice", True, False) == (shown.status, row["state"], row["wrong"], shown.json["whole"])
    assert (FLOW, [{"dag_id": "daily", "paused": False, "stale": False}]) == (row["flow_id"], row["dags"])
    assert ("2026-01-10T00:00:00Z", "2026-01-02T00:00:00Z") == (row["last_window"]["end"], row["complete_until"])
    assert int((NOW - BEGIN - DAY).total_seconds()) == row["lag_seconds"]
    assert ("2026-01-11T00:00:00Z", ["aep"]) == (row["next_due"], row["tags"])


@pytest.mark.usefixtures("dags")
def test_whole_coverage(add_day: Any, fleet: Any) -> None:
    for number in range(2, 11):
        add_day(number, window=number - 1)
    shown = fleet()
    assert (0, True, 2 * 3600) == (shown.status, shown.json["whole"], only(shown)["lag_seconds"])
    assert {"ingested"} == {*filter(None, only(shown)["bar"])}


def test_dataflow_of_a_dag_that_never_ran(session: Any, dags: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments of its task name the dataflow; its windows are missing."""
    schedule = database.dag_schedule_of(session, "daily")
    assert schedule is not None
    tasks = (database.TaskSettings(task_id="ingest", flow_id=NOTHING, conn_id="flowservice_default"),)
    known = database.DagSchedule(timetable=schedule.timetable, start=BEGIN, tasks=tasks)
    monkeypatch.setattr(dag_facts, "dag_schedules", lambda *_, **__: {"daily": known})
    row = only(fleet())
    assert (NOTHING, 9, None) == (row["flow_id"], row["windows"]["missing"], row["last_window"])
    assert "never ingested" in row["lag_note"]


@pytest.mark.usefixtures("session", "dags")
def test_schedule_that_cannot_be_decoded(fleet: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataflow has a row that reports it, and is not fresh."""
    tasks = (database.TaskSettings(task_id="ingest", flow_id=NOTHING, conn_id="flowservice_default"),)
    known = database.DagSchedule(timetable=None, start=BEGIN, tasks=tasks)
    monkeypatch.setattr(dag_facts, "dag_schedules", lambda *_, **__: {"daily": known})
    row = only(fleet())
    assert (NOTHING, ["daily"], None) == (row["flow_id"], row["undecoded_schedules"], row["state"])
    assert "daily (schedule unreadable)" in fleet(output="plain").out
    late = command("freshness", "--all", "--max-lag", "26h", "--output=json")
    assert (1, False) == (late.status, late.json["fresh"])
    assert "schedule of DAG daily is unreadable" in late.json["dataflows"][0]["lag_note"]


def test_only_the_ledger_knows_the_dataflow(session: Any, dags: Any, store: Any, fleet: Any, command: Any) -> None:
    """Its DAG was deleted, and so was the history: nothing is missing, and the lag grows."""
    dags.clear()
    store(*(entry(number, dag_id="former") for number in range(1, 5)))
    shown = fleet()
    row = only(shown)
    assert (0, "prod", "ingested") == (shown.status, row["sandbox"], row["state"])
    assert [{"dag_id": "former", "paused": False, "stale": True}] == row["dags"]
    assert ("2026-01-05T00:00:00Z", None) == (row["complete_until"], row["next_due"])
    late = command("freshness", "--all", "--max-lag", "26h", "--output=json")
    assert (1, [True], False) == (late.status, [each["late"] for each in late.json["dataflows"]], late.json["fresh"])
    assert 0 == command("freshness", "--flow-id", FLOW, "--max-lag", "6d").status


@pytest.mark.usefixtures("history")
def test_lag_while_the_dag_is_paused_or_broken(dags: Any, command: Any) -> None:
    """The state of the DAG makes no difference to the lag."""
    for state in ({}, {"is_paused": True}, {"is_stale": True}):
        dags["daily"] = DagStatus(dag_id="daily", **state)
        assert 1 == command("freshness", "--flow-id", FLOW, "--max-lag", "26h").status, state
        assert 0 == command("freshness", "--flow-id", FLOW, "--max-lag", "9d").status, state


@pytest.mark.usefixtures("dags")
def test_xcoms_of_airflow_3_0(ran: Any, session: Any, fleet: Any) -> None:
    """There, an XCom is a string that contains JSON."""
    for number in range(2, 11):
        start = BEGIN + (number - 2) * DAY
        ran(start + DAY, pushed=json.dumps(summary(number - 1, start)))
    session.commit()
    assert (0, 2 * 3600) == ((shown := fleet()).status, only(shown)["lag_seconds"])


@pytest.mark.usefixtures("dags")
def test_offset_of_the_windows_is_observed(ran: Any, session: Any, fleet: Any) -> None:
    """The newest success of a scheduled DAG run shows the offset, so one gap is one missing window."""
    for number in (2, 3, 5, 6, 7, 8, 9):
        start = BEGIN + (number - 2) * DAY + timedelta(hours=3)
        ran(BEGIN + (number - 1) * DAY, pushed=summary(number, start))
    session.commit()
    row = only(fleet())
    assert ("2026-01-03T03:00:00Z", "2026-01-09T03:00:00Z") == (row["complete_until"], row["last_window"]["end"])
    # The window of the first DAG run begins before the range.
    assert 1 == row["windows"]["missing"]


def test_restated_window_is_not_wrong(dags: Any, add_day: Any, store: Any, fleet: Any) -> None:
    for number in range(2, 11):
        add_day(number, window=number - 1)
    earlier = EarlierRun(flow_run_id=summary(3, BEGIN)["id"], replaced_at=1.0, replaced_by="daily/manual/ingest/-1")
    store(entry(3, flow_run_id="99999999-0000-4000-8000-000000000000", earlier=(earlier,)))
    assert (0, 2 * 3600) == ((shown := fleet()).status, only(shown)["lag_seconds"])


def test_sandboxes_and_connections(dags: Any, store: Any, fleet: Any, connect: Any) -> None:
    """The same dataflow id in two sandboxes makes two rows; a connection selects one."""
    store(*(entry(number, sandbox="dev", dag_id="other") for number in range(1, 4)))
    store(*(entry(number) for number in range(1, 10)))
    assert [("dev", 3), ("prod", 9)] == sorted((row["sandbox"], _days(row)) for row in fleet().json["dataflows"])
    for sandbox in ("dev", "prod"):
        conn_id = connect(extra={"sandbox": sandbox})
        assert [sandbox] == [row["sandbox"] for row in fleet("--conn-id", conn_id).json["dataflows"]]
    unknown = fleet("--conn-id", "nothing")
    assert (2, True) == (unknown.status, "nothing" in unknown.err)


def _days(row: Any) -> int:
    return (datetime.fromisoformat(row["complete_until"].replace("Z", "+00:00")) - BEGIN).days


@pytest.mark.usefixtures("history", "dags")
def test_tag_and_dataflow_select_rows(fleet: Any, store: Any) -> None:
    store(entry(1, dataflow=DataflowKey("EMULATOR@AdobeOrg", "prod", NOTHING), dag_id="other"))
    assert {FLOW, NOTHING} == {row["flow_id"] for row in fleet().json["dataflows"]}
    assert [FLOW] == [row["flow_id"] for row in fleet("--tag", "aep").json["dataflows"]]
    assert [NOTHING] == [row["flow_id"] for row in fleet("--flow-id", NOTHING).json["dataflows"]]
    assert (2, 2) == (fleet("--tag", "none").status, fleet("--flow-id", "none").status)


@pytest.mark.usefixtures("history", "dags")
def test_unreadable_ledger(fleet: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No window is missing, and the exit status is 2."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "absent")
    shown = fleet()
    assert (2, False, 0) == (shown.status, shown.json["ledger_read"], only(shown)["windows"]["missing"])
    assert "the ledger could not be read" in shown.err
    assert 2 == command("freshness", "--all", "--max-lag", "26h").status


@pytest.fixture
def sql_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that stores entries in a new database, the ledger of the connection of this id."""
    from airflow_flowservice.ledger.sql_ledger import SqlLedger

    def make(conn_id: str, *entries: Any) -> None:
        file = tmp_path / f"{conn_id}.db"
        ledger = SqlLedger(f"sqlite:///{file}")
        ledger.migrate()
        for each in entries:
            ledger.put(each)
        connection = json.dumps({"conn_type": "sqlite", "host": str(file)})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection)

    return make


@pytest.fixture
def selecting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that adds a connection which selects a SQL ledger."""

    def add(conn_id: str, *, ledger: str) -> None:
        connection = json.dumps({"conn_type": "flowservice", "extra": {"ledger_conn_id": ledger}})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection)

    return add


def test_ledger_in_a_database(dags: Any, fleet: Any, sql_ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sql_ledger("ledger", *map(entry, range(1, 10)))
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "ledger")
    assert 2 * 3600 == only(fleet())["lag_seconds"]


@pytest.mark.usefixtures("dags")
def test_restated_part_of_a_larger_window(store: Any, fleet: Any) -> None:
    """The part is not duplicated."""
    whole = entry(1, window=IngestionWindow(BEGIN, BEGIN + 9 * DAY), flow_run_id="whole")
    store(whole, entry(3, intent={"restates": ["whole"], "written_at": 1.0}))
    row = only(shown := fleet())
    assert (0, 0, 0) == (shown.status, row["windows"]["twice"], row["windows"]["missing"])
    assert {"ingested", "restated"} == {*filter(None, row["bar"])}


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, dags: Any, sql_ledger: Any, selecting: Any) -> None:
    """Make the only task name the connection `special`, whose ledger has one window of the task's dataflow."""
    schedule = database.dag_schedule_of(None, "daily")  # type: ignore[arg-type]
    assert schedule is not None
    task = database.TaskSettings(task_id="ingest", flow_id=FLOW, conn_id="special")
    known = database.DagSchedule(timetable=schedule.timetable, start=BEGIN, tasks=(task,))
    monkeypatch.setattr(dag_facts, "dag_schedules", lambda *_, **__: {"daily": known})
    sql_ledger("own", entry(1))
    selecting("special", ledger="own")


@pytest.fixture
def continuing(monkeypatch: pytest.MonkeyPatch, dags: Any) -> None:
    """Make the only task ingest into the dataflow `NOTHING`, which continues another one."""
    schedule = database.dag_schedule_of(None, "daily")
    assert schedule is not None
    task = database.TaskSettings(task_id="ingest", flow_id=NOTHING, conn_id="flowservice_default", continues=(FLOW,))
    changed = {"daily": replace(schedule, tasks=(task,))}
    monkeypatch.setattr(dag_facts, "dag_schedules", lambda *_, **__: changed)


@pytest.mark.usefixtures("continuing")
class TestDataflowThatContinuesAnother:
    """The windows of the earlier dataflow count, and it has no separate row."""

    def test_ledger(self, fleet: Any, store: Any, connect: Any) -> None:
        store(*(entry(number) for number in range(1, 8)), entry(8, dataflow=OTHER), entry(9, dataflow=OTHER))
        row = only(shown := fleet())
        assert (0, NOTHING, 0) == (shown.status, row["flow_id"], row["windows"]["missing"])
        assert "2026-01-10T00:00:00Z" == row["complete_until"]

    def test_history(self, fleet: Any, add_day: Any) -> None:
        """Airflow's history counts also."""
        for number in (2, 3, 4):
            add_day(number, window=number - 1)
        for number in (5, 6, 7, 9, 10):
            add_day(number, window=number - 1, flow_id=NOTHING)
        row = only(shown := fleet())
        assert (1, NOTHING, 1) == (shown.status, row["flow_id"], row["windows"]["missing"])

    def test_last_window(self, fleet: Any, store: Any) -> None:
        """After the switch, before the new dataflow ingested anything, it is the last one of the earlier dataflow."""
        store(*(entry(number) for number in range(1, 8)))
        row = only(fleet())
        assert (NOTHING, "2026-01-08T00:00:00Z") == (row["flow_id"], row["last_window"]["end"])

    def test_named(self, fleet: Any, store: Any) -> None:
        """An earlier dataflow is shown if it is named."""
        store(*(entry(number) for number in range(1, 8)))
        assert FLOW == only(fleet("--flow-id", FLOW))["flow_id"]


OTHER = DataflowKey("EMULATOR@AdobeOrg", "prod", NOTHING)


@pytest.mark.usefixtures("session", "named")
class TestLedgersThatNoTaskNames:
    """Dataflows of deleted DAGs, and of tasks whose connection is a template, are in other ledgers."""

    def flow_ids(self, shown: Any) -> set[str]:
        return {row["flow_id"] for row in shown.json["dataflows"]}

    def test_variables(self, fleet: Any, store: Any) -> None:
        store(entry(1, dataflow=OTHER, dag_id="former"))
        assert {FLOW, NOTHING} == self.flow_ids(fleet())

    def test_configured(self, fleet: Any, sql_ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        sql_ledger("ledger", entry(1, dataflow=OTHER, dag_id="former"))
        monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "ledger")
        assert {FLOW, NOTHING} == self.flow_ids(fleet())

    @pytest.mark.parametrize("conn_id", ["flowservice_default", "former"])
    def test_of_another_connection(self, fleet: Any, sql_ledger: Any, selecting: Any, conn_id: str) -> None:
        sql_ledger("ledger", entry(1, dataflow=OTHER, dag_id="former"))
        selecting(conn_id, ledger="ledger")
        assert {FLOW, NOTHING} == self.flow_ids(fleet())

    def test_of_a_stored_connection(self, fleet: Any, sql_ledger: Any, session: Any) -> None:
        from airflow.models.connection import Connection
        from sqlalchemy import delete

        sql_ledger("ledger", entry(1, dataflow=OTHER, dag_id="former"))
        session.add(Connection(conn_id="former", conn_type="flowservice", extra='{"ledger_conn_id": "ledger"}'))
        session.commit()
        try:
            assert {FLOW, NOTHING} == self.flow_ids(fleet())
        finally:
            session.execute(delete(Connection).where(Connection.conn_id == "former"))
            session.commit()

    def test_old_entries(self, fleet: Any, store: Any) -> None:
        """A dataflow has the entries of its task's ledger, and not old states of another one."""
        store(entry(1, state=EntryState.CREATED), entry(2))
        row = only(fleet())
        assert (8, "2026-01-02T00:00:00Z") == (row["windows"]["missing"], row["last_window"]["end"])

    def test_unreadable_and_unused(self, fleet: Any, selecting: Any) -> None:
        """The windows of all tasks are in other ledgers, so the result is complete, with a warning."""
        selecting("former", ledger="absent")
        shown = fleet()
        assert (1, True, 8) == (shown.status, shown.json["ledger_read"], only(shown)["windows"]["missing"])
        (warning,) = shown.json["warnings"]
        assert "absent" in warning
        assert f"warning: a connection that no task uses, or its ledger, cannot be read. {warning}" in shown.err

    def test_unreadable_for_a_template(self, fleet: Any, selecting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A task with a template may use the connection, so the result is incomplete. Readable ledgers are shown."""
        (task,) = dag_facts.dag_schedules(None)["daily"].tasks  # type: ignore[arg-type, union-attr]
        schedule = dag_facts.dag_schedules(None)["daily"]  # type: ignore[arg-type]
        tasks = (task, database.TaskSettings(task_id="templated"))
        changed = {"daily": replace(schedule, tasks=tasks)}  # type: ignore[type-var]
        monkeypatch.setattr(dag_facts, "dag_schedules", lambda *_, **__: changed)
        selecting("former", ledger="absent")
        shown = fleet()
        assert (2, False, 0) == (shown.status, shown.json["ledger_read"], only(shown)["windows"]["missing"])
        assert "2026-01-02T00:00:00Z" == only(shown)["last_window"]["end"]
        assert "absent" in shown.err

    def test_unreadable_for_a_dag_that_cannot_be_read(
        self, fleet: Any, selecting: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its tasks may use the connection, so no window is called missing."""
        changed = {**dag_facts.dag_schedules(None), "odd": None}  # type: ignore[arg-type]
        monkeypatch.setattr(dag_facts, "dag_schedules", lambda *_, **__: changed)
        selecting("former", ledger="absent")
        shown = fleet()
        assert (2, False, 0) == (shown.status, shown.json["ledger_read"], only(shown)["windows"]["missing"])
        assert "absent" in shown.err


@pytest.mark.usefixtures("history", "dags")
def test_table_and_plain(fleet: Any, command: Any) -> None:
    """The table has a bar, a legend and a summary; `plain` has only the rows."""
    table = fleet(output="table")
    assert "1 of 1 dataflows have missing, failed or duplicated windows" in table.out
    assert "2 duplicated" in table.out
    assert "= ingested" in table.out
    plain = fleet(output="plain").out.splitlines()
    assert (2, True) == (len(plain), FLOW in plain[1])
    assert FLOW in fleet(output="yaml").out
    fresh = command("freshness", "--all", "--max-lag", "26h")
    assert "1 of 1 dataflows lag more than 26h" in fresh.out


@pytest.mark.usefixtures("dags")
def test_long_gap_is_bounded(fleet: Any, monkeypatch: pytest.MonkeyPatch, ran: Any, session: Any) -> None:
    """The rest of the time is one missing window, and the count is marked as a lower limit."""
    from airflow_flowservice._airflow import fleet_reader

    monkeypatch.setattr(fleet_reader, "_MOST_WINDOWS", 4)
    ran(BEGIN + DAY, pushed=summary(1, BEGIN))
    session.commit()
    row = only(fleet())
    assert (4, True) == (row["windows"]["missing"], row["has_more"])
    assert "missing" == row["bar"][-2]
    assert "4+" in fleet(output="plain").out


def test_nothing_is_known(dags: Any, fleet: Any, session: Any) -> None:
    assert (2, True) == ((shown := fleet()).status, "no dataflow is known" in shown.err)


@pytest.mark.parametrize(
    "options",
    [
        ("coverage", "--all", "--dag-id", "daily"),
        ("coverage", "--all", "--since", "soon"),
        ("coverage", "--all", "--since", "0d"),
        ("coverage", "--dag-id", "daily"),
        ("coverage", "--dag-id", "daily", "--since", "soon"),
        ("coverage", "--dag-id", "daily", "--since", "7d", "--from", "2026-01-01"),
        ("coverage", "--all", "--flow-id", ""),
        ("coverage", "--all", "--conn-id", " "),
        ("coverage", "--all", "--tag", ""),
        ("coverage", "--dag-id", "daily", "--flow-id", "", "--since", "7d"),
        ("freshness", "--max-lag", "26h", "--flow-id", ""),
        ("coverage", "--tag", "aep", "--dag-id", "daily", "--from", "2026-01-01", "--to", "2026-01-02"),
        ("freshness", "--max-lag", "26h"),
        ("freshness", "--max-lag", "26", "--all"),
        ("freshness", "--max-lag", "26h", "--all", "--flow-id", "f"),
        ("freshness", "--max-lag", "999999999w", "--all"),
    ],
    ids=lambda options: " ".join(options),
)
def test_invalid_arguments(command: Any, dags: Any, options: tuple[str, ...]) -> None:
    assert (2, "") == ((shown := command(*options)).status, shown.out)


@pytest.mark.usefixtures("history", "dags")
def test_since_of_one_dag(command: Any) -> None:
    """`--since` is the range up to now, as with `--all`."""
    shown = command("coverage", "--dag-id", "daily", "--since", "50h", "--output=json")
    assert (0, "2026-01-08T00:00:00Z", "2026-01-10T02:00:00Z") == (shown.status, shown.json["from"], shown.json["to"])
    assert (1, 2) == (shown.json["totals"]["unknown"]["windows"], len(shown.json["spans"]))


@pytest.fixture
def registered(session: Any, tmp_path: Path) -> Iterator[None]:
    """Write DAGs to the database with the functions that the DAG processor uses."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.models.dag import DagModel
    from sqlalchemy import delete, update

    (tmp_path / "fleet.py").write_text(_DAGS)
    DagBundlesManager().sync_bundles_to_db()
    _sync(tmp_path)
    session.execute(update(DagModel).where(DagModel.dag_id == "fleet_paused").values(is_paused=True))
    session.execute(update(DagModel).where(DagModel.dag_id == "fleet_daily").values(is_paused=False))
    session.commit()
    yield
    old = delete(DagModel).where(DagModel.dag_id.startswith("fleet_"))
    session.execute(old.execution_options(synchronize_session=False))
    session.commit()


def _sync(folder: Path) -> None:
    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:  # before 3.2
        from airflow.models import dagbag

        bag = dagbag.DagBag(dag_folder=str(folder), bundle_path=folder)
        if hasattr(bag, "sync_to_db"):  # before 3.1
            bag.sync_to_db("dags-folder", None)
        else:
            dagbag.sync_bag_to_db(bag, "dags-folder", None)
    else:
        sync_bag_to_db(DagBag(dag_folder=str(folder), bundle_path=folder), "dags-folder", None)


_DAGS = """
import pendulum
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow_flowservice.operators import OnDemandFlowRunOperator

begin = pendulum.datetime(2026, 1, 1, tz="Europe/Berlin")
for dag_id in ("fleet_daily", "fleet_paused"):
    with DAG(dag_id, schedule="@daily", start_date=begin, end_date=begin.add(days=300), tags=["aep"]) as dag:
        OnDemandFlowRunOperator(task_id="ingest", flow_id=dag_id)
        OnDemandFlowRunOperator(task_id="template", flow_id="{{ params.flow }}")
        OnDemandFlowRunOperator.partial(task_id="mapped", flow_id="mapped").expand(window_start=["a", "b"])
    globals()[dag_id] = dag
with DAG("fleet_other", schedule=None) as other:
    EmptyOperator(task_id="nothing")
"""


@pytest.mark.usefixtures("registered")
def test_schedules_are_those_of_whole_dags(session: Any, fleet: Any) -> None:
    """Reading only a part of the serialized DAGs gives the same schedules, tasks and states."""
    schedules = dag_facts.dag_schedules(session)
    assert {"fleet_daily", "fleet_paused"} == set(schedules)
    for dag_id, schedule in schedules.items():
        whole = database.dag_schedule_of(session, dag_id)
        assert schedule is not None
        assert whole is not None
        assert (whole.tasks, whole.start, whole.end) == (schedule.tasks, schedule.start, schedule.end)
        assert whole.timetable.serialize() == schedule.timetable.serialize()
    assert len({id(schedule and schedule.timetable) for schedule in schedules.values()}) == 1
    assert ["fleet_daily"] == list(dag_facts.dag_schedules(session, dag_ids=["fleet_daily"]))
    states = dag_facts.dag_statuses(session)
    assert [False, True] == [states[dag_id].is_paused for dag_id in ("fleet_daily", "fleet_paused")]
    assert ("aep",) == states["fleet_daily"].tags
    rows = fleet().json["dataflows"]
    assert {"fleet_daily", "fleet_paused", "mapped"} == {row["flow_id"] for row in rows}
    assert all(row["windows"]["missing"] for row in rows)


@pytest.mark.usefixtures("registered")
def test_number_of_queries_does_not_depend_on_the_number_of_dataflows(
    session: Any, fleet: Any, store: Any, add_day: Any
) -> None:
    from sqlalchemy import event

    from airflow_flowservice._airflow.fleet_reader import read_fleet

    counts = []
    for number in (2, 20):
        store(
            *(
                entry(day, dataflow=DataflowKey("EMULATOR@AdobeOrg", f"prod{number}", f"flow-{index}"))
                for index in range(number)
                for day in range(1, 10)
            )
        )
        queries: list[str] = []
        listener = lambda *arguments, queries=queries: queries.append(arguments[2])  # noqa: E731
        event.listen(session.get_bind(), "before_cursor_execute", listener)
        read_fleet(session, now=NOW.astimezone(timezone.utc), since=BEGIN)
        event.remove(session.get_bind(), "before_cursor_execute", listener)
        counts.append(len(queries))
    assert counts[0] == counts[1]


class Gauges(NoStatsLogger):
    """A backend of Airflow's metrics that keeps the gauges of dataflows."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], float] = {}

    def gauge(self, stat: str, value: float, *_: Any, tags: Any = None, **__: Any) -> None:
        if stat.startswith("flowservice."):
            self.values[stat, (tags or {}).get("sandbox", "")] = value


@pytest.mark.usefixtures("history", "dags")
@pytest.mark.parametrize("name", ["coverage", "freshness"])
def test_gauges_of_each_dataflow(command: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tags, and with the id in the name for backends without tags."""
    monkeypatch.setattr(versions, "start_stats", lambda: None)  # would replace the backend
    options = {"coverage": ["--all"], "freshness": ["--all", "--max-lag", "26h"]}[name]
    gauges = Gauges()
    with metrics_sent_to(gauges):
        command(name, *options, "--since", "218h", "--output=json")
        assert {} == gauges.values
        shown = only(command(name, *options, "--since", "218h", "--output=json", "--metrics"))
    sandbox = shown["sandbox"] or ""
    lag, missing = shown["lag_seconds"], shown["windows"]["missing"]
    assert (True, 2) == (lag > 0, missing)
    assert {
        ("flowservice.lag_seconds", sandbox): lag,
        (f"flowservice.lag_seconds.{FLOW}", ""): lag,
        ("flowservice.windows.missing", sandbox): missing,
        (f"flowservice.windows.missing.{FLOW}", ""): missing,
    } == gauges.values


@pytest.mark.usefixtures("dags")
def test_entries_with_an_id_in_upper_case(fleet: Any, store: Any) -> None:
    """Earlier versions stored the id as the DAG has it; both spellings are one dataflow."""
    upper = DataflowKey("EMULATOR@AdobeOrg", "prod", FLOW.upper())
    store(*(entry(number, dataflow=upper) for number in range(1, 4)), entry(4))
    rows = {row["flow_id"]: row for row in fleet().json["dataflows"]}
    assert FLOW.upper() not in rows
    assert "2026-01-05T00:00:00Z" == rows[FLOW]["complete_until"]
