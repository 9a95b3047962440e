# SPDX-License-Identifier: Apache-2.0
"""The begin of a DAG's history is that of reading each task instance."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from airflow_flowservice._airflow import versions
from airflow_flowservice._airflow.history_start import HistoryStart, history_start, history_starts
from tests.integration.coverage.conftest import BEGIN, DAY

HOUR = timedelta(hours=1)
# Hours after the begin; None for a task instance that never started.
STARTS = st.none() | st.sampled_from([0, 0.5, 1, 1.5, 2, 30])
INSTANCES = st.fixed_dictionaries(
    {
        "dag_id": st.sampled_from(["a", "b", "c"]),
        "day": st.integers(0, 5),
        "start": STARTS,
        "run_start": STARTS,
        "queued": STARTS,
        "pushed": STARTS,
        "has_task": st.sampled_from([True, True, True, False]),
    }
)


def at(hours: float | None) -> datetime | None:
    return None if hours is None else BEGIN + 30 * DAY + hours * HOUR


def store(session: Session, instances: list[dict[str, Any]]) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    for model in (XComModel, TaskInstance, DagRun):
        session.execute(sa.delete(model))
    for each in instances:
        date = BEGIN + each["day"] * DAY
        key = {"dag_id": each["dag_id"], "run_id": f"scheduled__{date.isoformat()}"}
        run = DagRun(**key, run_type="scheduled", state="success", conf={})
        run.run_after = run.logical_date = date
        run.start_date, run.queued_at = at(each["run_start"]), at(each["queued"])
        session.add(run)
        session.flush()
        if not each["has_task"]:
            continue
        key |= {"task_id": "ingest", "map_index": -1}
        unused = {"pool": "default_pool", "try_number": 1, "max_tries": 0, "executor_config": {}}
        id_ = uuid4() if versions.version() >= (3, 2) else str(uuid4())
        values = {"id": id_, "operator": "OnDemandFlowRunOperator", "start_date": at(each["start"]), **unused, **key}
        session.execute(sa.insert(TaskInstance).values(**values))
        if each["pushed"] is not None:
            values = {"dag_run_id": run.id, "key": "flow_run", "value": {}, "timestamp": at(each["pushed"]), **key}
            session.execute(sa.insert(XComModel).values(**values))
    session.commit()


def first(rows: list[tuple[datetime, datetime]]) -> datetime:
    """Return the earliest date of the rows that are at most an hour later than the first one."""
    begin = min(moment for moment, _ in rows)
    return min(date for moment, date in rows if moment <= begin + HOUR)


def expected(instances: list[dict[str, Any]]) -> dict[str, HistoryStart]:
    tasks, outputs, dates = defaultdict(list), defaultdict(list), defaultdict(list)
    for each in instances:
        dag_id, date = each["dag_id"], BEGIN + each["day"] * DAY
        dates[dag_id].append(date)
        if not each["has_task"]:
            continue
        tasks[dag_id].append((at(each["start"]) or at(each["run_start"]) or at(each["queued"]) or date, date))
        if each["pushed"] is not None:
            outputs[dag_id].append((at(each["pushed"]), date))
    return {
        dag_id: HistoryStart(
            tasks=first(tasks[dag_id]) if tasks[dag_id] else max(dates[dag_id]),
            outputs=first(outputs[dag_id]) if outputs[dag_id] else None,
        )
        for dag_id in dates
    }


@given(st.lists(INSTANCES, max_size=12, unique_by=lambda each: (each["dag_id"], each["day"])))
def test_same_as_reading_each_task_instance(engine: Any, instances: list[dict[str, Any]]) -> None:
    """This holds for task instances that never started, and without task instances or XComs."""
    with Session(engine) as session:
        store(session, instances)
        found = history_starts(session, ["a", "b", "c"])
        without = history_starts(session, ["a", "b", "c"], with_outputs=["b"])
        assert history_start(session, "a") == found.get("a")
    assert expected(instances) == found
    assert {dag_id: start.tasks for dag_id, start in found.items()} == {
        key: each.tasks for key, each in without.items()
    }
    assert {"b"} >= {dag_id for dag_id, start in without.items() if start.outputs}
