# SPDX-License-Identifier: Apache-2.0
"""Two Airflows with one ledger on PostgreSQL backfill the same windows at the same time.

The environment variable `FLOWSERVICE_SHARED_WINDOWS` (10) sets the number of windows.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_FILE = Path(__file__).parent / "dags" / "e2e_shared.py"
HOUR = timedelta(hours=1)
FIRST = datetime(2026, 1, 2, tzinfo=timezone.utc)
COUNT = int(os.environ.get("FLOWSERVICE_SHARED_WINDOWS", "10"))
END = FIRST + COUNT * HOUR


@pytest.fixture(scope="module")
def ledger(_can_run_airflow: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Start a PostgreSQL that is part of no Airflow, with the ledger's tables; return the fields of its connection."""
    from sqlalchemy.engine import make_url

    from airflow_flowservice.demo.postgres import EmbeddedPostgres
    from airflow_flowservice.demo.processes import Supervisor
    from airflow_flowservice.ledger.sql_ledger import SqlLedger

    folder = tmp_path_factory.mktemp("shared-ledger")
    with Supervisor(log_folder=folder) as supervisor:
        server = EmbeddedPostgres(folder=folder / "database", supervisor=supervisor)
        server.start()
        SqlLedger(server.url()).migrate()
        url = make_url(server.url())
        account = {"login": url.username, "password": url.password, "schema": url.database}
        yield {"conn_type": "postgres", "host": url.host, "port": url.port, **account}


@pytest.fixture(scope="module")
def airflows(
    emulator: EmulatedFlowService, ledger: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[LocalAirflow]]:
    """Start two Airflows with separate databases and the same DAGs."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    dags = tmp_path_factory.mktemp("dags-two")
    shutil.copy(DAG_FILE, dags)
    shared = {**emulator.connection["extra"], "ledger_conn_id": "flowservice_ledger"}
    connections = {
        "flowservice_shared": {**emulator.connection, "extra": shared},
        "flowservice_ledger": ledger,
    }
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                LocalAirflow(
                    home=tmp_path_factory.mktemp(name),
                    dags_folder=dags,
                    connections=connections,
                    config={"AIRFLOW__CORE__PARALLELISM": "2"},
                )
            )
            for name in ("airflow-one", "airflow-two")
        ]
        for each in running:
            each.wait_healthy(timeout=400)
        yield running


@pytest.mark.parametrize(
    ("dataflow", "dag_ids"),
    [
        pytest.param("e2e_shared", ("e2e_shared", "e2e_shared"), id="same-dag"),
        pytest.param("e2e_shared_two", ("e2e_shared_first", "e2e_shared_second"), id="two-dags"),
    ],
)
def test_two_airflows_ingest_each_window_once(
    airflows: list[LocalAirflow],
    emulator: EmulatedFlowService,
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    dataflow: str,
    dag_ids: tuple[str, str],
) -> None:
    """Each window has one flow run, and the tasks of both Airflows succeed with it."""
    tell("flows", id=flow_of(dataflow), name=dataflow, kind="file")
    backfills = list(zip(airflows, dag_ids, strict=True))
    for airflow, dag_id in backfills:
        airflow.wait_for_dag(dag_id, timeout=200)
        airflow.unpause(dag_id)
    with ThreadPoolExecutor() as threads:
        for started in [threads.submit(start_backfill, *each) for each in backfills]:
            started.result()
    ended = [wait_for_backfill(*each) for each in backfills]

    counted = emulator.ledger(flow_id=flow_of(dataflow), start=FIRST, end=END)
    assert (0, 0, COUNT) == (counted["missing"], counted["duplicated"], len(counted["runs"]))
    flow_runs = {each["window_end"]: each["id"] for each in counted["runs"]}
    for (airflow, dag_id), runs in zip(backfills, ended, strict=True):
        assert ["success"] * COUNT == [each["state"] for each in runs]
        returned = {
            each["logical_date"]: airflow.xcom(dag_id, each["dag_run_id"], "ingest", "return_value") for each in runs
        }
        assert flow_runs == returned


def start_backfill(airflow: LocalAirflow, dag_id: str) -> None:
    """Create a DAG run for each window; a DAG run's date is the end of its window."""
    airflow.create_backfill(dag_id, from_date=FIRST + HOUR, to_date=END, max_active_runs=16)


def wait_for_backfill(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    """Wait until all DAG runs have ended, and return them."""

    def ended() -> list[dict[str, Any]] | None:
        # Two Airflows need more than two cores at times, so a response can be late.
        with suppress(requests.Timeout):
            runs = airflow.dag_runs(dag_id)
            if len(runs) == COUNT and {each["state"] for each in runs} <= {"success", "failed"}:
                return runs
        time.sleep(2)
        return None

    return wait_until(ended, what=f"the backfill of {dag_id}", timeout=300 + 15 * COUNT)
