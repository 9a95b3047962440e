# SPDX-License-Identifier: Apache-2.0
"""Serialized DAGs are read in both forms in which Airflow stores them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest
from airflow.sdk import DAG
from airflow_versions import DagSerialization
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from airflow_flowservice._airflow import dag_facts, database
from airflow_flowservice._airflow.dag_plan import plan_of
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW_ID = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def serialized(task_type: str, *, timetable: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the parts of a serialized DAG that are read."""
    from airflow.timetables.trigger import CronTriggerTimetable

    daily = CronTriggerTimetable("0 0 * * *", timezone="UTC")
    task = {"task_type": task_type, "task_id": "ingest", "flow_id": FLOW_ID}
    path = "airflow.timetables.trigger.CronTriggerTimetable"
    encoded = {"__type": path, "__var": daily.serialize()}
    return {"dag": {"timetable": timetable or encoded, "tasks": [{"__type": "operator", "__var": task}]}}


@contextmanager
def stored(*dags: dict[str, Any], is_compressed: bool = False) -> Iterator[Session]:
    """Store serialized DAGs by the names of their tasks' types."""
    from airflow.models.dag_version import DagVersion
    from airflow.models.serialized_dag import SerializedDagModel

    table: Any = SerializedDagModel.__table__
    versions: Any = DagVersion.__table__
    engine = create_engine("sqlite://")
    table.create(engine)
    versions.create(engine)
    with Session(engine) as session:
        for number, data in enumerate(dags, 1):
            values: dict[str, Any] = {
                "id": UUID(int=number),
                "dag_version_id": UUID(int=number),
                "dag_id": data["dag"]["tasks"][0]["__var"]["task_type"],
                "dag_hash": str(number),
                "data": None if is_compressed else data,
                "data_compressed": zlib.compress(json.dumps(data).encode()) if is_compressed else None,
                "created_at": NOW,
                "last_updated": NOW,
            }
            session.execute(table.insert().values(values))
            version = {"id": UUID(int=number), "dag_id": values["dag_id"], "version_number": 1}
            session.execute(versions.insert().values(**version, created_at=NOW, last_updated=NOW))
        yield session
    engine.dispose()


@pytest.mark.parametrize("is_compressed", [False, True])
def test_tasks_and_schedule_are_read(is_compressed: bool) -> None:
    """With `[core] compress_serialized_dags`, the column of an uncompressed DAG has the JSON value null."""
    dags = map(serialized, ("OnDemandFlowRunOperator", "EmptyOperator"))
    with stored(*dags, is_compressed=is_compressed) as session:
        found = dag_facts.dag_schedules(session)
    assert ["OnDemandFlowRunOperator"] == list(found)
    schedule = found["OnDemandFlowRunOperator"]
    assert schedule is not None
    assert [FLOW_ID] == [each.flow_id for each in schedule.tasks]
    assert "0 0 * * *" in str(schedule.timetable.serialize())


@pytest.mark.parametrize("is_mapped", [False, True])
def test_earlier_dataflows_are_in_the_serialized_dag(is_mapped: bool) -> None:
    """The ids of `flow_id` and `continues` are in lower case, as Adobe writes them."""
    with DAG("daily", schedule=None) as dag:
        if is_mapped:
            partial = OnDemandFlowRunOperator.partial(task_id="ingest", flow_id=FLOW_ID.upper(), continues=["OLD", "B"])
            partial.expand(delta_column=["updated_at"])
        else:
            OnDemandFlowRunOperator(task_id="ingest", flow_id=FLOW_ID.upper(), continues=["OLD", "B"])
    data = DagSerialization.to_dict(dag)
    expected = [
        database.TaskSettings(task_id="ingest", flow_id=FLOW_ID, conn_id="flowservice_default", continues=("OLD", "B"))
    ]
    assert expected == list(database.serialized_schedule(data["dag"], {}).tasks)
    decoded = DagSerialization.from_dict(data)
    assert expected == list(database._task_settings(decoded))


UNKNOWN = {"__type": "plugin_that_is_not_here.Timetable", "__var": {}}


def test_timetable_that_cannot_be_decoded_keeps_the_tasks() -> None:
    """The timetable may be in a plugin that the process lacks."""
    with stored(serialized("OnDemandFlowRunOperator", timetable=UNKNOWN)) as session:
        found = dag_facts.dag_schedules(session)["OnDemandFlowRunOperator"]
    assert found is not None
    assert (None, [FLOW_ID]) == (found.timetable, [each.flow_id for each in found.tasks])


def test_single_dag_keeps_its_tasks() -> None:
    """The coverage of one DAG reads the same."""
    with stored(serialized("OnDemandFlowRunOperator", timetable=UNKNOWN)) as session:
        found = database.dag_schedule_of(session, "OnDemandFlowRunOperator")
    assert found is not None
    assert (None, [FLOW_ID]) == (found.timetable, [each.flow_id for each in found.tasks])


@pytest.mark.parametrize("is_compressed", [False, True])
def test_dag_that_cannot_be_read_is_not_a_missing_one(is_compressed: bool) -> None:
    """Coverage notes that the schedule cannot be decoded, instead of showing no missing windows without a word."""
    unreadable = {"dag": {"tasks": serialized("OnDemandFlowRunOperator")["dag"]["tasks"]}}
    with stored(unreadable, is_compressed=is_compressed) as session:
        found = database.dag_schedule_of(session, "OnDemandFlowRunOperator")
        assert found is not None
        assert found == dag_facts.dag_schedules(session)["OnDemandFlowRunOperator"]
        assert not plan_of(found, dag_id="OnDemandFlowRunOperator").is_decoded
        assert database.dag_schedule_of(session, "other") is None


def test_error_of_the_database_is_not_a_missing_dag() -> None:
    """The error ends the command, instead of a coverage without missing windows."""
    engine = create_engine("sqlite://")
    with Session(engine) as session, pytest.raises(SQLAlchemyError):
        database.dag_schedule_of(session, "daily")
    engine.dispose()
