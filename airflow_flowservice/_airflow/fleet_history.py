# SPDX-License-Identifier: Apache-2.0
"""Read the task instances in Airflow's history, for the overview of all dataflows.

Most task instances succeeded with a flow run of a whole window. They are only counted by flow run, from texts that the
database takes out of the XCom. All others are read as rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import database
from airflow_flowservice.plain_text import canonical_id
from airflow_flowservice.windows.window import END, START, window_from_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.database import InstanceKey, TaskRow
    from airflow_flowservice.windows.window import IngestionWindow

TaskKey = tuple[str, str]

_SCHEDULED = ("scheduled", "backfill")
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


@dataclass(slots=True, kw_only=True)
class _Counted:
    """Successes of one task, map index and dataflow (as in the XCom) that are counted by flow run.

    :param ingested: window of each flow run.
    :param newest: `dag_run_id` of the newest success; `newest_scheduled` that of a scheduled DAG run.
    """

    ingested: dict[str, IngestionWindow] = field(default_factory=dict)
    newest: int = -1
    newest_scheduled: int = -1


def read_task_history(session: Session, *, dag_ids: Collection[str] | None, since: datetime) -> History:
    """Return the task instances that ingest, or did so.

    The task instances that did not succeed are read first, so that one that succeeds meanwhile is still running here.
    They are read again at the end: one that was cleared and starts meanwhile has no XCom any more.

    :param dag_ids: only DAGs that the user may read; None means all.
    :param since: aware; skip DAG runs for earlier dates.
    """
    rows, unsuccessful = database.unsuccessful_rows(session, dag_ids=dag_ids, since=since)
    rows += database.rows_without_output(session, dag_ids=dag_ids, since=since)
    counted, others = _count(database.outputs(session, dag_ids=dag_ids, since=since), unsuccessful=unsuccessful)
    history = History()
    newest: dict[tuple[str, str, int], tuple[int, str]] = {}
    scheduled: dict[tuple[str, str, int], int] = {}
    for (dag_id, task_id, map_index, flow_id), each in counted.items():
        key = (dag_id, task_id), canonical_id(flow_id)
        history.ingested.setdefault(key, {}).update(each.ingested)
        instance = (dag_id, task_id, map_index)
        # Of all dataflows together: the newest row of an earlier dataflow must not be later than that of its successor.
        scheduled[instance] = max(scheduled.get(instance, -1), each.newest_scheduled)
        if map_index >= 0:
            newest[instance] = max(newest.get(instance, (-1, "")), (each.newest, flow_id))
    history.newest = {instance: canonical_id(flow_id) for instance, (_, flow_id) in newest.items()}
    rows += database.rows_with_output(session, {*others, *scheduled.values()} - {-1})
    restarted, _ = database.unsuccessful_rows(session, dag_ids=dag_ids, since=since)
    # The first reading wins. A task instance may be both a row and counted: they are joined by flow run.
    rows = [*restarted, *rows]
    found = {(row.dag_id, row.run_id, row.task_id, row.map_index): row for row in rows}
    for row in sorted(found.values(), key=lambda row: (row.dates.run_after, row.dag_id, row.task_id, row.map_index)):
        history.rows.setdefault(row.dag_id, []).append(row)
    return history


def _count(
    outputs: Iterable[Sequence[Any]], *, unsuccessful: Collection[InstanceKey]
) -> tuple[dict[tuple[str, str, int, str], _Counted], set[int]]:
    """Return successes by DAG, task, map index and dataflow, and the `dag_run_id` of those to read as rows."""
    counted: dict[tuple[str, str, int, str], _Counted] = {}
    others: set[int] = set()
    # The instants are the same for most dataflows.
    windows: dict[tuple[Any, Any], IngestionWindow | None] = {}
    for dag_id, task_id, map_index, dag_run_id, run_type, flow_id, flow_run_id, start, end, status, part_of in outputs:
        if unsuccessful and (dag_id, task_id, map_index, dag_run_id) in unsuccessful:
            continue
        edges = start, end
        window = windows.get(edges)
        if window is None and edges not in windows:
            window = windows[edges] = _window(start, end)
        if window is None or status not in _SUCCEEDED or part_of is not None or not _is_id(flow_run_id):
            others.add(dag_run_id)
            continue
        key = dag_id, task_id, map_index, flow_id
        each = counted.get(key)
        if each is None:
            if not _is_id(flow_id):
                others.add(dag_run_id)
                continue
            each = counted[key] = _Counted()
        each.ingested[flow_run_id] = window
        if dag_run_id > each.newest:
            each.newest = dag_run_id
        if dag_run_id > each.newest_scheduled and run_type in _SCHEDULED:
            each.newest_scheduled = dag_run_id
    return counted, others


def _is_id(value: Any) -> bool:
    """Return whether a value of the database has the form of an id; SQLAlchemy 1.4 returns a number as such."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _window(start: Any, end: Any) -> IngestionWindow | None:
    """Return the window of two values of the database; None if they are not those of a summary."""
    if not all(isinstance(value, str) and _INSTANT.fullmatch(value) for value in (start, end)):
        return None
    return window_from_json({START: start, END: end})
