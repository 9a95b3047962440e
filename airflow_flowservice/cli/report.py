"""What the command `coverage` found, as a value, as JSON and in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_flowservice.coverage.cover import State
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    from airflow_flowservice.coverage.cover import Asked, Coverage, KnownRun, Span
    from airflow_flowservice.windows.window import IngestionWindow

WORDS = {
    State.INGESTED: "ingested",
    State.OUTSIDE: "made outside",
    State.RUNNING: "running",
    State.UNKNOWN: "unknown",
    State.MISSING: "missing",
    State.FAILED: "failed",
    State.TWICE: "in twice",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """A coverage, and of what.

    :param within: the time that was looked at.
    :param dag_id: None if Flow Service alone was asked.
    :param flow_id: None if nobody has told it.
    :param fill: commands that make the DAG runs for what is missing or failed.
    :param trigger: commands for what of it no backfill makes.
    :param again: tasks that `fill` would run again although they have succeeded.
    """

    within: IngestionWindow
    coverage: Coverage
    dag_id: str | None = None
    flow_id: str | None = None
    asked_flow_service: bool = False
    fill: tuple[str, ...] = ()
    trigger: tuple[str, ...] = ()
    again: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """How many windows there are of each kind."""
        counts = [f"{total.spans} {WORDS[state]}" for state, total in self._totals()]
        return f"{', '.join(counts) or 'nothing'}."

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; times as in the XCom `flow_run`."""
        return {
            "dag_id": self.dag_id,
            "flow_id": self.flow_id,
            "from": iso(self.within.start),
            "to": iso(self.within.end),
            "asked_flow_service": self.asked_flow_service,
            "whole": self.coverage.whole,
            "totals": {
                state.value: {"windows": total.spans, "seconds": total.seconds} for state, total in self._totals()
            },
            "spans": [_span(span) for span in self.coverage.spans],
            "unplaced": [_run(run) for run in self.coverage.unplaced],
            "fill": list(self.fill),
            "trigger": list(self.trigger),
            "again": list(self.again),
        }

    def _totals(self) -> list[tuple[State, Any]]:
        return [(state, self.coverage.totals[state]) for state in WORDS if self.coverage.totals[state].spans]


def _span(span: Span) -> dict[str, Any]:
    return {
        "window_start": iso(span.window.start),
        "window_end": iso(span.window.end),
        "state": span.state.value,
        "dag_runs": [_asked(asked) for asked in span.asked if asked.dag_run_id],
        "flow_runs": [_run(run) for run in span.runs],
    }


def _asked(asked: Asked) -> dict[str, Any]:
    return {
        "dag_run_id": asked.dag_run_id,
        "task_id": asked.task_id,
        "map_index": asked.map_index,
        "task_state": asked.task_state,
    }


def _run(run: KnownRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": run.status.value,
        "records": run.records,
        "failed_records": run.failed_records,
        "url": run.url,
        "outside": run.outside,
    }
