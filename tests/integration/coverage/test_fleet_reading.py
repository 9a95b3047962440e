# SPDX-License-Identifier: Apache-2.0
"""The overview counts most windows without their rows; the result is that of reading every row."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from airflow_flowservice._airflow import (
    dag_facts,
    database,
    dataflow_ledger,
    fleet_history,
    fleet_ledger,
    fleet_reader,
    versions,
)
from airflow_flowservice._airflow.fleet_history import read_task_history
from airflow_flowservice._airflow.fleet_reader import read_fleet
from airflow_flowservice._airflow.metadata_ledger import MetadataLedger
from airflow_flowservice._airflow.variable_ledger import ledger_key, stored_texts
from airflow_flowservice.coverage.fleet import DagStatus
from airflow_flowservice.coverage.fleet_records import DataflowRecords
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.coverage.conftest import BEGIN, DAY, summary

DAYS = 9
NOW = BEGIN + DAYS * DAY + timedelta(hours=2)
SINCE = BEGIN - 2 * DAY
# The dataflow of each DAG and task. Two DAGs share one.
ORDERS, CLICKS, OTHER = (f"c9cef9cb-c934-4467-8ef9-{number:012}" for number in range(3))
FLOWS = {("a", "ingest"): ORDERS, ("b", "ingest"): ORDERS, ("b", "watch"): CLICKS, ("c", "ingest"): OTHER}


def run_id_of(task: tuple[str, str], day: int, number: int) -> str:
    return f"{FLOWS[task][-8:]}-{day:04}-4000-8000-{number:012}"


def pushed(task: tuple[str, str], day: int, kind: str, number: int) -> Any:
    """Return an XCom of a task. An id always has the same window, which ends with the period of the schedule."""
    end = BEGIN + day * DAY
    start = end - DAY * (1 + (number == 2))
    made = summary(number, start, end, flow_id=FLOWS[task])
    made["id"] = run_id_of(task, day, number)
    changes: dict[str, Any] = {
        "nothing": None,
        "text": "no summary",
        "list": [made],
        "part": {**made, "part_of": str(IngestionWindow(start - DAY, end))},
        "no window": {**made, "window_start": None, "window_end": None},
        "broken window": {**made, "window_end": "tomorrow"},
        "reversed window": {**made, "window_end": made["window_start"], "window_start": made["window_end"]},
        "no dataflow": {**made, "flow_id": None},
        "no id": {**made, "id": 7},
        "short id": {**made, "id": "r"},
        "object as id": {**made, "id": {"a": "-" * 28}},
        "number as dataflow": {**made, "flow_id": 7},
        "number as start": {**made, "window_start": int(start.timestamp())},
        "start with offset": {**made, "window_start": start.isoformat()},
    }
    return changes.get(kind, {**made, "status": kind})


KINDS = ["nothing", "text", "list", "part", "no window", "broken window", "reversed window", "no dataflow", "no id"]
KINDS += ["short id", "object as id", "number as dataflow", "number as start", "start with offset"]
STATUSES = ["partial_success", "failed", "created", "in_progress", "unknown"]
INSTANCES = st.fixed_dictionaries(
    {
        "task": st.sampled_from(list(FLOWS)),
        "day": st.integers(0, DAYS),
        "kind": st.sampled_from(["success"] * 8 + STATUSES + KINDS),
        "number": st.integers(0, 2),
        "state": st.sampled_from(["success"] * 6 + ["failed", "running", "deferred", "skipped", None]),
        "manual": st.sampled_from([False] * 4 + [True]),
        "map_index": st.sampled_from([-1, -1, 0, 1]),
    }
)
ENTRIES = st.fixed_dictionaries(
    {
        "task": st.sampled_from(list(FLOWS)),
        "day": st.integers(0, DAYS),
        "number": st.sampled_from([0, 0, 1, 5, None]),
        "state": st.sampled_from([EntryState.INGESTED] * 4 + list(EntryState)),
        "restated": st.sampled_from([False, False, False, True]),
        "minutes": st.integers(0, 20_000),
    }
)


def entry_of(task: tuple[str, str], day: int, number: int | None, state: EntryState, **more: Any) -> LedgerEntry:
    start, flow_id = BEGIN + (day - 1) * DAY, FLOWS[task]
    is_created = state is not EntryState.CLAIMED and number is not None
    earlier = EarlierRun(flow_run_id=run_id_of(task, day, 0), replaced_at=1.0, replaced_by="a/manual/ingest/-1")
    return LedgerEntry(
        dataflow=DataflowKey("ORG@AdobeOrg", "prod", flow_id),
        window=IngestionWindow(start, start + DAY),
        state=state if is_created else EntryState.CLAIMED,
        owner=f"{task[0]}/scheduled__{(start + DAY).isoformat()}/{task[1]}/-1",
        flow_run_id=run_id_of(task, day, number or 0) if is_created else None,
        earlier=(earlier,) if more["restated"] and number != 0 else (),
        updated_at=(BEGIN + timedelta(minutes=more["minutes"])).timestamp(),
        version=1,
    )


def store(session: Session, instances: list[dict[str, Any]], entries: list[LedgerEntry]) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.variable import Variable
    from airflow.models.xcom import XComModel

    for model in (XComModel, TaskInstance, DagRun, Variable):
        session.execute(sa.delete(model))
    runs: dict[tuple[str, str], Any] = {}
    for each in instances:
        dag_id, task_id = each["task"]
        date = BEGIN + each["day"] * DAY
        run_type = "manual" if each["manual"] else "backfill" if each["day"] == 4 else "scheduled"
        run_id = f"{run_type}__{date.isoformat()}"
        if (dag_id, run_id) not in runs:
            run = DagRun(dag_id=dag_id, run_id=run_id, run_type=run_type, state="success", conf={})
            run.run_after = run.start_date = date
            run.logical_date = None if each["manual"] else date
            session.add(run)
            session.flush()
            runs[dag_id, run_id] = run.id
        key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": each["map_index"]}
        unused = {"pool": "default_pool", "try_number": 1, "max_tries": 0, "executor_config": {}}
        operator = "FlowRunSensor" if task_id == "watch" else "OnDemandFlowRunOperator"
        id_ = uuid4() if versions.version() >= (3, 2) else str(uuid4())
        values = {"id": id_, "operator": operator, "state": each["state"], **key, **unused}
        session.execute(sa.insert(TaskInstance).values(**values))
        value = pushed(each["task"], each["day"], each["kind"], each["number"])
        if "flow_id" in each:
            value = {**value, "flow_id": each["flow_id"], "id": f"{each['flow_id'][-8:]}{value['id'][8:]}"}
        if each["kind"] != "nothing":
            number = runs[dag_id, run_id]
            session.execute(sa.insert(XComModel).values(dag_run_id=number, key="flow_run", value=value, **key))
    for entry in entries:
        text, description = stored_texts(entry)
        session.add(Variable(key=ledger_key(*entry.key), val=text, description=description))
    session.commit()


def facts(patch: pytest.MonkeyPatch) -> None:
    """Schedule the DAGs a and b daily; c has no schedule. The ledger is in the Variables."""
    from airflow.timetables.trigger import CronTriggerTimetable

    timetable = CronTriggerTimetable("0 0 * * *", timezone="UTC")
    schedules = {
        dag_id: database.DagSchedule(
            timetable=timetable,
            start=BEGIN,
            tasks=(database.TaskSettings(task_id="ingest", flow_id=FLOWS[dag_id, "ingest"]),),
        )
        for dag_id in ("a", "b")
    }
    patch.setattr(dag_facts, "dag_statuses", lambda *_, **__: {each: DagStatus(dag_id=each) for each in "abc"})
    patch.setattr(dag_facts, "dag_schedules", lambda *_, **__: schedules)
    patch.setattr(dataflow_ledger, "ledger_sources", lambda _: [dataflow_ledger.LedgerSource()])
    patch.setattr(dataflow_ledger, "configured_source", lambda: None)


def rows_only(patch: pytest.MonkeyPatch) -> None:
    """Read each task instance as a row, and parse each entry."""

    def parsed(session: Session, sources: Any, *, since: Any) -> dict[DataflowKey, DataflowRecords]:
        found: dict[DataflowKey, DataflowRecords] = {}
        for entry in MetadataLedger(session).entries() if list(sources) else ():
            found.setdefault(entry.dataflow, DataflowRecords(since=since)).add(entry)
        return found

    def all_rows(session: Session, **arguments: Any) -> Any:
        return list(database.task_rows(session, **arguments)), set()

    patch.setattr(fleet_ledger, "read_ledgers", parsed)
    patch.setattr(fleet_history, "outputs", lambda *_, **__: iter(()))
    patch.setattr(database, "rows_without_output", lambda *_, **__: iter(()))
    patch.setattr(database, "unsuccessful_rows", all_rows)


@given(
    instances=st.lists(
        INSTANCES,
        max_size=30,
        unique_by=lambda each: (each["task"], each["day"], each["manual"], each["map_index"]),
    ),
    entries=st.lists(ENTRIES, max_size=12, unique_by=lambda each: (FLOWS[each["task"]], each["day"])),
)
def test_same_as_reading_each_row(engine: Any, instances: Any, entries: Any) -> None:
    """Counts, bars, lag, last window and DAGs are equal, also with the history read in a second session."""
    with Session(engine) as session:
        store(session, instances, [entry_of(**each) for each in entries])
    found = []
    for open_session, patches in ((None, (facts,)), (lambda: Session(engine), (facts,)), (None, (facts, rows_only))):
        with pytest.MonkeyPatch.context() as patch, Session(engine) as session:
            for each in patches:
                each(patch)
            fleet = read_fleet(session, now=NOW, since=SINCE, open_session=open_session)
            rows = {row.key: row.to_json() for row in fleet.rows}
            found.append(json.dumps([rows[key] for key in sorted(rows)], indent=1))
    assert found[2] == found[0]
    assert found[2] == found[1]


def test_rows_beside_counted_flow_runs(engine: Any) -> None:
    """Failed tasks, successes without a flow run, and the newest success of a scheduled DAG run are rows."""
    task = ("a", "ingest")
    usual = {"task": task, "kind": "success", "number": 0, "state": "success", "manual": False, "map_index": -1}
    changes = [{}, {}, {"manual": True}, {"kind": "nothing"}, {"state": "failed"}]
    with Session(engine) as session:
        store(session, [{**usual, "day": day, **change} for day, change in enumerate(changes, start=1)], [])
        history = read_task_history(session, dag_ids=None, since=SINCE)
    assert [2, 4, 5] == [(row.dates.run_after - BEGIN).days for row in history.rows["a"]]
    assert [{run_id_of(task, day, 0) for day in (1, 2, 3)}] == list(map(set, history.ingested.values()))


@pytest.mark.parametrize("state", ["failed", "running"])
def test_change_of_the_dataflow_before_a_backfill(engine: Any, state: str) -> None:
    """A task without an XCom belongs to the dataflow of the newest success, also if its own last one is a backfill."""
    task = ("a", "ingest")
    usual = {"task": task, "kind": "success", "number": 0, "state": "success", "manual": False, "map_index": -1}
    days = [(5, OTHER), (6, ORDERS), (7, ORDERS), (4, ORDERS)]
    instances = [{**usual, "day": day, "flow_id": flow_id} for day, flow_id in days]
    with Session(engine) as session:
        store(session, [*instances, {**usual, "day": 8, "kind": "nothing", "state": state}], [])
    found = []
    for patches in ((facts,), (facts, rows_only)):
        with pytest.MonkeyPatch.context() as patch, Session(engine) as session:
            for each in patches:
                each(patch)
            fleet = read_fleet(session, now=NOW, since=SINCE)
            found.append({row.key.flow_id: row.to_json()["windows"] for row in fleet.rows})
    assert 1 == found[0][ORDERS][state]
    assert found[1] == found[0]


def test_instances_of_a_mapped_task_are_counted(engine: Any) -> None:
    """If dataflows change their map index with each DAG run, one DAG run of each index is read as rows."""
    usual = {"task": ("a", "ingest"), "kind": "success", "number": 0, "state": "success", "manual": False}
    flow_ids = [f"c9cef9cb-c934-4467-8ef9-{number:012}" for number in range(6)]
    instances = [
        {**usual, "day": day, "map_index": index, "flow_id": flow_ids[(index + day) % 6]}
        for day in range(1, 9)
        for index in range(6)
    ]
    with Session(engine) as session:
        store(session, instances, [])
        history = read_task_history(session, dag_ids=None, since=SINCE)
    assert [8] * 6 == [(row.dates.run_after - BEGIN).days for row in history.rows["a"]]
    assert set(flow_ids) == {flow_id for _, flow_id in history.ingested}


@pytest.mark.parametrize("state_after", ["success", "running"])
def test_task_that_changes_between_the_queries(engine: Any, state_after: str) -> None:
    """A task that ends, or is cleared and starts, while the history is read is in the result."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    done: list[Any] = []
    state = "success" if state_after == "running" else "running"
    instance = {"task": ("a", "ingest"), "day": 3, "number": 0, "state": state, "manual": False, "map_index": -1}
    original = database.unsuccessful_rows

    def changed_afterwards(session: Session, **arguments: Any) -> Any:
        result = original(session, **arguments)
        if not done and state_after == "running":  # Airflow deletes the XComs of a task that starts again.
            session.execute(sa.delete(XComModel))
        session.execute(sa.update(TaskInstance).values(state=state_after))
        session.commit()
        done.append(result)
        return result

    with pytest.MonkeyPatch.context() as patch, Session(engine) as session:
        store(session, [{**instance, "kind": "success"}], [])
        patch.setattr(database, "unsuccessful_rows", changed_afterwards)
        history = read_task_history(session, dag_ids=None, since=SINCE)
    runs = [] if state_after == "running" else [run_id_of(("a", "ingest"), 3, 0)]
    assert (["running"], runs) == (
        [row.state for row in history.rows["a"]],
        [row.flow_run.id for row in history.rows["a"] if row.flow_run],
    )


def test_ledger_of_an_unknown_connection_is_an_error(engine: Any) -> None:
    """A DAG that cannot be read may use any connection, so a ledger that cannot be read is no mere warning."""

    def sources(conn_ids: Any) -> list[Any]:
        if "other" in conn_ids:
            raise ConfigurationError("the ledger cannot be read")
        return []

    found = []
    for is_readable in (True, False):
        schedule = database.DagSchedule(timetable=None, is_readable=is_readable)
        with pytest.MonkeyPatch.context() as patch, Session(engine) as session:
            store(session, [], [])
            facts(patch)
            patch.setattr(dag_facts, "dag_schedules", lambda *_, schedule=schedule, **__: {"a": schedule})
            patch.setattr(dataflow_ledger, "stored_conn_ids", lambda _: {"other"})
            patch.setattr(dataflow_ledger, "ledger_sources", sources)
            fleet = read_fleet(session, now=NOW, since=SINCE)
            found.append((fleet.error is None, len(fleet.warnings)))
    assert [(True, 1), (False, 0)] == found


def test_queries_do_not_grow_with_the_dataflows(engine: Any) -> None:
    """Twenty dataflows with missing windows need as many queries as two."""
    numbers = []
    for count in (2, 20):
        tasks = {
            (f"dag_{number}", "ingest"): f"c9cef9cb-c934-4467-8ef9-{number:012}" for number in range(10, 10 + count)
        }
        instances = [
            {"task": task, "day": day, "kind": "success", "number": 0, "state": "success"}
            for task in tasks
            for day in (1, 5)
        ]
        with pytest.MonkeyPatch.context() as patch, Session(engine) as session:
            for task, flow_id in tasks.items():
                patch.setitem(FLOWS, task, flow_id)
            store(session, [{**each, "manual": False, "map_index": -1} for each in instances], [])
            facts(patch)
            schedule: Any = dag_facts.dag_schedules(session)["a"]
            schedule = replace(schedule, tasks=(database.TaskSettings(task_id="ingest"),))
            schedules = {dag_id: schedule for dag_id, _ in tasks}
            patch.setattr(dag_facts, "dag_schedules", lambda *_, schedules=schedules, **__: schedules)
            queries: list[str] = []
            note = lambda *arguments, queries=queries: queries.append(arguments[2])  # noqa: E731
            sa.event.listen(engine, "before_cursor_execute", note)
            fleet = read_fleet(session, now=NOW, since=SINCE)
            sa.event.remove(engine, "before_cursor_execute", note)
            assert count == sum(row.is_wrong for row in fleet.rows if row.key.flow_id in tasks.values())
        numbers.append(len(queries))
    assert numbers[0] == numbers[1], queries


def test_success_without_output_beside_a_failure_with_one(engine: Any) -> None:
    """As many XComs as successes do not mean that each success has one."""
    task = ("a", "ingest")
    usual = {"task": task, "kind": "success", "number": 0, "state": "success", "manual": False, "map_index": -1}
    changes = [{}, {"kind": "nothing"}, {"state": "failed"}]
    with Session(engine) as session:
        store(session, [{**usual, "day": day, **change} for day, change in enumerate(changes, start=1)], [])
        rows = list(database.rows_without_output(session, since=SINCE))
        assert [BEGIN + 2 * DAY] == [row.dates.run_after for row in rows]
        assert [] == list(database.rows_without_output(session, since=SINCE, dag_ids=["b"]))


def test_the_history_gets_the_connection_after_an_error(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small pool, its thread waits for the session that reads the ledgers."""
    read: list[Any] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        read.append(read_task_history(*arguments, **options))
        return read[0]

    monkeypatch.setattr(fleet_reader, "read_task_history", noted)
    # SQLAlchemy 1.4 lets only the thread that opened a connection to SQLite use it.
    connect = {"check_same_thread": False} if engine.dialect.name == "sqlite" else {}
    pool = {"poolclass": sa.pool.QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 20}
    small = sa.create_engine(engine.url, connect_args=connect, **pool)
    with Session(small) as session, pytest.raises(ConfigurationError):
        read_fleet(session, now=NOW, since=SINCE, conn_id="absent", open_session=lambda: Session(small))
    small.dispose()
    assert 1 == len(read)
