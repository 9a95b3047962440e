# SPDX-License-Identifier: Apache-2.0
"""Pools that do not limit flow runs are found before a backfill."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from airflow_flowservice._airflow.dag_pools import pool_findings

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
OPERATOR = "airflow_flowservice.operators"


@pytest.fixture
def session() -> Iterator[Session]:
    """Return a database with the pools `all` and `active`."""
    from airflow.models.pool import Pool
    from airflow.models.serialized_dag import SerializedDagModel

    engine = create_engine("sqlite://")
    tables: Any = (SerializedDagModel.__table__, Pool.__table__)
    for table in tables:
        table.create(engine)
    with Session(engine) as made:
        for number, (name, include_deferred) in enumerate(
            {"all": True, "active": False, "default_pool": False}.items()
        ):
            values = {"id": number, "pool": name, "slots": 4, "description": "", "include_deferred": include_deferred}
            made.execute(tables[1].insert().values(values))
        yield made
    engine.dispose()


def add_dag(session: Session, *tasks: dict[str, Any], is_compressed: bool = False) -> None:
    from airflow.models.serialized_dag import SerializedDagModel

    table: Any = SerializedDagModel.__table__
    encoded = [{"__type": "operator", "__var": {"task_id": f"task{n}", **task}} for n, task in enumerate(tasks)]
    data = {"dag": {"tasks": encoded}}
    values: dict[str, Any] = {
        "id": UUID(int=1),
        "dag_version_id": UUID(int=1),
        "dag_id": "dag",
        "dag_hash": "1",
        "data": None if is_compressed else data,
        "data_compressed": zlib.compress(json.dumps(data).encode()) if is_compressed else None,
        "created_at": NOW,
        "last_updated": NOW,
    }
    session.execute(table.insert().values(values))


def found(session: Session) -> list[tuple[str, str]]:
    return [
        (finding.verdict.value, f"{finding.message} {finding.remedy or ''}")
        for finding in pool_findings(session, "dag")
    ]


@pytest.mark.parametrize("is_compressed", [False, True], ids=["plain", "compressed"])
def test_pool_that_does_not_count_deferred_tasks_is_a_note(session: Session, is_compressed: bool) -> None:
    """The remedy keeps the number of slots."""
    add_dag(session, {"_task_module": OPERATOR, "pool": "active"}, is_compressed=is_compressed)
    [(verdict, text)] = found(session)
    assert "note" == verdict
    assert "'active' of task0 does not count deferred tasks" in text
    assert "airflow pools set active 4 'flow runs at a time' --include-deferred" in text


def test_pool_that_counts_deferred_tasks_is_ok(session: Session) -> None:
    add_dag(session, {"_task_module": OPERATOR, "pool": "all"})
    assert ["ok"] == [verdict for verdict, _ in found(session)]


def test_missing_pool_is_wrong(session: Session) -> None:
    add_dag(session, {"_task_module": OPERATOR, "pool": "none"})
    [(verdict, text)] = found(session)
    assert ("wrong", True) == (verdict, "the tasks never start" in text)


def test_pool_of_a_mapped_task(session: Session) -> None:
    add_dag(session, {"_task_module": OPERATOR, "partial_kwargs": {"pool": "active"}})
    assert ["note"] == [verdict for verdict, _ in found(session)]


@pytest.mark.parametrize(
    "task", [{"_task_module": OPERATOR}, {"_task_module": "other", "pool": "active"}], ids=["default", "other package"]
)
def test_other_pools_are_not_reported(session: Session, task: dict[str, Any]) -> None:
    add_dag(session, task)
    [(verdict, text)] = found(session)
    assert ("ok", True) == (verdict, text.startswith("no task"))


def test_tasks_of_a_pool_are_one_finding(session: Session) -> None:
    add_dag(session, *({"_task_module": OPERATOR, "pool": "active"} for _ in range(5)))
    [(_, text)] = found(session)
    assert "task0, task1, task2 and 2 more tasks" in text


def test_unknown_dag_is_wrong(session: Session) -> None:
    [(verdict, text)] = found(session)
    assert ("wrong", True) == (verdict, "no DAG 'dag'" in text)


def test_subclass_in_another_module_is_checked(session: Session) -> None:
    fields = ["flow_id", "flowservice_conn_id"]
    add_dag(session, {"_task_module": "dags.ours", "template_fields": fields, "pool": "active"})
    [(verdict, text)] = found(session)
    assert ("note", True) == (verdict, "'active' of task0" in text)
