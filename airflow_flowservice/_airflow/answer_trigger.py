# SPDX-License-Identifier: Apache-2.0
"""Wait in the triggerer for the answer of a person, who may have answered already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.standard.triggers.hitl import HITLTrigger
from airflow.triggers.base import TriggerEvent


class AnswerTrigger(HITLTrigger):
    """Airflow's trigger for Required Actions, with a delay of `poke_interval` seconds before its first check.

    A task must not resume before the scheduler has read the end of its worker. Otherwise, the scheduler takes that end
    for the loss of the next worker, and the attempt fails. Source: `SchedulerJobRunner.process_executor_events`.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, which is stored in Airflow's database, and the arguments."""
        _, arguments = super().serialize()
        return "airflow_flowservice._airflow.answer_trigger.AnswerTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the delay, then as `HITLTrigger`."""
        await asyncio.sleep(self.poke_interval)
        async for event in super().run():
            yield event
