# SPDX-License-Identifier: Apache-2.0
"""Write the history of a DAG directly to Airflow's metadata database, without running the DAG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from airflow_flowservice._airflow import versions


class DagHistory:
    """DAG runs, task instances and XComs, as the scheduler and a worker write them.

    :param flow_id: dataflow into which the task ingests.
    """

    def __init__(self, *, dag_id: str, flow_id: str, task_id: str = "ingest") -> None:
        self.dag_id = dag_id
        self.task_id = task_id
        self.flow_id = flow_id
        self._runs: list[tuple[dict[str, Any], dict[str, Any], Any]] = []

    def add_run(
        self,
        logical_date: datetime,
        *,
        window: tuple[datetime, datetime] | None,
        state: str = "success",
        status: str | None = "success",
        run_id: str | None = None,
        manual: bool = False,
        **summary_fields: Any,
    ) -> str:
        """Add a DAG run with its task instance; return the id of the DAG run.

        :param window: start and end of the flow run's window; None if the flow run has no known window.
        :param state: state of the task instance.
        :param status: status of the flow run; None if the task created no flow run.
        :param summary_fields: fields of the XCom `flow_run` that replace the defaults.
        """
        kind = "manual" if manual else "scheduled"
        run_id = run_id or f"{kind}__{logical_date.isoformat()}"
        run = {
            "dag_id": self.dag_id,
            "run_id": run_id,
            "run_type": kind,
            "state": "success" if state == "success" else "failed",
            "conf": {},
            "run_after": logical_date,
            "logical_date": None if manual else logical_date,
            "data_interval_start": None if manual else logical_date,
            "data_interval_end": None if manual else logical_date,
            "start_date": logical_date,
            "end_date": logical_date,
        }
        summary = None if status is None else self._summary(run_id, window, status=status, **summary_fields)
        self._runs.append((run, {"state": state}, summary))
        return run_id

    def _summary(self, run_id: str, window: tuple[datetime, datetime] | None, **fields: Any) -> Mapping[str, Any]:
        flow_run_id = str(uuid5(NAMESPACE_URL, f"{self.dag_id}/{run_id}"))
        start, end = (None, None) if window is None else (edge.strftime("%Y-%m-%dT%H:%M:%SZ") for edge in window)
        return {
            "id": flow_run_id,
            "flow_id": self.flow_id,
            "window_start": start,
            "window_end": end,
            "output_records": 1440 if fields["status"] == "success" else None,
            "failed_records": 0 if fields["status"] == "success" else None,
            "url": f"https://experience.adobe.com/#/@EMULATOR/dataflows/{self.flow_id}/activity/{flow_run_id}",
            **fields,
        }

    def write(self, database_url: str) -> None:
        """Insert all rows."""
        from airflow.models.dagrun import DagRun
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.xcom import XComModel
        from sqlalchemy import insert, select

        table: Any = DagRun.__table__  # bypasses the validation of the ORM class
        with _session(database_url) as session:
            session.execute(insert(table), [run for run, _, _ in self._runs])
            query = select(table.c.run_id, table.c.id).where(table.c.dag_id == self.dag_id)
            ids = {row.run_id: row.id for row in session.execute(query)}
            tasks, xcoms = [], []
            for run, task, summary in self._runs:
                key = {"dag_id": self.dag_id, "run_id": run["run_id"], "task_id": self.task_id, "map_index": -1}
                defaults = {"pool": "default_pool", "try_number": 1, "max_tries": 0, "executor_config": {}}
                tasks.append(
                    {
                        "id": uuid4() if versions.version() >= (3, 2) else str(uuid4()),
                        "operator": "OnDemandFlowRunOperator",
                        **defaults,
                        **task,
                        **key,
                    }
                )
                if summary is not None:
                    xcoms.append({"dag_run_id": ids[run["run_id"]], "key": "flow_run", "value": summary, **key})
            session.execute(insert(TaskInstance), tasks)
            session.execute(insert(XComModel), xcoms)
            session.commit()


def delete_history(session: Any, *models: Any) -> None:
    """Delete all rows."""
    from sqlalchemy import delete

    for model in models:
        session.execute(delete(model), execution_options={"synchronize_session": False})


@contextmanager
def _session(database_url: str) -> Iterator[Any]:
    from airflow.utils.db import import_all_models  # the tables have foreign keys to each other
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    import_all_models()
    engine = create_engine(database_url)
    with Session(engine) as session:
        yield session
    engine.dispose()


def year_of_daily_runs(*, dag_id: str, flow_id: str, midnight: datetime) -> DagHistory:
    """Return a year of daily runs that ends at a midnight.

    Five days are missing, one failed, one is duplicated and one has an unknown outcome.
    """
    day, history = timedelta(days=1), DagHistory(dag_id=dag_id, flow_id=flow_id)
    for back in range(365, 0, -1):
        logical_date = midnight - (back - 1) * day
        window = (logical_date - day, logical_date)
        if 100 <= back < 104 or back == 40:
            continue
        if back == 200:
            history.add_run(
                logical_date, window=window, state="failed", status="failed", errors=[{"code": "1", "message": "no"}]
            )
        elif back == 1:
            history.add_run(logical_date, window=window, state="deferred", status="created")
        else:
            history.add_run(logical_date, window=window, failed_records=12 if back % 60 == 7 else 0)
        if back == 250:
            history.add_run(logical_date, window=window, manual=True)
    history.add_run(midnight, window=None, manual=True, run_id="manual__without_a_window", status="success")
    return history
