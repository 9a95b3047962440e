"""The JSON of the page's data endpoints: columns instead of objects, so that ten thousand windows are quick."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from airflow_flowservice._filling import fill_commands, trigger_commands
from airflow_flowservice.ingestion.coverage import State
from airflow_flowservice.ingestion.window import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from airflow_flowservice._metadata import Feed
    from airflow_flowservice.ingestion.coverage import Asked, Coverage, KnownRun
    from airflow_flowservice.plugins.coverage_reader import Found
    from airflow_flowservice.plugins.flow_run_lookup import Answer

_STATES = tuple(State)
_TASK = ("dag_id", "dag_run_id", "task_id", "map_index", "task_state")
_RUN = ("id", "status", "records", "failed_records", "url", "outside")


def dataflows(feeds: Iterable[Feed]) -> dict[str, Any]:
    """`{"dataflows": [{"flow_id", "tasks": [{"dag_id", "task_id"}]}]}`."""
    tasks: dict[str, list[dict[str, str]]] = {}
    for feed in feeds:
        tasks.setdefault(feed.flow_id, []).append({"dag_id": feed.dag_id, "task_id": feed.task_id})
    return {"dataflows": [{"flow_id": flow_id, "tasks": each} for flow_id, each in tasks.items()]}


def coverage(found: Found, *, flow_id: str, now: datetime, service: Answer | None) -> dict[str, Any]:
    """What became of a dataflow's time; all times ISO 8601, UTC.

    `spans` has the columns `start`, `end`, `state` (an index into `states`), `tasks` and `runs` (lists of indexes
    into the columns of `tasks` and `runs`). `totals` has windows and seconds of each state.

    :param service: what Flow Service answered; None if it was not asked.
    """
    known = found.coverage
    tasks = _Numbered(each for span in known.spans for each in span.asked if each.dag_run_id is not None)
    runs = _Numbered([*(run for span in known.spans for run in span.runs), *known.unplaced])
    return {
        "flow_id": flow_id,
        "dag_ids": found.dag_ids,
        "from": iso(found.within.start),
        "to": iso(found.within.end),
        "now": iso(now),
        "whole": known.whole,
        "states": [state.value for state in _STATES],
        "totals": {
            state.value: {"windows": known.totals[state].spans, "seconds": known.totals[state].seconds}
            for state in _STATES
        },
        "spans": _spans(known, tasks=tasks, runs=runs),
        "tasks": _columns(tasks.values, _TASK),
        "runs": {**_columns(runs.values, _RUN), "status": [run.status.value for run in runs.values]},
        "unplaced": [runs.number(run) for run in known.unplaced],
        "commands": [{"dag_id": dag_id, "command": command} for dag_id, command in _commands(found)],
        "again": found.again,
        "service": None if service is None else {"runs": len(service.runs), "whole": service.whole},
    }


def _commands(found: Found) -> Iterator[tuple[str, str]]:
    """What fills the gaps; what no backfill does is told only where there is one DAG that could."""
    for dag_id in found.dag_ids:
        for command in fill_commands(found.coverage, dag_id=dag_id):
            yield dag_id, command
    if len(found.dag_ids) == 1:
        for command in trigger_commands(found.coverage, dag_id=found.dag_ids[0]):
            yield found.dag_ids[0], command


class _Numbered:
    """Each of some things once, and its place among them."""

    def __init__(self, things: Iterable[Asked | KnownRun]) -> None:
        self._numbers: dict[int, int] = {}
        self.values: list[Any] = []
        for thing in things:
            if id(thing) not in self._numbers:
                self._numbers[id(thing)] = len(self.values)
                self.values.append(thing)

    def number(self, thing: Asked | KnownRun) -> int:
        return self._numbers[id(thing)]


def _spans(known: Coverage, *, tasks: _Numbered, runs: _Numbered) -> dict[str, list[Any]]:
    numbers = {state: number for number, state in enumerate(_STATES)}
    return {
        "start": [iso(span.window.start) for span in known.spans],
        "end": [iso(span.window.end) for span in known.spans],
        "state": [numbers[span.state] for span in known.spans],
        "tasks": [[tasks.number(each) for each in span.asked if each.dag_run_id is not None] for span in known.spans],
        "runs": [[runs.number(run) for run in span.runs] for span in known.spans],
    }


def _columns(things: Sequence[Any], names: Iterable[str]) -> dict[str, list[Any]]:
    return {name: [attrgetter(name)(thing) for thing in things] for name in names}
