"""The past of a DAG, written straight into the metadata database of a real Airflow: a year costs no time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from airflow_flowservice._airflow import versions


class Past:
    """DAG runs, task instances and XComs as a worker and the scheduler leave them.

    :param flow_id: of the dataflow that the task feeds.
    """

    def __init__(self, *, dag_id: str, flow_id: str, task_id: str = "ingest") -> None:
        self.dag_id = dag_id
        self.task_id = task_id
        self.flow_id = flow_id
        self._rows: list[tuple[dict[str, Any], dict[str, Any], Any]] = []

    def ran(
        self,
        date: datetime,
        *,
        window: tuple[datetime, datetime] | None,
        state: str = "success",
        status: str | None = "success",
        run_id: str | None = None,
        manual: bool = False,
        **pushed: Any,
    ) -> str:
        """Leave a DAG run and its task; gives the DAG run's id.

        :param status: of the flow run; None leaves none.
        """
        kind = "manual" if manual else "scheduled"
        run_id = run_id or f"{kind}__{date.isoformat()}"
        run = {
            "dag_id": self.dag_id,
            "run_id": run_id,
            "run_type": kind,
            "state": "success" if state == "success" else "failed",
            "conf": {},
            "run_after": date,
            "logical_date": None if manual else date,
            "data_interval_start": None if manual else date,
            "data_interval_end": None if manual else date,
            "start_date": date,
            "end_date": date,
        }
        summary = None if status is None else self._summary(run_id, window, status=status, **pushed)
        self._rows.append((run, {"state": state}, summary))
        return run_id

    def _summary(self, run_id: str, window: tuple[datetime, datetime] | None, **more: Any) -> Mapping[str, Any]:
        flow_run_id = str(uuid5(NAMESPACE_URL, f"{self.dag_id}/{run_id}"))
        start, end = (None, None) if window is None else (edge.strftime("%Y-%m-%dT%H:%M:%SZ") for edge in window)
        return {
            "id": flow_run_id,
            "flow_id": self.flow_id,
            "window_start": start,
            "window_end": end,
            "output_records": 1440 if more["status"] == "success" else None,
            "failed_records": 0 if more["status"] == "success" else None,
            "url": f"https://experience.adobe.com/#/@EMULATOR/dataflows/{self.flow_id}/activity/{flow_run_id}",
            **more,
        }

    def write(self, database_url: str) -> None:
        """Write all of it down."""
        from airflow.models.dagrun import DagRun
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.xcom import XComModel
        from sqlalchemy import insert, select

        table: Any = DagRun.__table__  # whose rows need not be what Airflow would make today
        with _session(database_url) as session:
            session.execute(insert(table), [run for run, _, _ in self._rows])
            query = select(table.c.run_id, table.c.id).where(table.c.dag_id == self.dag_id)
            numbers = {row.run_id: row.id for row in session.execute(query)}
            tasks, xcoms = [], []
            for run, task, summary in self._rows:
                where = {"dag_id": self.dag_id, "run_id": run["run_id"], "task_id": self.task_id, "map_index": -1}
                unused = {"pool": "default_pool", "try_number": 1, "max_tries": 0, "executor_config": {}}
                tasks.append(
                    {
                        "id": uuid4() if versions.version() >= (3, 2) else str(uuid4()),
                        "operator": "OnDemandFlowRunOperator",
                        **unused,
                        **task,
                        **where,
                    }
                )
                if summary is not None:
                    xcoms.append({"dag_run_id": numbers[run["run_id"]], "key": "flow_run", "value": summary, **where})
            session.execute(insert(TaskInstance), tasks)
            session.execute(insert(XComModel), xcoms)
            session.commit()


@contextmanager
def _session(database_url: str) -> Iterator[Any]:
    from airflow.utils.db import import_all_models  # the tables refer to each other
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    import_all_models()
    engine = create_engine(database_url)
    with Session(engine) as session:
        yield session
    engine.dispose()


def year_of_days(*, dag_id: str, flow_id: str, midnight: datetime) -> Past:
    """A year that ends at a midnight: four days missing, one failed, one in twice, one that nobody looked at."""
    day, past = timedelta(days=1), Past(dag_id=dag_id, flow_id=flow_id)
    for back in range(365, 0, -1):
        date = midnight - (back - 1) * day
        window = (date - day, date)
        if 100 <= back < 104 or back == 40:
            continue
        if back == 200:
            past.ran(date, window=window, state="failed", status="failed", errors=[{"code": "1", "message": "no"}])
        elif back == 1:
            past.ran(date, window=window, state="deferred", status="created")
        else:
            past.ran(date, window=window, failed_records=12 if back % 60 == 7 else 0)
        if back == 250:
            past.ran(date, window=window, manual=True)
    past.ran(midnight, window=None, manual=True, run_id="manual__without_a_window", status="success")
    return past
