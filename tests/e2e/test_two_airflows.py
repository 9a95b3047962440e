"""Two Airflows with one ledger on PostgreSQL backfill the same windows at the same time.

The environment variable `FLOWSERVICE_SHARED_WINDOWS` (20) sets the number of windows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from command_line import run
from instants import instant

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_FILE = Path(__file__).parent / "dags" / "e2e_shared.py"
DAG_ID = "e2e_shared"
HOUR = timedelta(hours=1)
FIRST = datetime(2026, 1, 2, tzinfo=timezone.utc)
COUNT = int(os.environ.get("FLOWSERVICE_SHARED_WINDOWS", "20"))


@pytest.fixture(scope="module")
def ledger(_can_run_airflow: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Start a PostgreSQL that is part of no Airflow, and return the fields of its connection."""
    from sqlalchemy import make_url

    from airflow_flowservice.demo.postgres import EmbeddedPostgres
    from airflow_flowservice.demo.processes import Supervisor

    folder = tmp_path_factory.mktemp("shared-ledger")
    with Supervisor(log_folder=folder) as supervisor:
        server = EmbeddedPostgres(folder=folder / "database", supervisor=supervisor)
        server.start()
        url = make_url(server.url())
        account = {"login": url.username, "password": url.password, "schema": url.database}
        yield {"conn_type": "postgres", "host": url.host, "port": url.port, **account}


@pytest.fixture(scope="module")
def airflows(
    emulator: EmulatedFlowService, ledger: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[LocalAirflow]]:
    """Start two Airflows with separate databases and the same DAGs; the first one creates the ledger's tables."""
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
                LocalAirflow(home=tmp_path_factory.mktemp(name), dags_folder=dags, connections=connections)
            )
            for name in ("airflow-one", "airflow-two")
        ]
        for each in running:
            each.wait_healthy(timeout=240)
        done = run(running[0], ["flowservice", "ledger", "migrate", "--ledger-conn-id", "flowservice_ledger"])
        assert 0 == done.returncode, done.stderr
        yield running


@pytest.mark.parametrize("second", [DAG_ID, f"{DAG_ID}_second"], ids=["same-dag", "two-dags"])
def test_two_airflows_ingest_each_window_once(
    airflows: list[LocalAirflow],
    emulator: EmulatedFlowService,
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    second: str,
) -> None:
    """Each window has one flow run, and the tasks of both Airflows succeed with it."""
    begin = FIRST if second == DAG_ID else FIRST + COUNT * HOUR
    end = begin + COUNT * HOUR
    backfills = list(zip(airflows, (DAG_ID, second), strict=True))
    tell("flows", id=flow_of(DAG_ID), name=DAG_ID, kind="file")
    for airflow, dag_id in backfills:
        airflow.wait_for_dag(dag_id)
        airflow.unpause(dag_id)
    created = at_the_same_time(
        [lambda each=each: start_backfill(*each, first=begin + HOUR, last=end) for each in backfills]
    )
    assert 2 == len(created)
    ended = [airflow.wait_for_runs(dag_id, count=COUNT, timeout=240 + 10 * COUNT) for airflow, dag_id in backfills]

    counted = emulator.ledger(flow_id=flow_of(DAG_ID), start=begin, end=end)
    assert (0, 0, COUNT) == (counted["missing"], counted["duplicated"], len(counted["runs"]))
    flow_runs = {each["window_end"]: each["id"] for each in counted["runs"]}
    for (airflow, dag_id), runs in zip(backfills, ended, strict=True):
        runs = [each for each in runs if begin < instant(each["logical_date"]) <= end]
        assert ["success"] * COUNT == [each["state"] for each in runs]
        returned = {
            each["logical_date"]: airflow.xcom(dag_id, each["dag_run_id"], "ingest", "return_value") for each in runs
        }
        assert flow_runs == returned


def start_backfill(airflow: LocalAirflow, dag_id: str, *, first: datetime, last: datetime) -> None:
    """Create DAG runs for the windows that end from the first to the last date."""
    airflow.create_backfill(dag_id, from_date=first, to_date=last, max_active_runs=16)


def at_the_same_time(functions: list[Callable[[], None]]) -> list[None]:
    """Call each function in a thread, and return the results of those that raised no error."""
    done: list[None] = []
    threads = [Thread(target=lambda each=each: done.append(each())) for each in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done
