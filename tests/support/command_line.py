# SPDX-License-Identifier: Apache-2.0
"""Run commands in the environment of a running Airflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow


def run(airflow: LocalAirflow, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run `airflow` with these arguments.

    Before 3.2, Airflow's command line does not include providers' commands, so the package's module is run instead.
    """
    if arguments[0] == "flowservice" and versions.version() < (3, 2):
        command = [sys.executable, "-m", "airflow_flowservice", *arguments[1:]]
        return subprocess.run(command, env=airflow.environment, capture_output=True, text=True, timeout=120)
    return airflow.cli(*arguments)
