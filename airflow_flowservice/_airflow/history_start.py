# SPDX-License-Identifier: Apache-2.0
"""Find the begin of what Airflow's metadata database has about DAGs, since earlier records may have been deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow.database import flow_run_key, in_dags, models

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

# Tasks that start within this time may start in any order.
_FIRST = timedelta(hours=1)
# DAGs with different times in one query. The database compares each row with half of them.
_DAGS_AT_ONCE = 25


@dataclass(frozen=True, kw_only=True)
class HistoryStart:
    """Begin of what the metadata database has about a DAG, as times of DAG runs (`run_after`).

    Runs for earlier dates may have been deleted. A DAG run for an earlier date that was created much later, for
    instance by a backfill, does not move the begin: `airflow db clean` deletes by the time of execution.

    :param tasks: DAG run of the task instance that started first.
    :param outputs: DAG run of the first XCom `flow_run`; None if there is none.
    """

    tasks: datetime
    outputs: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows of a table that show when the history of a DAG begins.

    :param dag_id: column.
    :param at: time at which Airflow executed something.
    :param of_run: condition that joins a row with its DAG run.
    :param conditions: conditions of the rows.
    :param joins_for_at: `at` is a value of the DAG run.
    """

    dag_id: Any
    at: Any
    of_run: Any
    conditions: tuple[Any, ...]
    joins_for_at: bool = False


def history_start(session: Session, dag_id: str) -> HistoryStart | None:
    """Return the begin of a DAG's history; None if the DAG has no DAG run."""
    return history_starts(session, [dag_id]).get(dag_id)


def history_starts(
    session: Session, dag_ids: Collection[str], *, with_outputs: Collection[str] | None = None
) -> dict[str, HistoryStart]:
    """Return the begin of the history of each DAG that has a DAG run.

    :param with_outputs: read `outputs` only for these DAGs; None means all.
    """
    tasks = task_starts(session, dag_ids)
    outputs = output_starts(session, dag_ids if with_outputs is None else with_outputs)
    return {dag_id: HistoryStart(tasks=date, outputs=outputs.get(dag_id)) for dag_id, date in tasks.items()}


def task_starts(session: Session, dag_ids: Collection[str]) -> dict[str, datetime]:
    """Return `HistoryStart.tasks` of each DAG that has a DAG run."""
    from sqlalchemy import func, select

    ti, run, _ = models()
    of_run = (run.dag_id == ti.dag_id) & (run.run_id == ti.run_id)
    # Not one expression: the database would join all task instances with their DAG runs to compute it.
    started = _Rows(dag_id=ti.dag_id, at=ti.start_date, of_run=of_run, conditions=(ti.start_date.is_not(None),))
    never_started = _Rows(
        dag_id=ti.dag_id,
        at=func.coalesce(run.start_date, run.queued_at, run.run_after),
        of_run=of_run,
        conditions=(ti.start_date.is_(None),),
        joins_for_at=True,
    )
    found = _first_dates(session, (started, never_started), dag_ids)
    others = [dag_id for dag_id in dag_ids if dag_id not in found]
    if others:  # without task instances, the DAG runs do not show what was ingested
        last = select(run.dag_id, func.max(run.run_after)).where(*in_dags(run.dag_id, others)).group_by(run.dag_id)
        found |= {row[0]: row[1] for row in session.execute(last)}
    return found


def output_starts(session: Session, dag_ids: Collection[str]) -> dict[str, datetime]:
    """Return `HistoryStart.outputs` of each DAG that has an XCom `flow_run`."""
    _, run, xcom = models()
    of_run = run.id == xcom.dag_run_id
    pushed = _Rows(dag_id=xcom.dag_id, at=xcom.timestamp, of_run=of_run, conditions=(xcom.key == flow_run_key(),))
    return _first_dates(session, (pushed,), dag_ids)


def _first_dates(session: Session, sources: Collection[_Rows], dag_ids: Collection[str]) -> dict[str, datetime]:
    """Return the earliest DAG run of each DAG's rows that are at most `_FIRST` later than its first `at`."""
    if not dag_ids:
        return {}
    firsts: dict[str, datetime] = {}
    for rows in sources:
        _keep_earliest(firsts, session.execute(_first_times(rows, dag_ids)))
    found: dict[str, datetime] = {}
    limits = [(dag_id, at + _FIRST) for dag_id, at in firsts.items()]
    for begin in range(0, len(limits), _DAGS_AT_ONCE):
        for rows in sources:
            _keep_earliest(found, session.execute(_dates_until(rows, dict(limits[begin : begin + _DAGS_AT_ONCE]))))
    return found


def _keep_earliest(found: dict[str, datetime], rows: Any) -> None:
    for dag_id, date in rows:
        if date is not None and (dag_id not in found or date < found[dag_id]):
            found[dag_id] = date


def _first_times(rows: _Rows, dag_ids: Collection[str]) -> Any:
    """Return the query of the first `at` of each DAG."""
    from sqlalchemy import func, select

    _, run, _ = models()
    query = select(rows.dag_id, func.min(rows.at)).where(*rows.conditions, *in_dags(rows.dag_id, dag_ids))
    if rows.joins_for_at:
        query = query.join(run, rows.of_run)
    return query.group_by(rows.dag_id)


def _dates_until(rows: _Rows, limits: Mapping[str, datetime]) -> Any:
    """Return the query of the earliest DAG run of each DAG's rows until an instant.

    :param limits: the instant of each DAG.
    """
    from sqlalchemy import and_, func, or_, select

    _, run, _ = models()
    # Not a table of the limits: MySQL compares no text of a connection with a column of another collation.
    is_first = or_(*(and_(rows.dag_id == dag_id, rows.at <= until) for dag_id, until in limits.items()))
    return (
        select(rows.dag_id, func.min(run.run_after))
        .join(run, rows.of_run)
        .where(*rows.conditions, *in_dags(rows.dag_id, limits), is_first)  # the second one by an index
        .group_by(rows.dag_id)
    )
