"""For tests of your own DAGs: Flow Service on loopback, as a pytest fixture.

In `conftest.py`::

    pytest_plugins = ["airflow_flowservice.testing"]

Needs the extra `emulator`, and pytest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_flowservice.emulator import Emulator, Settings, running_emulator

CONN_ID = "flowservice_default"


@pytest.fixture
def flow_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A new Flow Service, to which the connection `flowservice_default` leads; its runs take a tenth of a second.

    For another connection, set `AIRFLOW_CONN_...` to `json.dumps(flow_service.connection)` yourself.
    """
    with running_emulator(Settings(queue_s=0.0, run_s=0.1)) as emulator:
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(emulator.connection))
        yield emulator
