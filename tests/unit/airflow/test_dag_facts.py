"""Serialized DAGs are read in both forms in which Airflow stores them."""

from __future__ import annotations

import json
import zlib
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from airflow_flowservice._airflow import dag_facts

FLOW_ID = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def serialized(task_type: str) -> dict[str, Any]:
    """Return the parts of a serialized DAG that are read."""
    from airflow.timetables.trigger import CronTriggerTimetable

    timetable = CronTriggerTimetable("0 0 * * *", timezone="UTC")
    task = {"task_type": task_type, "task_id": "ingest", "flow_id": FLOW_ID}
    path = "airflow.timetables.trigger.CronTriggerTimetable"
    encoded = {"__type": path, "__var": timetable.serialize()}
    return {"dag": {"timetable": encoded, "tasks": [{"__type": "operator", "__var": task}]}}


@pytest.mark.parametrize("is_compressed", [False, True])
def test_tasks_and_schedule_are_read(is_compressed: bool) -> None:
    """With `[core] compress_serialized_dags`, the column of an uncompressed DAG has the JSON value null."""
    from airflow.models.serialized_dag import SerializedDagModel

    table: Any = SerializedDagModel.__table__
    engine = create_engine("sqlite://")
    table.create(engine)
    with Session(engine) as session:
        for number, task_type in enumerate(("OnDemandFlowRunOperator", "EmptyOperator"), 1):
            data = serialized(task_type)
            values: dict[str, Any] = {
                "id": UUID(int=number),
                "dag_version_id": UUID(int=number),
                "dag_id": task_type,
                "dag_hash": str(number),
                "data": None if is_compressed else data,
                "data_compressed": zlib.compress(json.dumps(data).encode()) if is_compressed else None,
                "created_at": NOW,
                "last_updated": NOW,
            }
            session.execute(table.insert().values(values))
        found = dag_facts.dag_schedules(session)
    assert ["OnDemandFlowRunOperator"] == list(found)
    schedule = found["OnDemandFlowRunOperator"]
    assert schedule is not None
    assert [FLOW_ID] == [each.flow_id for each in schedule.tasks]
    assert "0 0 * * *" in str(schedule.timetable.serialize())
