# SPDX-License-Identifier: Apache-2.0
"""Result of the command `coverage`, as a value, as JSON and as a summary line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_flowservice.coverage.cover import State
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, KnownRun, Span
    from airflow_flowservice.windows.window import IngestionWindow

STATE_NAMES = {
    State.INGESTED: "ingested",
    State.OUTSIDE: "external",
    State.RUNNING: "running",
    State.UNKNOWN: "unknown outcome",
    State.MISSING: "missing",
    State.FAILED: "failed",
    State.DUPLICATED: "duplicated",
    State.RESTATED: "restated",
}


@dataclass(frozen=True, kw_only=True)
class CoverageReport:
    """Coverage of a dataflow with the commands that fill its gaps.

    :param within: range of the coverage.
    :param dag_id: None if no DAG was given.
    :param flow_id: None if it is unknown.
    :param fill: backfill commands for missing and failed windows.
    :param trigger: trigger commands for windows that no backfill creates exactly.
    :param fill_command: the one command that does the same; None if it is not simpler.
    :param requests: requests to Airflow's REST API for each command of `fill`, then of `trigger`.
    :param again: succeeded tasks that `fill` would run again.
    :param history_begin: begin of Airflow's history of the DAG; None if it has no begin.
    :param notices: sentences about incomplete records.
    :param ledger_read: False if the ledger could not be read.
    :param ledger_required: True if the coverage is incomplete without the ledger.
    :param from_ledger: the ledger has entries of the dataflow.
    """

    within: IngestionWindow
    coverage: Coverage
    dag_id: str | None = None
    flow_id: str | None = None
    flow_service_queried: bool = False
    fill: tuple[str, ...] = ()
    trigger: tuple[str, ...] = ()
    fill_command: str | None = None
    requests: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    history_begin: datetime | None = None
    notices: tuple[str, ...] = ()
    ledger_read: bool = True
    ledger_required: bool = True
    from_ledger: bool = False

    @property
    def summary(self) -> str:
        """Return the number of windows of each state, such as `3 ingested, 1 with unknown outcome.`"""
        counts = [
            f"{total.spans} {'with ' if state is State.UNKNOWN else ''}{STATE_NAMES[state]}"
            for state, total in self._totals()
        ]
        return f"{', '.join(counts) or 'no windows'}."

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; times as in the XCom `flow_run`."""
        return {
            "dag_id": self.dag_id,
            "flow_id": self.flow_id,
            "from": iso(self.within.start),
            "to": iso(self.within.end),
            "asked_flow_service": self.flow_service_queried,
            "whole": self.coverage.whole,
            "totals": {
                state.value: {"windows": total.spans, "seconds": total.seconds} for state, total in self._totals()
            },
            "spans": [_span(span) for span in self.coverage.spans],
            "unplaced": [_run(run) for run in self.coverage.unplaced],
            "fill": list(self.fill),
            "trigger": list(self.trigger),
            "fill_command": self.fill_command,
            "requests": list(self.requests),
            "again": list(self.again),
            "history_begin": None if self.history_begin is None else iso(self.history_begin),
            "ledger_read": self.ledger_read,
            "notices": list(self.notices),
        }

    def _totals(self) -> list[tuple[State, Any]]:
        return [(state, self.coverage.totals[state]) for state in STATE_NAMES if self.coverage.totals[state].spans]


def _span(span: Span) -> dict[str, Any]:
    return {
        "window_start": iso(span.window.start),
        "window_end": iso(span.window.end),
        "state": span.state.value,
        "reason": reason_of(span),
        "dag_runs": [_dag_run(each) for each in span.expected if each.dag_run_id],
        "flow_runs": [_run(run) for run in span.runs],
    }


def reason_of(span: Span) -> str | None:
    """Return the reason why the records do not show the state of an unknown span; None if there is no specific one."""
    if span.state is not State.UNKNOWN:
        return None
    return next((each.reason for each in span.expected if each.reason), None)


def _dag_run(expected: ExpectedWindow) -> dict[str, Any]:
    return {
        "dag_run_id": expected.dag_run_id,
        "task_id": expected.task_id,
        "map_index": expected.map_index,
        "task_state": expected.task_state,
    }


def _run(run: KnownRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": run.status.value,
        "records": run.records,
        "failed_records": run.failed_records,
        "failed_records_derived": run.failed_records_derived,
        "url": run.url,
        "outside": run.outside,
        "replaced_at": None if run.replaced_at is None else iso(datetime.fromtimestamp(run.replaced_at, timezone.utc)),
        "replaced_by": run.replaced_by,
    }
