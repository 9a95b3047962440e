# SPDX-License-Identifier: Apache-2.0
"""Run commands in the environment of a running Airflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow


def run(
    airflow: LocalAirflow, arguments: Sequence[str], *, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `airflow` with these arguments.

    Before 3.2, Airflow's command line does not include providers' commands, so the package's module is run instead.

    :param env: environment of the command; default: that of Airflow's components.
    """
    module, rest = "airflow", list(arguments)
    if arguments[0] == "flowservice" and versions.version() < (3, 2):
        module, rest = "airflow_flowservice", rest[1:]
    return subprocess.run(
        [sys.executable, "-m", module, *rest],
        env=env or airflow.environment,
        cwd=airflow.home,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )
