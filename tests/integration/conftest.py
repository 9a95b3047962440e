# SPDX-License-Identifier: Apache-2.0
"""Validate every request that the provider sends to an emulator of this process against the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from contract import RECORDER, CheckedApp, Recorder


@pytest.fixture(scope="session", autouse=True)
def _emulators_check_the_contract() -> Iterator[None]:
    """Wrap the application of each emulator that starts in this process."""
    server = pytest.importorskip("airflow_flowservice.emulator.server")
    original = server.create_app

    def create(state: Any) -> CheckedApp:
        return CheckedApp(original(state))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "create_app", create)
        yield


@pytest.fixture(autouse=True)
def contract() -> Iterator[Recorder]:
    """Fail the test if a request of the provider violates the contract."""
    RECORDER.clear()
    yield RECORDER
    assert [] == RECORDER.violations
