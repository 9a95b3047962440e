# SPDX-License-Identifier: Apache-2.0
"""The ledger remembers what is ingested on a real Airflow, also after `airflow db clean`, and for a second DAG.

The environment variable `FLOWSERVICE_LEDGER_DAYS` (30) sets the number of windows of the ledger in Airflow's Variables.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backfills import complete_backfills
from command_line import run
from instants import instant
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_FILE = Path(__file__).parent / "dags" / "e2e_ledger.py"
DAY = timedelta(days=1)
FIRST = datetime(2026, 2, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Case:
    """A kind of ledger: the DAG, whose id is also the name of its dataflow, its connection, and its number of days."""

    dag_id: str
    conn_id: str
    days: int

    @property
    def end(self) -> datetime:
        """Return the end of the last window."""
        return FIRST + self.days * DAY


VARIABLES = Case("e2e_ledger", "flowservice_default", int(os.environ.get("FLOWSERVICE_LEDGER_DAYS", "30")))
SQL = Case("e2e_ledger_sql", "flowservice_sql", 5)
CASES = [pytest.param(VARIABLES, id="variables"), pytest.param(SQL, id="sql")]


@pytest.fixture(scope="module")
def airflow(emulator: EmulatedFlowService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Start a separate Airflow for this module, because the tests delete its history."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    dags = tmp_path_factory.mktemp("dags-ledger")
    shutil.copy(DAG_FILE, dags)
    shared = {**emulator.connection["extra"], "ledger_conn_id": "flowservice_ledger"}
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow-ledger"),
        dags_folder=dags,
        connections={
            "flowservice_default": emulator.connection,
            "flowservice_sql": {**emulator.connection, "extra": shared},
        },
        # `airflow db clean` deletes DAGs that were not parsed lately.
        config={"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5"},
    ) as running:
        running.wait_healthy(timeout=400)
        create_sql_ledger(running)
        yield running


def create_sql_ledger(airflow: LocalAirflow) -> None:
    """Create a database next to Airflow's, its connection, and the ledger's tables."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url

    url = make_url(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE ledger"))
    engine.dispose()
    fields = {"connection_id": "flowservice_ledger", "conn_type": "postgres", "host": url.host, "port": url.port}
    account = {"login": url.username, "password": url.password, "schema": "ledger"}
    airflow.api("POST", "/connections", json={**fields, **account})
    done = run(airflow, ["flowservice", "ledger", "migrate", "--ledger-conn-id", "flowservice_ledger"])
    assert 0 == done.returncode, done.stderr


@pytest.fixture(scope="module")
def posts_before(
    airflow: LocalAirflow, emulator: EmulatedFlowService, tell: Callable[..., Any], flow_of: Callable[[str], str]
) -> int:
    """Ingest all days by backfills, and delete their history; return the number of POSTs sent until then."""
    for case in (VARIABLES, SQL):
        tell("flows", id=flow_of(case.dag_id), name=case.dag_id, kind="file")
        for dag_id in (case.dag_id, f"{case.dag_id}_second"):
            airflow.wait_for_dag(dag_id, timeout=240)
            airflow.unpause(dag_id)
    for case in (VARIABLES, SQL):
        start_backfill(airflow, case.dag_id, case)
    for case in (VARIABLES, SQL):
        assert ["success"] * case.days == [each["state"] for each in wait_for_backfill(airflow, case.dag_id, case)]
    posts = count_posts(emulator, flow_of(VARIABLES.dag_id))
    delete_history(airflow)
    return posts


def delete_history(airflow: LocalAirflow) -> None:
    """Run `airflow db clean` for all that ended. It keeps the last DAG run of each DAG."""
    before = datetime.now(timezone.utc)
    # The command would also delete DAGs and jobs whose last sign of life is older.
    dag_ids = [each.dag_id for each in (VARIABLES, SQL)]
    for dag_id in [*dag_ids, *(f"{each}_second" for each in dag_ids)]:
        wait_until(
            lambda path=f"/dags/{dag_id}": instant(airflow.api("GET", path)["last_parsed_time"]) > before,
            what="another parsing of the DAGs",
        )
    wait_until(
        lambda: all(
            instant(job["latest_heartbeat"]) > before
            for job in airflow.api("GET", "/jobs", params={"is_alive": True})["jobs"]
        ),
        what="a heartbeat of each component",
    )
    command = ("db", "clean", "--clean-before-timestamp", before.isoformat(), "--yes", "--skip-archive")
    done = airflow.cli(*command, timeout=240)
    assert 0 == done.returncode, done.stdout + done.stderr
    for dag_id in dag_ids:
        # Before Airflow 3.2, the command also deletes the versions of the DAGs, which the next parsing stores again.
        wait_until(lambda path=f"/dags/{dag_id}/dagRuns": airflow.rest.call("GET", path).ok, what=dag_id)
        assert len(airflow.dag_runs(dag_id)) <= 1


def start_backfill(airflow: LocalAirflow, dag_id: str, case: Case) -> None:
    """Backfill the days for which there is no DAG run."""
    airflow.create_backfill(
        dag_id, from_date=FIRST + DAY, to_date=case.end, max_active_runs=16, reprocess_behavior="none"
    )


def wait_for_backfill(airflow: LocalAirflow, dag_id: str, case: Case) -> list[dict[str, Any]]:
    """Wait until each day has an ended DAG run, and Airflow would accept another backfill; return the DAG runs."""
    runs = airflow.wait_for_runs(dag_id, count=case.days, run_type="backfill", timeout=240 + 10 * case.days)
    complete_backfills(airflow, dag_id)
    return runs


def count_posts(emulator: EmulatedFlowService, flow_id: str) -> int:
    """Return the number of POSTs for a flow run that the emulator has received, for this and all other dataflows."""
    requests = emulator.ledger(flow_id=flow_id, start=FIRST, end=FIRST + DAY)["requests"]
    return sum(count for kind, count in requests.items() if kind.startswith("POST /runs"))


def assert_only_earlier_flow_runs(
    airflow: LocalAirflow, emulator: EmulatedFlowService, dag_id: str, *, case: Case, flow_id: str
) -> None:
    """Assert that each day is ingested once, and that each task of the DAG returns the day's only flow run."""
    # The cleanup keeps the last DAG run of a DAG, but not its XComs.
    kept = {each["dag_run_id"] for each in airflow.dag_runs(dag_id)}
    start_backfill(airflow, dag_id, case)
    runs = wait_for_backfill(airflow, dag_id, case)

    assert ["success"] * case.days == [each["state"] for each in runs]
    ledger = emulator.ledger(flow_id=flow_id, start=FIRST, end=case.end)
    assert (0, 0, case.days) == (ledger["missing"], ledger["duplicated"], len(ledger["runs"]))
    returned = {
        each["logical_date"]: airflow.xcom(dag_id, each["dag_run_id"], "ingest", "return_value")
        for each in runs
        if each["dag_run_id"] not in kept
    }
    assert case.days - len(kept) == len(returned)
    assert returned.items() <= {each["window_end"]: each["id"] for each in ledger["runs"]}.items()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("posts_before")
def test_cleaned_windows_stay_ingested(airflow: LocalAirflow, flow_of: Callable[[str], str], case: Case) -> None:
    """After the cleanup, the coverage reports each window as ingested, and proposes no command."""
    dates = ("--from", FIRST.isoformat(), "--to", case.end.isoformat())
    options = ("--dag-id", case.dag_id, "--flow-id", flow_of(case.dag_id), *dates, "--output=json")
    # Flow Service is not queried without `--conn-id`, so only the ledger can know the windows.
    conn_id = () if case == VARIABLES else ("--conn-id", case.conn_id)
    done = run(airflow, ["flowservice", "coverage", *options, *conn_id])

    assert 0 == done.returncode, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert ["ingested"] * case.days == [span["state"] for span in shown["spans"]]
    assert [] == shown["fill"]


@pytest.mark.parametrize("case", CASES)
def test_backfill_after_cleanup_sends_nothing(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    posts_before: int,
    flow_of: Callable[[str], str],
    case: Case,
) -> None:
    """A second backfill of all days creates no flow run; its tasks return the earlier ones."""
    assert_only_earlier_flow_runs(airflow, emulator, case.dag_id, case=case, flow_id=flow_of(case.dag_id))
    assert posts_before == count_posts(emulator, flow_of(case.dag_id))


@pytest.mark.parametrize("case", CASES)
def test_second_dag_sends_nothing(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    posts_before: int,
    flow_of: Callable[[str], str],
    case: Case,
) -> None:
    """A second DAG for the same dataflow and days creates no flow run; its tasks return the earlier ones."""
    dag_id = f"{case.dag_id}_second"
    assert_only_earlier_flow_runs(airflow, emulator, dag_id, case=case, flow_id=flow_of(case.dag_id))
    assert posts_before == count_posts(emulator, flow_of(case.dag_id))
