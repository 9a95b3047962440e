# SPDX-License-Identifier: Apache-2.0
"""Emulator of Flow Service as a child process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from airflow_flowservice.demo.processes import Supervisor, inherited_environment, python_module
from airflow_flowservice.demo.rest import format_iso
from airflow_flowservice.emulator import Settings

TABLE_FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
_READY = re.compile(r"ready on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class EmulatedFlowService:
    """A running emulator.

    :param url: base URL of the emulator, without a trailing slash.
    """

    url: str

    @property
    def connection(self) -> dict[str, Any]:
        """Return the Airflow connection to the emulator; its JSON is a valid value of ``AIRFLOW_CONN_...``."""
        return Settings().connection(self.url)

    def ledger(self, *, flow_id: str, start: datetime, end: datetime) -> Mapping[str, Any]:
        """Return the ledger of a flow for a range: ``missing``, ``duplicated``, ``runs``, ...

        :param start: start of the range (inclusive).
        :param end: end of the range (exclusive).
        :raises requests.RequestException: the emulator does not respond or reports an error.
        """
        params = {"flow_id": flow_id, "from": format_iso(start), "to": format_iso(end)}
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(f"{self.url}/_emulator/ledger", params=params, timeout=30)
        response.raise_for_status()
        return dict(response.json())


def start_emulator(supervisor: Supervisor, *, cwd: Path, options: Mapping[str, str]) -> EmulatedFlowService:
    """Start the emulator on a free port as the child process ``emulator``, and wait until it is ready.

    :param options: command-line options, such as ``{"--run-seconds": "2"}``.
    """
    arguments = [item for option in options.items() for item in option]
    command = python_module("airflow_flowservice.emulator", "--port", "0", *arguments)
    supervisor.start("emulator", command, env=inherited_environment(), cwd=cwd)
    log = supervisor.log_file("emulator")
    ready = supervisor.wait_until(
        lambda: _READY.search(log.read_text()),
        timeout=30,
        what="the emulator of Flow Service",
        log="emulator",
    )
    return EmulatedFlowService(url=ready.group(1))
