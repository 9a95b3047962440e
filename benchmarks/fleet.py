# SPDX-License-Identifier: Apache-2.0
"""Measure how long the summary of all dataflows takes on PostgreSQL.

    python benchmarks/fleet.py --dataflows 500 --windows 365
    python benchmarks/fleet.py --dataflows 500 --windows 365 --history

Each dataflow has a daily DAG with its serialized form, and one entry of the ledger for each day in Airflow's Variables.
Every tenth dataflow has a missing window. With `--history`, Airflow also has the DAG runs, task instances and XComs.
The ratio compares with reading the same entries of the ledger without a summary.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp())
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ["AIRFLOW_CONN_FLOWSERVICE_DEFAULT"] = json.dumps(
    {"conn_type": "flowservice", "extra": {"org_id": "1234567890ABCDEF@AdobeOrg", "sandbox": "prod"}}
)

from airflow.models.base import Base
from airflow.utils.db import import_all_models
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from airflow_flowservice._airflow import versions
from airflow_flowservice._airflow.fleet_reader import read_fleet
from airflow_flowservice._airflow.metadata_ledger import MetadataLedger
from airflow_flowservice._airflow.variable_ledger import ledger_key, stored_texts
from airflow_flowservice.demo.postgres import EmbeddedPostgres
from airflow_flowservice.demo.processes import Supervisor
from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry
from airflow_flowservice.windows.window import IngestionWindow

NOW = datetime.now(timezone.utc)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
YEAR = timedelta(days=366)


def flow_id(number: int) -> str:
    return f"3abea21c-7e36-4be1-bec1-{number:012}"


def days(number: int, windows: int) -> list[IngestionWindow]:
    """Return the ingested windows of a dataflow, which end today; every tenth dataflow lacks one."""
    spans = [IngestionWindow(MIDNIGHT - (back + 1) * DAY, MIDNIGHT - back * DAY) for back in range(windows, -1, -1)]
    return [span for index, span in enumerate(spans[1:]) if number % 10 or index != windows // 2]


def flow_run_id(number: int, window: IngestionWindow) -> str:
    return f"{number:08}-4a1c-4e2a-9d2e-{window.start:%Y%m%d}0000"


def variables(dataflows: int, windows: int) -> list[dict[str, Any]]:
    made = []
    for number in range(dataflows):
        for window in days(number, windows):
            entry = LedgerEntry(
                dataflow=DataflowKey("1234567890ABCDEF@AdobeOrg", "prod", flow_id(number)),
                window=window,
                state=EntryState.INGESTED,
                owner=f"ingest_{number}/scheduled__{window.end.isoformat()}/ingest/-1",
                flow_run_id=flow_run_id(number, window),
                delivered=True,
                intent={"order": "0" * 64, "max_tries": 2, "token": "0" * 32, "written_at": window.end.timestamp()},
                output_records=123456,
                updated_at=window.end.timestamp() + 60.5,
                version=3,
            )
            text, description = stored_texts(entry)
            made.append({"key": ledger_key(*entry.key), "val": "g" * (len(text) * 4 // 3), "description": description})
    return made


def serialized_dag(number: int, windows: int) -> dict[str, Any]:
    """Return a DAG as Airflow serializes it."""
    import pendulum
    from airflow.sdk import DAG

    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:  # before 3.2
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization
    from airflow_flowservice.operators import OnDemandFlowRunOperator

    start = pendulum.instance(MIDNIGHT - (windows - 1) * DAY)
    with DAG(dag_id=f"ingest_{number}", schedule="@daily", start_date=start) as dag:
        OnDemandFlowRunOperator(task_id="ingest", flow_id=flow_id(number))
    serialization: Any = Serialization
    return dict(serialization.to_dict(dag))


def add_dags(session: Session, dataflows: int, windows: int) -> None:
    from airflow.models.dag import DagModel
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel

    session.add(DagBundleModel(name="dags-folder"))
    session.flush()
    numbers, ids = range(dataflows), [f"ingest_{number}" for number in range(dataflows)]
    limits = {"max_active_tasks": 16, "max_active_runs": 16, "max_consecutive_failed_dag_runs": 0}
    defaults = {"bundle_name": "dags-folder", "is_paused": False, "is_stale": False, **limits}
    defaults |= {"has_task_concurrency_limits": False, "fail_fast": False, "timetable_type": ""}
    session.execute(insert(DagModel), [{"dag_id": dag_id, **defaults} for dag_id in ids])
    made = [{"id": uuid4(), "dag_id": dag_id, "version_number": 1, "bundle_name": "dags-folder"} for dag_id in ids]
    session.execute(insert(DagVersion), made)
    model: Any = SerializedDagModel
    table = model.__table__
    for number, version in zip(numbers, made, strict=True):
        values = {"id": uuid4(), "dag_id": version["dag_id"], "data": serialized_dag(number, windows)}
        values |= {"dag_hash": "0" * 32, "created_at": MIDNIGHT, "last_updated": MIDNIGHT}
        session.execute(table.insert().values(**values, dag_version_id=version["id"]))


def add_history(session: Session, dataflows: int, windows: int) -> None:
    """Add the DAG runs, task instances and XComs of all windows."""
    added = 0
    for number in range(dataflows):
        spans = days(number, windows)
        ids = {window: flow_run_id(number, window) for window in spans}
        add_runs(session, f"ingest_{number}", flow_id=flow_id(number), windows=ids, first_id=added + 1)
        added += len(spans)


def add_runs(
    session: Session, dag_id: str, *, flow_id: str, windows: dict[IngestionWindow, str], first_id: int
) -> None:
    """Add a DAG run for each window, with its task instance and its XCom.

    :param windows: with their flow runs.
    """
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    dag_run: Any = DagRun.__table__
    runs: list[Any] = []
    tasks: list[Any] = []
    xcoms: list[Any] = []
    for dag_run_id, (window, run) in enumerate(windows.items(), start=first_id):
        key = {"dag_id": dag_id, "run_id": f"scheduled__{window.end.isoformat()}"}
        dates = dict.fromkeys(
            ("run_after", "logical_date", "data_interval_start", "data_interval_end", "start_date"), window.end
        )
        runs.append({"id": dag_run_id, **key, **dates, "run_type": "scheduled", "state": "success", "conf": {}})
        key |= {"task_id": "ingest", "map_index": -1}
        defaults = {"pool": "default_pool", "try_number": 1, "max_tries": 0, "executor_config": {}}
        task = {"id": uuid4(), "operator": "OnDemandFlowRunOperator", "state": "success", "start_date": window.end}
        tasks.append({**task, **defaults, **key})
        summary = {
            "id": run,
            "flow_id": flow_id,
            "status": "success",
            "window_start": window.start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "window_end": window.end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **dict.fromkeys(("input_records", "output_records", "input_bytes", "output_bytes"), 123456),
            "errors": [],
            "url": f"https://experience.adobe.com/#/@1234567890ABCDEF@AdobeOrg/{flow_id}",
        }
        xcoms.append({"dag_run_id": dag_run_id, "key": "flow_run", "value": summary, **key})
    session.execute(dag_run.insert(), runs)
    session.execute(insert(TaskInstance), tasks)
    session.execute(insert(XComModel), xcoms)


def measured(name: str, function: Callable[[], Any]) -> tuple[Any, float]:
    """Print the seconds of a call: elapsed, and of this process on the CPU."""
    elapsed, cpu = time.perf_counter(), time.process_time()
    result = function()
    elapsed, cpu = time.perf_counter() - elapsed, time.process_time() - cpu
    print(f"  {name}: {elapsed:.2f} s, CPU of this process {cpu:.2f} s")
    return result, cpu


def measure(engine: Any) -> None:
    for turn in ("first", "second", "third"):
        print(f"{turn} time:")
        with Session(engine) as session:
            _, reading = measured("entries of the ledger", lambda: sum(1 for _ in MetadataLedger(session).entries()))
        with Session(engine) as session:
            fleet, summary = measured("summary", lambda: read_fleet(session, now=NOW, since=NOW - YEAR))
        wrong = sum(row.is_wrong for row in fleet.rows)
        print(f"  {len(fleet.rows)} dataflows, {wrong} wrong, ratio {summary / reading:.2f}")
    tracemalloc.start()
    with Session(engine) as session:
        read_fleet(session, now=NOW, since=NOW - YEAR)
    print(f"peak memory of a summary: {tracemalloc.get_traced_memory()[1] / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataflows", type=int, default=500)
    parser.add_argument("--windows", type=int, default=365)
    parser.add_argument("--history", action="store_true")
    options = parser.parse_args()
    import_all_models()
    with tempfile.TemporaryDirectory() as folder, Supervisor(log_folder=Path(folder) / "logs") as supervisor:
        database = EmbeddedPostgres(folder=Path(folder) / "postgres", supervisor=supervisor)
        database.start()
        engine = create_engine(database.url())
        Base.metadata.create_all(engine)
        from airflow.models.variable import Variable

        with Session(engine) as session:
            rows = [{**row, "is_encrypted": False} for row in variables(options.dataflows, options.windows)]
            table: Any = Variable.__table__
            session.execute(table.insert(), rows)
            add_dags(session, options.dataflows, options.windows)
            if options.history:
                add_history(session, options.dataflows, options.windows)
            session.commit()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
        print(f"Airflow {'.'.join(map(str, versions.version()))}, {len(rows)} entries")
        measure(engine)
        engine.dispose()


if __name__ == "__main__":
    main()
