# SPDX-License-Identifier: Apache-2.0
"""Ceilings of flow runs in flight: the most of one flow, and of the sandbox. Adobe documents no numbers.

A flow run is in flight from its creation until it ends, also while it is scheduled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from airflow_flowservice.emulator.errors import EmulatedApiError
from airflow_flowservice.emulator.model import EmulatedRun
from airflow_flowservice.emulator.settings import Settings


class Ceilings:
    """Ceilings of the settings, and the number of requests that each of them refused."""

    def __init__(self, settings: Settings) -> None:
        self._limits = {"flow": settings.max_flow_runs, "sandbox": settings.max_sandbox_runs}
        self.refused: Counter[str] = Counter()

    def require_room(self, *, of_flow: Iterable[EmulatedRun], of_sandbox: Iterable[EmulatedRun], now: float) -> None:
        """Return if another flow run may be created.

        Raises:
            EmulatedApiError: 429 if as many flow runs are in flight as the flow or the sandbox may have.
        """
        for name, runs in (("flow", of_flow), ("sandbox", of_sandbox)):
            limit = self._limits[name]
            if limit is not None and sum(run.phase(now) != "ended" for run in runs) >= limit:
                self.refused[name] += 1
                message = f"The {name} has {limit} flow runs in flight, and may not have more."
                raise EmulatedApiError(429, "429050", message, gateway=True)

    def as_json(self) -> dict[str, Any]:
        """Return the number of refused requests by ceiling."""
        return {name: self.refused[name] for name in self._limits}


def most_in_flight(runs: Iterable[EmulatedRun]) -> int:
    """Return the largest number of flow runs that were in flight at the same time."""
    changes = [change for run in runs for change in ((run.created_at, 1), (run.ends_at, -1))]
    active = most = 0
    # At the same instant, ends come first, as for a ceiling.
    for _, change in sorted(changes):
        active += change
        most = max(most, active)
    return most
