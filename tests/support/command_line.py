"""Commands in the environment of an Airflow that runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow


def run(airflow: LocalAirflow, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What follows `airflow`, or what stands for it before 3.2, whose command line takes no provider's commands."""
    if words[0] == "flowservice" and versions.version() < (3, 2):
        command = [sys.executable, "-m", "airflow_flowservice", *words[1:]]
        return subprocess.run(command, env=airflow.environment, capture_output=True, text=True, timeout=120)
    return airflow.cli(*words)
