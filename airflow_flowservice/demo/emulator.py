"""The emulator of Flow Service as a child process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from airflow_flowservice.demo.processes import Supervisor, inherited_environment, python_module
from airflow_flowservice.demo.rest import iso
from airflow_flowservice.emulator import Settings

TABLE_FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
_READY = re.compile(r"ready on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class EmulatedFlowService:
    """A running emulator.

    :param url: where it answers, without a slash at the end.
    """

    url: str

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to it, as ``AIRFLOW_CONN_...`` takes it."""
        return Settings().connection(self.url)

    def ledger(self, *, flow_id: str, start: datetime, end: datetime) -> Mapping[str, Any]:
        """What the flow ingested from ``start`` up to ``end``: ``missing``, ``duplicated``, ``runs``, ...

        :raises requests.RequestException: the emulator does not answer.
        """
        asked = {"flow_id": flow_id, "from": iso(start), "to": iso(end)}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{self.url}/_emulator/ledger", params=asked, timeout=30)
        answer.raise_for_status()
        return dict(answer.json())


def start_emulator(supervisor: Supervisor, *, cwd: Path, options: Mapping[str, str]) -> EmulatedFlowService:
    """Start the emulator on a free port as the supervisor's child ``emulator``; return when it answers.

    :param options: command line options, such as ``{"--run-seconds": "2"}``.
    """
    given = [word for option in options.items() for word in option]
    command = python_module("airflow_flowservice.emulator", "--port", "0", *given)
    supervisor.start("emulator", command, env=inherited_environment(), cwd=cwd)
    log = supervisor.log_file("emulator")
    ready = supervisor.wait_until(
        lambda: _READY.search(log.read_text()),
        timeout=30,
        what="the emulator of Flow Service",
        log="emulator",
    )
    return EmulatedFlowService(url=ready.group(1))
