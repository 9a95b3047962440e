# SPDX-License-Identifier: Apache-2.0
"""Gauges of dataflows, as a StatsD server receives them from the process of a command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest

CODE = """
from airflow_flowservice._airflow import metrics, versions
from airflow_flowservice.ledger.entry import DataflowKey
versions.start_stats()
metrics.dataflow_gauge("lag_seconds", 120, key=DataflowKey("ORG@AdobeOrg", "dev", "a.b c"))
"""


@pytest.mark.skipif(not find_spec("statsd"), reason="the package statsd is not installed")
def test_command_sends_to_the_configured_server() -> None:
    """Airflow configures its metrics client only in its components and in tasks. The names have safe characters."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        settings = {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.getsockname()[1]), "PREFIX": "airflow"}
        environment = {**os.environ, **{f"AIRFLOW__METRICS__STATSD_{name}": each for name, each in settings.items()}}
        subprocess.run([sys.executable, "-c", CODE], env=environment, check=True, timeout=120, capture_output=True)
        received: list[str] = []
        while len(received) < 2:
            lines = server.recv(4096).decode().splitlines()
            received += [line for line in lines if "flowservice" in line]
    assert [
        "airflow.flowservice.lag_seconds:120|g",
        "airflow.flowservice.lag_seconds.a_b_c:120|g",
    ] == received
