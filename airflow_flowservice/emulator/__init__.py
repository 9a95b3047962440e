# SPDX-License-Identifier: Apache-2.0
"""Emulator of Adobe Flow Service and IMS on loopback, for demos and tests without an Adobe organization.

From a shell::

    python -m airflow_flowservice.emulator --port 8710

From a test::

    from airflow_flowservice.emulator import Settings, running_emulator

    with running_emulator(Settings(queue_s=0.1, run_s=0.2)) as emulator:
        emulator.plan_fault(kind="POST /runs", action="record_and_close", nth=3)
        ...  # point a client at emulator.url
        assert emulator.ledger("3abea21c-7e36-4be1-bec1-d3bad0e3e0de")["duplicated"] == 0

The emulator shares no code with the rest of the package. An error in one of them therefore cannot hide an
error in the other. FastAPI and uvicorn (the extra `emulator`) are imported only on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_flowservice.emulator.server import Emulator, running_emulator
    from airflow_flowservice.emulator.settings import Settings

__all__ = ["Emulator", "Settings", "running_emulator"]

_MODULES = {"Emulator": "server", "Settings": "settings", "running_emulator": "server"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
