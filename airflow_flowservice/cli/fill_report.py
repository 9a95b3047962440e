# SPDX-License-Identifier: Apache-2.0
"""Result of the command `fill`, as a value, as JSON and as rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timezone
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow.backfill_commands import step_json
from airflow_flowservice.cli.output import shortest_format
from airflow_flowservice.coverage.fill_plan import FillAction
from airflow_flowservice.coverage.fill_requests import rest_requests
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from airflow_flowservice.coverage.fill_plan import FilledWindow, FillStep
    from airflow_flowservice.windows.window import IngestionWindow

# Adobe's guardrail for Profile, for each sandbox.
BATCHES_A_DAY = 90


@dataclass(frozen=True, kw_only=True)
class FillReport:
    """DAG runs that a fill would create or run again.

    :param now: aware; part of the ids of DAG runs that ingest windows again.
    :param unknown: number of windows with an unknown outcome, which are not filled.
    :param unplaced: number of flow runs without a known window.
    :param paused: True if the DAG is paused, so that its DAG runs stay queued.
    """

    dag_id: str
    flow_id: str | None
    within: IngestionWindow
    steps: tuple[FillStep, ...]
    now: datetime
    max_active_runs: int
    unknown: int = 0
    unplaced: int = 0
    paused: bool = False
    restate: bool = False
    chunk: str | None = None

    @property
    def windows(self) -> list[IngestionWindow]:
        """Return the windows, one for each DAG run."""
        return [each.window for step in self.steps for each in step.windows]

    @property
    def dag_runs_text(self) -> str:
        """Return the number of DAG runs, such as `create 3 DAG runs and run 1 again`."""
        numbers = Counter(each.dag_run_id is None for step in self.steps for each in step.windows)
        created, again = numbers[True], numbers[False]
        texts = [*([f"create {_dag_runs(created)}"] if created else [])]
        if again:
            texts.append(f"run {again} again" if created else f"run {_dag_runs(again)} again")
        return " and ".join(texts)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; times as in the XCom `flow_run`."""
        return {
            "dag_id": self.dag_id,
            "flow_id": self.flow_id,
            "from": iso(self.within.start),
            "to": iso(self.within.end),
            "restate": self.restate,
            "chunk": self.chunk,
            "dag_runs": len(self.windows),
            "unknown": self.unknown,
            "unplaced": self.unplaced,
            "paused": self.paused,
            "steps": [step_json(step, now=self.now, max_active_runs=self.max_active_runs) for step in self.steps],
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each DAG run."""
        windows = self.windows
        utc = shortest_format((edge for each in windows for edge in (each.start, each.end)), zone=timezone.utc)
        return [
            {
                "from": utc(each.window.start),
                "to": utc(each.window.end),
                "action": _action_text(step),
                "note": _note(each),
            }
            for step in self.steps
            for each in step.windows
        ]

    def requests(self) -> Iterator[str]:
        """Yield the requests to Airflow's REST API that do the same."""
        for step in self.steps:
            yield from map(str, rest_requests(step, now=self.now, max_active_runs=self.max_active_runs))


def count_of(steps: Sequence[FillStep]) -> int:
    """Return the number of DAG runs of the steps."""
    return sum(len(step.windows) for step in steps)


def _action_text(step: FillStep) -> str:
    return {FillAction.BACKFILL: "backfill", FillAction.CLEAR: "clear task", FillAction.TRIGGER: "trigger"}[step.action]


def _note(filled: FilledWindow) -> str:
    if filled.dag_run_id is None:
        return "new DAG run"
    if filled.date is None:
        return f"task {filled.task_id} of DAG run {filled.dag_run_id}"
    return f"all tasks of DAG run {filled.dag_run_id}"


def _dag_runs(count: int) -> str:
    return f"{count} DAG run{'' if count == 1 else 's'}"
