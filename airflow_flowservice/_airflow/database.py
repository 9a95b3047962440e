# SPDX-License-Identifier: Apache-2.0
"""Read the tasks that create or watch flow runs from Airflow's metadata database.

This uses Airflow's models, which are not a public interface, and returns plain values. The callers are the command
line and the page in the API server, which pass a session.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import versions
from airflow_flowservice.plain_text import canonical_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from sqlalchemy.orm import Session

    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.windows.schedule import RunDates

CREATING = ("OnDemandFlowRunOperator", "RetriggerFlowRunOperator")
# Rows in one part of a reading. Parts that fit in the cache of a processor are read a quarter faster than large ones.
FETCH_SIZE = 500
# DAG runs in one query; SQLite before 3.32 takes at most 999 parameters.
_RUNS_AT_ONCE = 900
# DAG, task, map index, and id of the table of DAG runs.
InstanceKey = tuple[str, str, int, int]


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """Task instance with the dates of its DAG run and its XCom `flow_run`.

    :param creates: True if the task creates flow runs, and so expects a window; False for a sensor.
    :param flow_run: summary in the XCom; None if the task pushed none.
    :param readable: False if this process cannot read the XCom, for example that of a custom backend.
    """

    dag_id: str
    run_id: str
    run_state: str
    task_id: str
    map_index: int
    state: str | None
    run_type: str
    conf: Mapping[str, Any]
    dates: RunDates
    creates: bool
    flow_run: FlowRunSummary | None = None
    readable: bool = True


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Task and the dataflow of its newest flow run."""

    flow_id: str
    dag_id: str
    task_id: str


def feeds(session: Session, *, dag_ids: Collection[str] | None = None) -> list[Feed]:
    """Return the tasks that pushed flow runs, with the dataflow of each task's newest flow run.

    :param dag_ids: return only tasks of these DAGs; None means all.
    """
    from sqlalchemy import func, select

    _, _, xcom = models()
    newest = (
        select(xcom.dag_id, xcom.task_id, func.max(xcom.dag_run_id).label("dag_run_id"))
        .where(xcom.key == flow_run_key(), *in_dags(xcom.dag_id, dag_ids))
        .group_by(xcom.dag_id, xcom.task_id)
        .subquery()
    )
    query = select(xcom.dag_id, xcom.task_id, xcom.value).join(
        newest,
        (xcom.dag_id == newest.c.dag_id)
        & (xcom.task_id == newest.c.task_id)
        & (xcom.dag_run_id == newest.c.dag_run_id)
        & (xcom.key == flow_run_key()),
    )
    found = {}
    for dag_id, task_id, value in session.execute(query):
        summary, _ = _summary(value)
        if summary and summary.flow_id is not None:
            feed = Feed(flow_id=summary.flow_id, dag_id=dag_id, task_id=task_id)
            found[feed] = feed
    return sorted(found, key=lambda feed: (feed.flow_id, feed.dag_id, feed.task_id))


def dags_with_output(session: Session) -> set[str]:
    """Return the DAGs with a task that pushed an XCom `flow_run`, also if it is none of this package."""
    from sqlalchemy import select

    _, _, xcom = models()
    return set(session.scalars(select(xcom.dag_id).where(xcom.key == flow_run_key()).distinct()))


def task_rows(
    session: Session, *, dag_ids: Collection[str] | None = None, since: datetime | None = None
) -> Iterator[TaskRow]:
    """Yield the task instances that create flow runs or pushed one, sorted by the time of their DAG runs.

    :param dag_ids: yield only task instances of these DAGs; None means all.
    :param since: skip DAG runs for earlier dates.
    """
    for _, row in _task_rows(session, _query(dag_ids, since)):
        yield from filter(None, [row])


def unsuccessful_rows(
    session: Session, *, dag_ids: Collection[str] | None = None, since: datetime | None = None
) -> tuple[list[TaskRow], set[InstanceKey]]:
    """Return the rows of `task_rows` that did not succeed, and the keys of all instances that did not and have an XCom.

    :param dag_ids: as in `task_rows`; `since` likewise.
    """
    ti, _, _ = models()
    query = _query(dag_ids, since).where(ti.state.is_(None) | (ti.state != "success"))
    found = list(_task_rows(session, query))
    return [row for _, row in found if row], {key for key, _ in found}


def rows_without_output(
    session: Session, *, dag_ids: Collection[str] | None = None, since: datetime | None = None
) -> Iterator[TaskRow]:
    """Yield the rows of `task_rows` that succeeded and pushed no flow run.

    :param dag_ids: as in `task_rows`; `since` likewise.
    """
    ti, _, _ = models()
    with_rows = sorted(set(session.scalars(_dags_without_output(dag_ids))))
    if not with_rows:
        return
    query = _query(with_rows, since, pushed=False).where(ti.state == "success")
    for _, row in _task_rows(session, query):
        yield from filter(None, [row])


def _dags_without_output(dag_ids: Collection[str] | None) -> Any:
    """Return the query of DAGs with a task that has more successes than successes that pushed a flow run.

    To count both takes a fifth of the time of a search for each XCom.
    """
    from sqlalchemy import func, select

    ti, _, xcom = models()
    count = func.count().label("number")
    succeeded = (
        select(ti.dag_id, ti.task_id, count)
        .where(ti.operator.in_(CREATING), ti.state == "success", *in_dags(ti.dag_id, dag_ids))
        .group_by(ti.dag_id, ti.task_id)
        .subquery()
    )
    # Airflow deletes the XComs of a task instance with it.
    pushed = (
        select(xcom.dag_id, xcom.task_id, count)
        .where(xcom.key == flow_run_key(), *in_dags(xcom.dag_id, dag_ids))
        .group_by(xcom.dag_id, xcom.task_id)
        .subquery()
    )
    unsuccessful = (
        select(ti.dag_id, ti.task_id, count)
        .join(xcom, _pushed(ti, xcom))
        .where(ti.state.is_(None) | (ti.state != "success"), *in_dags(ti.dag_id, dag_ids))
        .group_by(ti.dag_id, ti.task_id)
        .subquery()
    )
    with_output = func.coalesce(pushed.c.number, 0) - func.coalesce(unsuccessful.c.number, 0)
    query = select(succeeded.c.dag_id).where(succeeded.c.number > with_output)
    for each in (pushed, unsuccessful):
        is_same = (each.c.dag_id == succeeded.c.dag_id) & (each.c.task_id == succeeded.c.task_id)
        query = query.outerjoin(each, is_same)
    return query


def rows_with_output(session: Session, dag_run_ids: Collection[int]) -> Iterator[TaskRow]:
    """Yield the rows of `task_rows` that pushed a flow run in some DAG runs, in any order.

    :param dag_run_ids: ids of the table of DAG runs.
    """
    _, run, xcom = models()
    query = _query(None, None).where(xcom.key == flow_run_key())
    ids = sorted(dag_run_ids)
    for begin in range(0, len(ids), _RUNS_AT_ONCE):
        for _, row in _task_rows(session, query.where(run.id.in_(ids[begin : begin + _RUNS_AT_ONCE]))):
            yield from filter(None, [row])


def _task_rows(session: Session, query: Any) -> Iterator[tuple[InstanceKey, TaskRow | None]]:
    """Yield the key of each instance, and its row; None if an XCom of another package has the same key."""
    for row in session.execute(query.execution_options(yield_per=FETCH_SIZE)):
        found = _task_row(row)
        is_ours = row.operator in CREATING or found.flow_run or not found.readable
        yield (row.dag_id, row.task_id, row.map_index, row.dag_run_id), found if is_ours else None


def _pushed(ti: Any, xcom: Any) -> Any:
    """Return the condition that joins a task instance with its XCom `flow_run`."""
    return (
        (xcom.dag_id == ti.dag_id)
        & (xcom.run_id == ti.run_id)
        & (xcom.task_id == ti.task_id)
        & (xcom.map_index == ti.map_index)
        & (xcom.key == flow_run_key())
    )


def _query(dag_ids: Collection[str] | None, since: datetime | None, *, pushed: bool = True) -> Any:
    """Return the query of task instances that create flow runs or pushed one; without `pushed`, that pushed none."""
    from sqlalchemy import null, select

    ti, run, xcom = models()
    columns: list[Any] = [
        *(getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index", "state", "operator")),
        *(getattr(run, name) for name in _RUN_COLUMNS),
        run.id.label("dag_run_id"),
        run.state.label("run_state"),
        *([run.partition_date] if hasattr(run, "partition_date") else []),
        (xcom.key if pushed else null()).label("pushed"),
        (xcom.value if pushed else null()).label("flow_run"),
    ]
    creates = ti.operator.in_(CREATING)
    query = select(*columns).join(run, (run.dag_id == ti.dag_id) & (run.run_id == ti.run_id))
    if pushed:
        query = query.outerjoin(xcom, _pushed(ti, xcom)).where(creates | xcom.key.is_not(None))
    else:
        # Not by an outer join: the database would sort the XComs with their values.
        query = query.where(creates, ~select(xcom.key).where(_pushed(ti, xcom)).exists())
    query = query.where(*in_dags(ti.dag_id, dag_ids))
    query = query.order_by(run.run_after, ti.dag_id, ti.task_id, ti.map_index)
    return query if since is None else query.where(run.run_after >= since)


@dataclass(frozen=True, kw_only=True)
class DagSchedule:
    """Schedule of a DAG.

    :param timetable: the timetable of the scheduler; None if this process cannot decode it.
    :param start: earliest date of a DAG run; None if the DAG has no `start_date`.
    :param end: latest date of a DAG run; None if the DAG has no `end_date`.
    :param tasks: tasks that create flow runs.
    :param ordered: any task has `depends_on_past`.
    :param is_readable: False if this process cannot read the serialized DAG, so that its tasks are unknown.
    """

    timetable: Any
    start: datetime | None = None
    end: datetime | None = None
    tasks: tuple[TaskSettings, ...] = ()
    ordered: bool = False
    is_readable: bool = True


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Arguments of a task that creates flow runs; None for a template, or an argument of a mapped task.

    :param continues: earlier dataflows whose windows count as windows of this one.
    """

    task_id: str
    flow_id: str | None = None
    conn_id: str | None = None
    continues: tuple[str, ...] = ()


def dag_schedule_of(session: Session, dag_id: str) -> DagSchedule | None:
    """Return the scheduler's schedule of a DAG, without a timetable if it cannot be read; None without such a DAG."""
    from airflow.models.serialized_dag import SerializedDagModel

    model: Any = SerializedDagModel
    serialized = model.get(dag_id, session=session)
    if serialized is None:
        return None
    try:
        dag = serialized.dag
        return DagSchedule(
            timetable=dag.timetable,
            start=dag.start_date,
            end=dag.end_date,
            tasks=tuple(_task_settings(dag)),
            ordered=any(getattr(task, "depends_on_past", False) for task in dag.tasks),
        )
    except Exception:
        # The timetable may be in a plugin that this process lacks. The DAG runs and the tasks are still read.
        with suppress(Exception):
            return serialized_schedule(serialized.data["dag"], {})
        return DagSchedule(timetable=None, is_readable=False)


def serialized_schedule(dag: Mapping[str, Any], timetables: dict[str, Any]) -> DagSchedule:
    """Return the schedule of a serialized DAG, without a timetable if this process cannot decode it.

    :param dag: the JSON value of the key `dag`.
    :param timetables: by their JSON, so that equal timetables are one object; a new one is added.
    :raises Exception: another version of Airflow serialized the DAG.
    """
    tasks = tuple(_serialized_tasks(dag))
    key = json.dumps(dag["timetable"], sort_keys=True)
    if tasks and key not in timetables:
        timetables[key] = None
        with suppress(Exception):  # Airflow's class for a timetable that no plugin has is not public.
            timetables[key] = versions.decode_timetable(dag["timetable"])
    return DagSchedule(
        timetable=timetables.get(key),
        start=_instant(dag.get("start_date")),
        end=_instant(dag.get("end_date")),
        tasks=tasks,
        ordered=any(_arguments(each).get("depends_on_past", False) for each in dag["tasks"]),
    )


def _arguments(serialized: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a serialized task; of a mapped one, those that are the same for all its instances."""
    task: Mapping[str, Any] = serialized["__var"]
    return task.get("partial_kwargs", task)  # type: ignore[no-any-return]


def _serialized_tasks(dag: Mapping[str, Any]) -> Iterator[TaskSettings]:
    for each in dag["tasks"]:
        task = each["__var"]
        if task["task_type"] in CREATING:
            yield task_settings(task["task_id"], _arguments(each).get)


def _instant(value: float | None) -> datetime | None:
    return None if value is None else datetime.fromtimestamp(value, timezone.utc)


def _task_settings(dag: Any) -> Iterator[TaskSettings]:
    for task in dag.tasks:
        if task.task_type in CREATING:
            arguments = getattr(task, "partial_kwargs", None)
            get = arguments.get if isinstance(arguments, dict) else lambda name, task=task: getattr(task, name, None)
            yield task_settings(task.task_id, get)


def task_settings(task_id: str, get: Callable[[str], Any]) -> TaskSettings:
    """Return the settings of a task.

    :param get: return an argument of the task, or None.
    """
    flow_id = _literal(get("flow_id"))
    return TaskSettings(
        task_id=task_id,
        flow_id=None if flow_id is None else canonical_id(flow_id),
        conn_id=_literal(get("flowservice_conn_id") or "flowservice_default"),
        continues=_ids(get("continues")),
    )


def _ids(value: Any) -> tuple[str, ...]:
    """Return the ids of an argument of the DAG or of the serialized DAG, in which a tuple is an object."""
    if isinstance(value, dict):
        value = value.get("__var")
    values = value if isinstance(value, list | tuple | set) else [value]
    return tuple(canonical_id(each) for each in values if isinstance(each, str))


def _literal(value: Any) -> str | None:
    return value if isinstance(value, str) and "{{" not in value and "{%" not in value else None


_RUN_COLUMNS = ("run_type", "conf", "run_after", "logical_date", "data_interval_start", "data_interval_end")


def models() -> tuple[Any, Any, Any]:
    """Return Airflow's models of task instances, DAG runs and XComs."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    return TaskInstance, DagRun, XComModel


def flow_run_key() -> str:
    """Return the key of the XCom that has the flow run."""
    from airflow_flowservice._airflow.task_context import FLOW_RUN_KEY

    return FLOW_RUN_KEY


def in_dags(column: Any, dag_ids: Collection[str] | None) -> list[Any]:
    """Return the conditions that limit a column to DAGs; none if `dag_ids` is None."""
    return [] if dag_ids is None else [column.in_(list(dag_ids))]


def _task_row(row: Any) -> TaskRow:
    from airflow_flowservice._airflow.task_context import dates_of

    summary, readable = _summary(row.flow_run) if row.pushed is not None else (None, True)
    return TaskRow(
        dag_id=row.dag_id,
        run_id=row.run_id,
        run_state=str(row.run_state),
        task_id=row.task_id,
        map_index=row.map_index,
        state=None if row.state is None else str(row.state),
        run_type=str(getattr(row.run_type, "value", row.run_type)),
        conf=row.conf if isinstance(row.conf, dict) else {},
        dates=dates_of(row),
        creates="sensor" not in (row.operator or "").lower(),
        flow_run=summary,
        readable=readable,
    )


def _summary(value: Any) -> tuple[FlowRunSummary | None, bool]:
    """Return the summary in an XCom, if it has one, and whether the XCom is readable.

    The database contains JSON or, in Airflow 3.0, a JSON string that contains JSON.
    """
    from airflow_flowservice.runs.summary import FlowRunSummary

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None, False
    summary = FlowRunSummary.from_json(value)
    if summary and summary.flow_id is not None and (flow_id := canonical_id(summary.flow_id)) != summary.flow_id:
        summary = replace(summary, flow_id=flow_id)  # of an earlier version, which pushed the id as the DAG has it
    return summary, not isinstance(value, str)
