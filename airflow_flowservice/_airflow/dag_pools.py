# SPDX-License-Identifier: Apache-2.0
"""Check the pools of a DAG's tasks: a pool limits flow runs only if it also counts tasks that wait in the triggerer."""

from __future__ import annotations

import json
import shlex
import zlib
from typing import TYPE_CHECKING, Any

from airflow_flowservice.checks.findings import POOL, Finding, note, ok, wrong
from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.orm import Session

# All tasks without an argument are in it, so it is no limit of flow runs that a user has set.
_DEFAULT_POOL = "default_pool"
_MODULE = "airflow_flowservice."


def pool_findings(session: Session, dag_id: str) -> Iterator[Finding]:
    """Yield a finding for each pool of the DAG's tasks that are of this package, without Airflow's default pool."""
    tasks = _tasks(session, dag_id)
    if tasks is None:
        error = ConfigurationError(f"Airflow's database has no DAG {dag_id!r}")
        yield wrong(POOL, error, remedy="check the id with `airflow dags list`; the DAG's file may have an error")
        return
    by_pool: dict[str, list[str]] = {}
    for task in tasks:
        arguments = {**task, **task.get("partial_kwargs", {})}
        # A subclass in a module of the user has the template fields of its base class.
        is_subclass = "flowservice_conn_id" in (arguments.get("template_fields") or ())
        if is_subclass or str(task.get("_task_module", "")).startswith(_MODULE):
            by_pool.setdefault(str(arguments.get("pool") or _DEFAULT_POOL), []).append(str(task["task_id"]))
    yield from _findings(session, {name: ids for name, ids in by_pool.items() if name != _DEFAULT_POOL})


def _findings(session: Session, task_ids: dict[str, list[str]]) -> Iterator[Finding]:
    from airflow.models.pool import Pool
    from sqlalchemy import select

    model: Any = Pool
    rows = session.execute(select(model.pool, model.slots, model.include_deferred)).all()
    known = {name: (slots, include_deferred) for name, slots, include_deferred in rows}
    if not task_ids:
        yield ok(POOL, "no task of this package has a pool other than Airflow's default pool")
    for name, ids in sorted(task_ids.items()):
        if name not in known:
            error = ConfigurationError(f"the pool {name!r} of {_listed(ids)} does not exist, so the tasks never start")
            yield wrong(POOL, error, remedy=f"create it: {_command(name, 8)}")
            continue
        slots, include_deferred = known[name]
        if include_deferred:
            yield ok(POOL, f"the pool {name!r} of {_listed(ids)} has {slots} slots, also for deferred tasks")
        else:
            yield note(
                POOL,
                f"the pool {name!r} of {_listed(ids)} does not count deferred tasks, so it does not limit the flow "
                "runs that the triggerer waits for",
                remedy=f"let it count them: {_command(name, slots)}",
            )


def _command(name: str, slots: int) -> str:
    return f"airflow pools set {shlex.quote(name)} {slots} 'flow runs at a time' --include-deferred"


def _listed(task_ids: list[str]) -> str:
    shown = ", ".join(sorted(task_ids)[:3])
    return f"{shown} and {len(task_ids) - 3} more tasks" if len(task_ids) > 3 else shown


def _tasks(session: Session, dag_id: str) -> Iterable[dict[str, Any]] | None:
    """Return the tasks of the newest serialized DAG as JSON; None if there is no such DAG."""
    from airflow.models.serialized_dag import SerializedDagModel
    from sqlalchemy import select

    model: Any = SerializedDagModel
    query = select(model._data, model._data_compressed).where(model.dag_id == dag_id)
    row = session.execute(query.order_by(model.created_at.desc()).limit(1)).first()
    if row is None:
        return None
    data, compressed = row
    parsed = json.loads(zlib.decompress(compressed)) if compressed else data
    return [each["__var"] for each in parsed["dag"]["tasks"]]
