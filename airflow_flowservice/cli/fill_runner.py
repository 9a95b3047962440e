# SPDX-License-Identifier: Apache-2.0
"""Run the steps of a fill: each backfill starts when Airflow has no other active backfill of the DAG."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_flowservice._airflow import fill_actions
from airflow_flowservice.cli.metadata_session import metadata_session
from airflow_flowservice.cli.output import write_note
from airflow_flowservice.coverage.fill_plan import FillAction
from airflow_flowservice.coverage.fill_requests import MAX_ACTIVE_RUNS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from airflow_flowservice._airflow.fill_actions import ActiveBackfill
    from airflow_flowservice.coverage.fill_plan import FilledWindow, FillStep
    from airflow_flowservice.windows.window import IngestionWindow

_POLL_S = 5.0


@dataclass(kw_only=True)
class FillRunner:
    """Fill confirmed windows exactly once, also if another process fills them at the same time.

    Before each backfill, the plan is read again. Windows that are no longer open are omitted, and windows that were
    not confirmed are never filled.

    :param read_steps: read the plan for the given windows.
    :param now: part of the ids of DAG runs that ingest windows again.
    :param filled: result: the windows that were filled.
    """

    read_steps: Callable[[frozenset[IngestionWindow]], Sequence[FillStep]]
    dag_id: str
    now: datetime
    max_active_runs: int = MAX_ACTIVE_RUNS
    sleep: Callable[[float], None] = time.sleep
    filled: list[IngestionWindow] = field(default_factory=list)

    def run(self, confirmed: Collection[IngestionWindow]) -> None:
        """Fill the windows.

        :raises FillRefusedError: Airflow refuses a step; `filled` has the windows before it.
        """
        pending = set(confirmed)
        while pending and (steps := self.read_steps(frozenset(pending))):
            backfills = [step for step in steps if step.action is FillAction.BACKFILL]
            for step in steps:
                if step.action is not FillAction.BACKFILL:
                    self._fill_each(step)
                    pending -= _windows(step)
            if not backfills:
                return
            self._wait_for_other_backfill()
            pending -= self._create(backfills[0], steps=steps)

    def _fill_each(self, step: FillStep) -> None:
        for each in step.windows:
            if self._fill_one(step, each):
                self.filled.append(each.window)

    def _fill_one(self, step: FillStep, filled: FilledWindow) -> bool:
        if step.action is FillAction.TRIGGER:
            return fill_actions.trigger_run(step, filled, now=self.now)
        with metadata_session() as session:
            return fill_actions.clear_task(session, step, filled)

    def _create(self, step: FillStep, *, steps: Sequence[FillStep]) -> set[IngestionWindow]:
        """Create a backfill, and return its windows; none if the plan has changed, or another backfill is active."""
        current = self.read_steps(frozenset(_windows(step)))
        if list(current) != [step] or not fill_actions.create_backfill(step, max_active_runs=self.max_active_runs):
            return set()
        windows = [each.window for each in step.windows]
        self.filled += windows
        more = sum(each.action is FillAction.BACKFILL for each in steps) - 1
        write_note(f"created a backfill for {len(windows)} windows; {more} more to create")
        return set(windows)

    def _wait_for_other_backfill(self) -> None:
        shown: ActiveBackfill | None = None
        while (active := self._active_backfill()) is not None:
            if active != shown:
                paused = ", which is paused" if active.is_paused else ""
                write_note(
                    f"waiting for backfill {active.id}{paused}, because Airflow runs one backfill of a DAG at a time: "
                    f"{active.ended} of {active.runs} DAG runs have ended"
                )
                shown = active
            self.sleep(_POLL_S)

    def _active_backfill(self) -> ActiveBackfill | None:
        with metadata_session() as session:
            return fill_actions.active_backfill(session, self.dag_id)


def _windows(step: FillStep) -> set[IngestionWindow]:
    return {each.window for each in step.windows}
