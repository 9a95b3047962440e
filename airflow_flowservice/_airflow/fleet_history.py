# SPDX-License-Identifier: Apache-2.0
"""Read the task instances in Airflow's history, for the overview of all dataflows.

Most task instances succeeded with a flow run of a whole window. They are only counted by flow run, from texts that the
database takes out of the XCom. All others are read as rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import database
from airflow_flowservice.plain_text import canonical_id
from airflow_flowservice.windows.window import END, START, window_from_json

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.database import TaskRow
    from airflow_flowservice.windows.window import IngestionWindow

TaskKey = tuple[str, str]

_SUCCEEDED = frozenset({"success", "partial_success"})
# Form of Adobe's ids, and of the instants in an XCom. The text of a number or an object has another form.
_ID = re.compile(r"[^{\[].{7}-.{4}-.{4}-.{4}-.{12}", re.DOTALL)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(kw_only=True)
class History:
    """Task instances in Airflow's history.

    :param ingested: window of each successful flow run of each task and dataflow.
    :param newest: dataflow of the newest success of each DAG, mapped task and map index.
    :param rows: task instances of each DAG that are not only counted by flow run.
    """

    ingested: dict[tuple[TaskKey, str], dict[str, IngestionWindow]] = field(default_factory=dict)
    newest: dict[tuple[str, str, int], str] = field(default_factory=dict)
    rows: dict[str, list[TaskRow]] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Counted:
    """Task instances that are counted by flow run, and the DAG runs with others.

    :param tasks: window of each flow run, by DAG, task and the dataflow as in the XCom.
    :param newest: `dag_run_id` and dataflow of the newest success of each DAG, mapped task and map index.
    :param others: `dag_run_id` of DAG runs with successes that must be read as rows.
    """

    tasks: dict[tuple[str, str, str], dict[str, IngestionWindow]] = field(default_factory=dict)
    newest: dict[tuple[str, str, int], tuple[int, str]] = field(default_factory=dict)
    others: set[int] = field(default_factory=set)


def read_task_history(session: Session, *, dag_ids: Collection[str] | None, since: datetime) -> History:
    """Return the task instances that ingest, or did so.

    :param dag_ids: only DAGs that the user may read; None means all.
    :param since: aware; skip DAG runs for earlier dates.
    """
    counted = _count(session, dag_ids=dag_ids, since=since)
    history = History(newest={instance: canonical_id(flow_id) for instance, (_, flow_id) in counted.newest.items()})
    for (dag_id, task_id, flow_id), ingested in counted.tasks.items():
        history.ingested.setdefault(((dag_id, task_id), canonical_id(flow_id)), {}).update(ingested)
    # A task instance may be both a row and counted: they are joined by flow run.
    found = {
        (row.dag_id, row.run_id, row.task_id, row.map_index): row
        for row in chain(
            database.task_rows(session, dag_ids=dag_ids, since=since, with_successes=False),
            database.success_rows(session, counted.others),
            database.newest_successes(session, dag_ids=dag_ids, since=since),
        )
    }
    for row in sorted(found.values(), key=lambda row: (row.dates.run_after, row.dag_id, row.task_id, row.map_index)):
        history.rows.setdefault(row.dag_id, []).append(row)
    return history


def _count(session: Session, *, dag_ids: Collection[str] | None, since: datetime) -> _Counted:
    counted = _Counted()
    # The instants are the same for most dataflows.
    windows: dict[tuple[Any, Any], IngestionWindow | None] = {}
    for dag_id, task_id, map_index, dag_run_id, flow_id, flow_run_id, start, end, status, part_of in database.successes(
        session, dag_ids=dag_ids, since=since
    ):
        if (start, end) in windows:
            window = windows[start, end]
        else:
            window = windows[start, end] = _window(start, end)
        ingested = counted.tasks.get((dag_id, task_id, flow_id))
        if ingested is None and _is_id(flow_id):
            ingested = counted.tasks[dag_id, task_id, flow_id] = {}
        is_whole = status in _SUCCEEDED and part_of is None
        if window is None or ingested is None or not is_whole or not _is_id(flow_run_id):
            counted.others.add(dag_run_id)
            continue
        ingested[flow_run_id] = window
        if map_index >= 0:
            instance = (dag_id, task_id, map_index)
            counted.newest[instance] = max(counted.newest.get(instance, (-1, "")), (dag_run_id, flow_id))
    return counted


def _is_id(value: Any) -> bool:
    """Return whether a value of the database has the form of an id; SQLAlchemy 1.4 returns a number as such."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _window(start: Any, end: Any) -> IngestionWindow | None:
    """Return the window of two values of the database; None if they are not those of a summary."""
    if not all(isinstance(value, str) and _INSTANT.fullmatch(value) for value in (start, end)):
        return None
    return window_from_json({START: start, END: end})
