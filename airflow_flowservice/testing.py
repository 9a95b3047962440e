# SPDX-License-Identifier: Apache-2.0
"""Provide a pytest fixture for tests of DAGs: an emulated Flow Service on loopback.

In `conftest.py`::

    pytest_plugins = ["airflow_flowservice.testing"]

This module needs the extra `emulator`, and pytest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_flowservice.emulator import Emulator, Settings, running_emulator

CONN_ID = "flowservice_default"


@pytest.fixture
def flow_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Start a new emulated Flow Service, and set the connection `flowservice_default` to it.

    Its flow runs take 0.1 seconds. For another connection, set `AIRFLOW_CONN_...` to
    `json.dumps(flow_service.connection)`.
    """
    with running_emulator(Settings(queue_s=0.0, run_s=0.1)) as emulator:
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(emulator.connection))
        yield emulator
