# SPDX-License-Identifier: Apache-2.0
"""Read the task instances in Airflow's history, for the overview of all dataflows.

Most task instances succeeded with a flow run of a whole window. They are only counted by flow run, from texts that the
database takes out of the XCom. All others are read as rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import database
from airflow_flowservice._airflow.database import FETCH_SIZE, flow_run_key, in_dags, models
from airflow_flowservice.plain_text import canonical_id
from airflow_flowservice.windows.window import END, START, window_from_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.database import InstanceKey, TaskRow
    from airflow_flowservice.windows.window import IngestionWindow

TaskKey = tuple[str, str]

# Output of a task instance: the text of its place, that of its flow run, and its `dag_run_id`.
Output = tuple[str, str, int]

_SCHEDULED = ("scheduled", "backfill")
_SUCCEEDED = frozenset({"success", "partial_success"})
# Length of the start and the end of a window in the text of a flow run.
_EDGES = 2 * len("2026-01-09T00:00:00Z")
# Form of Adobe's ids, and of the instants in an XCom. The text of a number or an object has another form.
_ID = re.compile(r"[^{\[].{7}-.{4}-.{4}-.{4}-.{12}\Z", re.DOTALL)
_INSTANTS = re.compile(r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ){2}", re.ASCII)


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
    """Successes of one place that are counted by flow run. All of them have the same dataflow, as in the XCom.

    :param is_counted: False if the outputs of this place must be read as rows.
    :param unsuccessful: `dag_run_id` of the instances that did not succeed, so that their output does not count.
    :param ingested: window of each flow run.
    :param newest: `dag_run_id` of the newest success; -1 if there is none.
    """

    dag_id: str
    task_id: str
    map_index: int
    flow_id: str
    is_scheduled: bool
    is_counted: bool
    unsuccessful: frozenset[int]
    ingested: dict[str, IngestionWindow] = field(default_factory=dict)
    newest: int = -1


def read_task_history(session: Session, *, dag_ids: Collection[str] | None, since: datetime) -> History:
    """Return the task instances that ingest, or did so.

    The task instances that did not succeed are read first, so that one that succeeds meanwhile is still running here.
    They are read again at the end: one that was cleared and starts meanwhile has no XCom any more.

    :param dag_ids: only DAGs that the user may read; None means all.
    :param since: aware; skip DAG runs for earlier dates.
    """
    rows, unsuccessful = database.unsuccessful_rows(session, dag_ids=dag_ids, since=since)
    rows += database.rows_without_output(session, dag_ids=dag_ids, since=since)
    counted, others = _count(outputs(session, dag_ids=dag_ids, since=since), unsuccessful=unsuccessful)
    history = History()
    newest: dict[tuple[str, str, int], tuple[int, str]] = {}
    scheduled: dict[tuple[str, str, int], int] = {}
    for each in counted:
        key = (each.dag_id, each.task_id), canonical_id(each.flow_id)
        known = history.ingested.get(key)
        history.ingested[key] = {**known, **each.ingested} if known else each.ingested
        instance = (each.dag_id, each.task_id, each.map_index)
        # Of all dataflows together: the newest row of an earlier dataflow must not be later than that of its successor.
        if each.is_scheduled:
            scheduled[instance] = max(scheduled.get(instance, -1), each.newest)
        if each.map_index >= 0:
            newest[instance] = max(newest.get(instance, (-1, "")), (each.newest, each.flow_id))
    history.newest = {instance: canonical_id(flow_id) for instance, (_, flow_id) in newest.items()}
    rows += database.rows_with_output(session, {*others, *scheduled.values()} - {-1})
    restarted, _ = database.unsuccessful_rows(session, dag_ids=dag_ids, since=since)
    # The first reading wins. A task instance may be both a row and counted: they are joined by flow run.
    rows = [*restarted, *rows]
    found = {(row.dag_id, row.run_id, row.task_id, row.map_index): row for row in rows}
    for row in sorted(found.values(), key=lambda row: (row.dates.run_after, row.dag_id, row.task_id, row.map_index)):
        history.rows.setdefault(row.dag_id, []).append(row)
    return history


def outputs(session: Session, *, dag_ids: Collection[str] | None, since: datetime) -> Iterable[Output]:
    """Return the XComs `flow_run` of all task instances, in any order.

    The text of a place has DAG, task, map index, type of the DAG run, status and dataflow, separated by slashes; the
    status is longer if the flow run ingested a part of the window. The text of a flow run has the start and the end of
    its window, and its id. Values of another type, or that are missing, give a text of another form.

    The database reads the JSON, and few columns are read: Python needs as long for each of them as for all else. The
    table of task instances is not joined, which takes most of the database's time. In Airflow 3.0, XComs are strings
    that contain JSON, so all values are missing.

    :param dag_ids: as in `database.task_rows`; `since` likewise.
    """
    from sqlalchemy import String, case, cast, func, select

    _, run, xcom = models()

    def value(name: str) -> Any:
        return func.coalesce(xcom.value[name].as_string(), "")

    part = case((xcom.value["part_of"].as_string().is_(None), ""), else_=" part")
    place = xcom.dag_id + "/" + xcom.task_id + "/" + cast(xcom.map_index, String) + "/" + cast(run.run_type, String)
    place = place + "/" + value("status") + part + "/" + value("flow_id")
    query = (
        select(place, value(START) + value(END) + value("id"), xcom.dag_run_id)
        .join(run, run.id == xcom.dag_run_id)
        .where(xcom.key == flow_run_key(), run.run_after >= since, *in_dags(xcom.dag_id, dag_ids))
    )
    # Not by the session, whose loading of objects takes as long as the database.
    result = session.connection().execute(query.execution_options(yield_per=FETCH_SIZE))
    return chain.from_iterable(result.partitions())


def _count(read: Iterable[Output], *, unsuccessful: Iterable[InstanceKey]) -> tuple[list[_Counted], set[int]]:
    """Return the successes of each place, and the `dag_run_id` of those to read as rows."""
    failures: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for dag_id, task_id, map_index, dag_run_id in unsuccessful:
        failures[dag_id, task_id, map_index].add(dag_run_id)
    places: dict[str, _Counted] = {}
    # The instants are the same for most dataflows.
    windows: dict[str, IngestionWindow] = {}
    others: set[int] = set()
    find_place, find_window, matches_id = places.get, windows.get, _ID.match
    for place, text, dag_run_id in read:
        each = find_place(place) or _add_place(places, place, failures=failures)
        window = find_window(text[:_EDGES]) or _add_window(windows, text[:_EDGES])
        if dag_run_id in each.unsuccessful:
            continue
        if window is None or not each.is_counted or not matches_id(text, _EDGES):
            others.add(dag_run_id)
            continue
        each.ingested[text[_EDGES:]] = window
        if dag_run_id > each.newest:
            each.newest = dag_run_id
    return [each for each in places.values() if each.ingested], others


def _add_place(
    places: dict[str, _Counted], place: str, *, failures: Mapping[tuple[str, str, int], set[int]]
) -> _Counted:
    dag_id, task_id, map_index, run_type, status_and_flow = place.split("/", 4)
    status, _, flow_id = status_and_flow.partition("/")
    places[place] = _Counted(
        dag_id=dag_id,
        task_id=task_id,
        map_index=int(map_index),
        flow_id=flow_id,
        is_scheduled=run_type in _SCHEDULED,
        is_counted=status in _SUCCEEDED and _ID.match(flow_id) is not None,
        unsuccessful=frozenset(failures.get((dag_id, task_id, int(map_index)), ())),
    )
    return places[place]


def _add_window(windows: dict[str, IngestionWindow], edges: str) -> IngestionWindow | None:
    """Add and return the window of the start and the end in a text; return None if they are not those of a summary."""
    half = _EDGES // 2
    if _INSTANTS.fullmatch(edges) is None:
        return None
    window = window_from_json({START: edges[:half], END: edges[half:]})
    if window is not None:
        windows[edges] = window
    return window
