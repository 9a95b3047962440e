# SPDX-License-Identifier: Apache-2.0
"""Create and clear DAG runs with the functions behind `airflow backfill create`, `tasks clear` and `dags trigger`.

These functions of Airflow are not a public interface, so only this module uses them.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import versions
from airflow_flowservice.coverage.fill_requests import MAX_ACTIVE_RUNS, conf_of_run, restate_conf, run_id_of
from airflow_flowservice.plain_text import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy.orm import Session

    from airflow_flowservice.coverage.fill_plan import FilledWindow, FillStep


class FillRefusedError(Exception):
    """Airflow refused to create or to clear DAG runs. The message has Airflow's reason."""


@dataclass(frozen=True, kw_only=True)
class ActiveBackfill:
    """Backfill of a DAG that has not ended.

    :param runs: number of its DAG runs; `ended` is the number of those that ended.
    """

    id: int
    runs: int
    ended: int
    is_paused: bool = False


def active_backfill(session: Session, dag_id: str) -> ActiveBackfill | None:
    """Return the backfill of a DAG that has not ended; Airflow allows one at a time."""
    from airflow.models.backfill import Backfill, BackfillDagRun
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    query = select(Backfill).where(Backfill.dag_id == dag_id, Backfill.completed_at.is_(None)).limit(1)
    found: Any = session.scalar(query)
    if found is None:
        return None
    of_run = BackfillDagRun.dag_run_id == DagRun.id
    states = session.scalars(
        select(DagRun.state).join(BackfillDagRun, of_run).where(BackfillDagRun.backfill_id == found.id)
    ).all()
    ended = sum(str(state) in ("success", "failed") for state in states)
    return ActiveBackfill(id=found.id, runs=len(states), ended=ended, is_paused=bool(found.is_paused))


def is_paused(session: Session, dag_id: str) -> bool:
    """Return whether a DAG is paused, so that its DAG runs stay queued."""
    from airflow.models.dag import DagModel
    from sqlalchemy import select

    return bool(session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id)))


def create_backfill(step: FillStep, *, max_active_runs: int = MAX_ACTIVE_RUNS) -> bool:
    """Create a backfill; return False if another backfill of the DAG is active.

    :raises FillRefusedError: Airflow refuses the backfill.
    """
    from airflow.models import backfill

    model: Any = backfill
    first, last = step.dates
    arguments = {
        "dag_id": step.dag_id,
        "from_date": first,
        "to_date": last,
        "max_active_runs": max_active_runs,
        "reverse": False,
        # With a conf, Airflow from 3.2 on replaces that of DAG runs that run again; 3.0 and 3.1 store no missing conf.
        "dag_run_conf": restate_conf(step) or (None if versions.accepts_backfill_without_conf() else {}),
        "triggering_user_name": _user(),
        "reprocess_behavior": model.ReprocessBehavior(step.reprocess),
        "run_on_latest_version": True,
    }
    accepted = inspect.signature(model._create_backfill).parameters
    try:
        with _airflow_errors():
            model._create_backfill(**{name: value for name, value in arguments.items() if name in accepted})
    except model.AlreadyRunningBackfill:
        return False
    return True


def trigger_run(step: FillStep, filled: FilledWindow, *, now: datetime) -> bool:
    """Create a DAG run with the window in its conf; return False if it exists.

    :raises FillRefusedError: Airflow refuses the DAG run.
    """
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.exceptions import DagRunAlreadyExists
    from airflow.utils.types import DagRunTriggeredByType

    create: Any = trigger_dag
    arguments = {
        "dag_id": step.dag_id,
        "run_id": run_id_of(step, filled, now=now),
        "conf": conf_of_run(step, filled),
        "triggered_by": DagRunTriggeredByType.CLI,
        "triggering_user_name": _user(),
    }
    accepted = inspect.signature(create).parameters
    try:
        with _airflow_errors():
            create(**{name: value for name, value in arguments.items() if name in accepted})
    except DagRunAlreadyExists:
        return False
    return True


def clear_task(session: Session, step: FillStep, filled: FilledWindow) -> bool:
    """Run a task of an existing DAG run again; return False if it is no longer there, or no longer failed.

    If the task failed, its failed downstream tasks also run again. Tasks that succeeded do not.

    :raises FillRefusedError: Airflow does not have the DAG, or refuses the clear.
    """
    from airflow.models.serialized_dag import SerializedDagModel

    model: Any = SerializedDagModel
    with _airflow_errors():
        serialized = model.get(step.dag_id, session=session)
        if serialized is None:
            raise FillRefusedError(f"Airflow's database has no DAG {step.dag_id!r}")
        dag = serialized.dag
        task_ids: list[Any] = [(filled.task_id, filled.map_index) if filled.map_index >= 0 else filled.task_id]
        if filled.has_failed_task:
            related = dag.partial_subset(
                task_ids=[filled.task_id],
                include_downstream=True,
                include_upstream=filled.task_state == "upstream_failed",
            )
            task_ids += [task_id for task_id in related.task_dict if task_id != filled.task_id]
        count = dag.clear(
            task_ids=task_ids, run_id=filled.dag_run_id, only_failed=filled.has_failed_task, session=session
        )
        session.commit()
    return bool(count)


@contextmanager
def _airflow_errors() -> Iterator[None]:
    """Raise Airflow's errors as `FillRefusedError`, except those of something that already exists."""
    from airflow import exceptions
    from airflow.models.backfill import AlreadyRunningBackfill

    known: Any = exceptions
    try:
        yield
    except (AlreadyRunningBackfill, known.DagRunAlreadyExists):
        raise
    except (known.AirflowException, ValueError) as error:
        raise FillRefusedError(clean_text(str(error) or type(error).__name__, length=1000)) from error


def _user() -> str | None:
    from airflow.utils.platform import getuser

    try:
        return str(getuser())
    except Exception:  # Airflow raises AirflowConfigException if the user id has no name
        return None
