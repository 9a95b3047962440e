"""Set up a separate Airflow for the tests, before anything imports Airflow, and remove it at the end."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HOME = Path(tempfile.mkdtemp(prefix="airflow-flowservice-tests-"))
DAG_FOLDER = TESTS / "integration" / "operators" / "dags"


def _use_separate_airflow() -> None:
    """Set the environment so that the tests neither read nor write the user's Airflow."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW"))]:
        del os.environ[name]
    os.environ.update(
        {
            "AIRFLOW_HOME": str(HOME),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FOLDER),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            # The listener changes how tasks end, so only its tests register it.
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "SCARF_ANALYTICS": "false",
        }
    )


_use_separate_airflow()
# This handler is registered first, so it runs last: Airflow's exit handlers still write to the folder.
atexit.register(shutil.rmtree, HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests with the marker `needs_airflow(major, minor, reason)` on earlier versions."""
    from airflow_flowservice._airflow import versions

    for item in items:
        for mark in item.iter_markers("needs_airflow"):
            major, minor, reason = mark.args
            if versions.version() < (major, minor):
                item.add_marker(pytest.mark.skip(reason=f"needs Airflow {major}.{minor}: {reason}"))


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """Return the `AIRFLOW_HOME` of the tests."""
    return HOME


@pytest.fixture(scope="session")
def airflow_db(airflow_home: Path) -> Path:
    """Create the metadata database of the tests, and return its path."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return airflow_home / "airflow.db"
