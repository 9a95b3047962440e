# SPDX-License-Identifier: Apache-2.0
"""Run commands in this process, against the emulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_flowservice.__main__ import main
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.emulator.server import Emulator


@dataclass(frozen=True)
class Printed:
    """Output and exit status of a command."""

    status: Any
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return standard output, which contains only JSON."""
        return json.loads(self.out)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Printed]:
    """Return a function that runs a command of `python -m airflow_flowservice`."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Printed:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_of:
            main(arguments)
        return Printed(exit_of.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Start the emulator of Flow Service and IMS; its flow runs end immediately."""
    with running_emulator(Settings(queue_s=0, run_s=0)) as running:
        yield running


@pytest.fixture
def connect(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that puts a connection to the emulator into the environment, and returns its id."""

    def put(conn_id: str = "doctor", *, extra: dict[str, Any] | None = None, **values: Any) -> str:
        all_extra = {"org_id": "EMULATOR@AdobeOrg", "ims_url": emulator.url, "timeout_s": 5, **(extra or {})}
        connection = {
            "conn_type": "flowservice",
            "login": "emulator-client",
            "password": "emulator-secret",
            "host": emulator.url,
            **values,
            "extra": {name: value for name, value in all_extra.items() if value is not None},
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return conn_id

    return put
