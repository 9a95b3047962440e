# SPDX-License-Identifier: Apache-2.0
"""JSON bodies of the page's data endpoints.

The bodies have columns instead of objects, so that ten thousand windows load quickly.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow.backfill_commands import commands_of, fill_steps
from airflow_flowservice._airflow.pages import is_experience_page
from airflow_flowservice.coverage.cover import State
from airflow_flowservice.coverage.fill_plan import FillAction
from airflow_flowservice.coverage.fill_requests import rest_requests
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from airflow_flowservice._airflow.database import Feed
    from airflow_flowservice._airflow.fleet_reader import Fleet
    from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, KnownRun
    from airflow_flowservice.plugins.coverage_reader import CoverageResult
    from airflow_flowservice.plugins.flow_run_lookup import ListedRuns

_STATES = tuple(State)
_TASK_COLUMNS = ("dag_id", "dag_run_id", "task_id", "map_index", "task_state")
_RUN_COLUMNS = (
    "id",
    "status",
    "records",
    "failed_records",
    "failed_records_derived",
    "url",
    "outside",
    "batch",
    "replaced",
)


def dataflows_json(feeds: Iterable[Feed]) -> dict[str, Any]:
    """Return `{"dataflows": [{"flow_id", "tasks": [{"dag_id", "task_id"}]}]}`."""
    tasks: dict[str, list[dict[str, str]]] = {}
    for feed in feeds:
        tasks.setdefault(feed.flow_id, []).append({"dag_id": feed.dag_id, "task_id": feed.task_id})
    return {"dataflows": [{"flow_id": flow_id, "tasks": each} for flow_id, each in tasks.items()]}


def fleet_json(fleet: Fleet) -> dict[str, Any]:
    """Return the summaries of all dataflows, the worst first.

    The fields of a dataflow are those of `DataflowStatus.to_json`. `notice` is a sentence if the ledger is unreadable,
    and `warning` if connections without a task, or their ledgers, are. Both have no detail, because users may not see
    connections.
    """
    notice = "The ledger of ingested windows cannot be read, so windows are unknown. See the API server's log."
    warning = (
        "A connection that no task uses, or its ledger, cannot be read, so dataflows that no task names may be "
        "missing. See the API server's log."
    )
    return {
        "from": iso(fleet.within.start),
        "to": iso(fleet.within.end),
        "notice": None if fleet.error is None else notice,
        "warning": warning if fleet.warnings else None,
        "dataflows": [row.to_json() for row in fleet.rows],
    }


def coverage_json(result: CoverageResult, *, flow_id: str, now: datetime, listed: ListedRuns | None) -> dict[str, Any]:
    """Return the coverage of a dataflow; all times are ISO 8601 in UTC.

    `spans` has the columns `start`, `end`, `state`, `tasks` and `runs`. `state` is an index into `states`; `tasks` and
    `runs` are lists of indexes into the columns of `tasks` and `runs`. `more_tasks` and `more_runs` are the numbers of
    further ones that the response does not list. `totals` has windows and seconds of each state. `notices` are
    sentences about incomplete records.

    :param listed: flow runs that Flow Service returned; None if Flow Service was not queried.
    """
    known = result.coverage
    tasks = _Indexed(each for span in known.spans for each in span.expected if each.dag_run_id is not None)
    runs = _Indexed([*(run for span in known.spans for run in span.runs), *known.unplaced])
    return {
        "flow_id": flow_id,
        "flow_name": result.flow_name,
        "dag_ids": result.dag_ids,
        "from": iso(result.within.start),
        "to": iso(result.within.end),
        "now": iso(now),
        "whole": known.whole,
        "states": [state.value for state in _STATES],
        "totals": {
            state.value: {"windows": known.totals[state].spans, "seconds": known.totals[state].seconds}
            for state in _STATES
        },
        "spans": _spans(known, tasks=tasks, runs=runs),
        "tasks": _columns(tasks.values, _TASK_COLUMNS),
        "runs": {
            **_columns(runs.values, _RUN_COLUMNS),
            "status": [run.status.value for run in runs.values],
            # Users can change the XCom that contains the URL.
            "url": [run.url if is_experience_page(run.url) else None for run in runs.values],
        },
        "unplaced": [runs.index_of(run) for run in known.unplaced],
        "commands": list(_commands(result, now=now)),
        "again": result.again,
        "notices": result.notices,
        "service": None if listed is None else {"runs": len(listed.runs), "whole": listed.complete},
    }


def _commands(result: CoverageResult, *, now: datetime) -> Iterator[dict[str, str]]:
    """Yield the commands that create the DAG runs of missing and failed windows, with their REST requests."""
    if not result.fillable:
        return
    for action in (FillAction.BACKFILL, FillAction.TRIGGER):
        # A window that no backfill creates has no DAG in the coverage: the command is known only for one DAG.
        if action is FillAction.TRIGGER and len(result.dag_ids) != 1:
            return
        for dag_id in result.dag_ids:
            for step in fill_steps(result.coverage, dag_id=dag_id):
                if step.action is not action:
                    continue
                for command, request in zip(commands_of(step), rest_requests(step, now=now), strict=True):
                    yield {"dag_id": dag_id, "command": command, "request": str(request)}


class _Indexed:
    """Distinct objects, by identity, and the index of each."""

    def __init__(self, items: Iterable[ExpectedWindow | KnownRun]) -> None:
        self._indexes: dict[int, int] = {}
        self.values: list[Any] = []
        for item in items:
            if id(item) not in self._indexes:
                self._indexes[id(item)] = len(self.values)
                self.values.append(item)

    def index_of(self, item: ExpectedWindow | KnownRun) -> int:
        return self._indexes[id(item)]


def _spans(known: Coverage, *, tasks: _Indexed, runs: _Indexed) -> dict[str, list[Any]]:
    state_indexes = {state: index for index, state in enumerate(_STATES)}
    return {
        "start": [iso(span.window.start) for span in known.spans],
        "end": [iso(span.window.end) for span in known.spans],
        "state": [state_indexes[span.state] for span in known.spans],
        "tasks": [
            [tasks.index_of(each) for each in span.expected if each.dag_run_id is not None] for span in known.spans
        ],
        "runs": [[runs.index_of(run) for run in span.runs] for span in known.spans],
        "more_tasks": [span.more_expected for span in known.spans],
        "more_runs": [span.more_runs for span in known.spans],
    }


def _columns(items: Sequence[Any], names: Iterable[str]) -> dict[str, list[Any]]:
    return {name: [attrgetter(name)(item) for item in items] for name in names}
