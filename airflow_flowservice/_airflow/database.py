"""What Airflow's metadata database knows of tasks that make or watch flow runs.

The one place that touches Airflow's models, which are its own affair: for the command line and for the page in the
API server, both of which have a session. Everything that leaves here is a plain value.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

    from airflow_flowservice.runs.summary import FlowRunSummary
    from airflow_flowservice.windows.schedule import RunDates

_CREATING = ("OnDemandFlowRunOperator", "RetriggerFlowRunOperator")
_AT_A_TIME = 2000


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task instance, its DAG run's dates, and the XCom `flow_run` that it pushed.

    :param creates: it makes flow runs, and so asks for a window; a sensor only watches them.
    :param flow_run: the summary that it pushed; None if it pushed none.
    :param readable: False if it pushed something that this process cannot read (a custom XCom backend).
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
    """A task that feeds a dataflow, as its newest flow run says."""

    flow_id: str
    dag_id: str
    task_id: str


def feeds(session: Session, *, dag_ids: Collection[str] | None = None) -> list[Feed]:
    """The tasks that pushed flow runs, and the dataflow that each fed last.

    :param dag_ids: only of these DAGs; None means all.
    """
    from sqlalchemy import func, select

    _, _, xcom = _models()
    newest = (
        select(xcom.dag_id, xcom.task_id, func.max(xcom.dag_run_id).label("dag_run_id"))
        .where(xcom.key == _key(), *_of(xcom.dag_id, dag_ids))
        .group_by(xcom.dag_id, xcom.task_id)
        .subquery()
    )
    query = select(xcom.dag_id, xcom.task_id, xcom.value).join(
        newest,
        (xcom.dag_id == newest.c.dag_id)
        & (xcom.task_id == newest.c.task_id)
        & (xcom.dag_run_id == newest.c.dag_run_id)
        & (xcom.key == _key()),
    )
    found = {}
    for dag_id, task_id, value in session.execute(query):
        summary, _ = _summary(value)
        if summary and summary.flow_id is not None:
            feed = Feed(flow_id=summary.flow_id, dag_id=dag_id, task_id=task_id)
            found[feed] = feed
    return sorted(found, key=lambda feed: (feed.flow_id, feed.dag_id, feed.task_id))


def task_rows(
    session: Session, *, dag_ids: Collection[str] | None = None, since: datetime | None = None
) -> Iterator[TaskRow]:
    """Task instances that create flow runs, and all that pushed one; by the time of their DAG runs.

    :param dag_ids: only of these DAGs; None means all.
    :param since: leave out DAG runs for earlier dates.
    """
    for row in session.execute(_query(dag_ids, since).execution_options(yield_per=_AT_A_TIME)):
        found = _task_row(row)
        # Somebody else's XCom may have the same key.
        if row.operator in _CREATING or found.flow_run or not found.readable:
            yield found


def _query(dag_ids: Collection[str] | None, since: datetime | None) -> Any:
    from sqlalchemy import select

    ti, run, xcom = _models()
    columns: list[Any] = [
        *(getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index", "state", "operator")),
        *(getattr(run, name) for name in _RUN_FACTS),
        run.state.label("run_state"),
        *([run.partition_date] if hasattr(run, "partition_date") else []),
        xcom.key.label("pushed"),
        xcom.value.label("flow_run"),
    ]
    pushed = (
        (xcom.dag_id == ti.dag_id)
        & (xcom.run_id == ti.run_id)
        & (xcom.task_id == ti.task_id)
        & (xcom.map_index == ti.map_index)
        & (xcom.key == _key())
    )
    query = (
        select(*columns)
        .join(run, (run.dag_id == ti.dag_id) & (run.run_id == ti.run_id))
        .outerjoin(xcom, pushed)
        .where(ti.operator.in_(_CREATING) | xcom.key.is_not(None), *_of(ti.dag_id, dag_ids))
        .order_by(run.run_after, ti.dag_id, ti.task_id, ti.map_index)
    )
    return query if since is None else query.where(run.run_after >= since)


@dataclass(frozen=True, kw_only=True)
class DagSchedule:
    """When a DAG runs.

    :param timetable: as the scheduler has it.
    :param start: no run has an earlier date; None if the DAG does not say.
    :param end: no run has a later date.
    """

    timetable: Any
    start: datetime | None = None
    end: datetime | None = None


def schedule_of(session: Session, dag_id: str) -> DagSchedule | None:
    """When a DAG runs, as the scheduler has it; None if there is no such DAG, or it cannot be read."""
    from airflow.models.serialized_dag import SerializedDagModel

    model: Any = SerializedDagModel
    try:
        serialized = model.get(dag_id, session=session)
        dag = serialized.dag if serialized else None
        return dag and DagSchedule(timetable=dag.timetable, start=dag.start_date, end=dag.end_date)
    except Exception:
        # A timetable of a plugin that this process lacks; what the runs themselves tell is still true.
        return None


_RUN_FACTS = ("run_type", "conf", "run_after", "logical_date", "data_interval_start", "data_interval_end")


def _models() -> tuple[Any, Any, Any]:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    return TaskInstance, DagRun, XComModel


def _key() -> str:
    from airflow_flowservice._airflow.task_context import FLOW_RUN_KEY

    return FLOW_RUN_KEY


def _of(column: Any, dag_ids: Collection[str] | None) -> list[Any]:
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
    """What was pushed, and whether it can be read: the database has JSON, or JSON in a string of JSON."""
    from airflow_flowservice.runs.summary import FlowRunSummary

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None, False
    return FlowRunSummary.from_json(value), not isinstance(value, str)
