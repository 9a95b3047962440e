# SPDX-License-Identifier: Apache-2.0
"""Create the commands that ingest missing and failed windows.

These are `airflow backfill create` and, for windows that no backfill creates exactly, `airflow dags trigger`.
"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_flowservice.coverage.cover import gaps
from airflow_flowservice.coverage.fill_plan import FillAction, FillOptions, plan_fill
from airflow_flowservice.coverage.fill_requests import MAX_ACTIVE_RUNS, conf_of_run, rest_requests, restate_conf
from airflow_flowservice.windows.window import iso, window_to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_flowservice._airflow.database import TaskRow
    from airflow_flowservice.coverage.cover import Coverage
    from airflow_flowservice.coverage.fill_plan import FillStep
    from airflow_flowservice.coverage.fill_requests import RestRequest
    from airflow_flowservice.windows.window import IngestionWindow


def fill_steps(coverage: Coverage, *, dag_id: str) -> list[FillStep]:
    """Return the steps of the commands for exactly the missing and failed windows; no step clears a task."""
    return plan_fill(coverage, dag_id=dag_id, options=FillOptions())


def fill_commands(coverage: Coverage, *, dag_id: str) -> list[str]:
    """Return the `airflow backfill create` commands for exactly the missing and failed windows.

    Airflow runs one backfill of a DAG at a time. Partly ingested windows are omitted; see `trigger_commands`.
    """
    return _commands(fill_steps(coverage, dag_id=dag_id), FillAction.BACKFILL)


def trigger_commands(coverage: Coverage, *, dag_id: str) -> list[str]:
    """Return the `airflow dags trigger` commands for missing and failed windows that no backfill creates exactly."""
    return _commands(fill_steps(coverage, dag_id=dag_id), FillAction.TRIGGER)


def fill_rest_requests(coverage: Coverage, *, dag_id: str, now: datetime) -> list[RestRequest]:
    """Return the requests to Airflow's REST API for `fill_commands`, then those for `trigger_commands`."""
    steps = fill_steps(coverage, dag_id=dag_id)
    ordered = [step for action in (FillAction.BACKFILL, FillAction.TRIGGER) for step in steps if step.action is action]
    return [request for step in ordered for request in rest_requests(step, now=now)]


def _commands(steps: Iterable[FillStep], action: FillAction) -> list[str]:
    return [command for step in steps if step.action is action for command in commands_of(step)]


def commands_of(step: FillStep) -> list[str]:
    """Return Airflow's commands of a step; none for a clear, because `airflow tasks clear` selects tasks by date."""
    if step.action is FillAction.BACKFILL:
        return [_backfill_command(step)]
    if step.action is FillAction.CLEAR:
        return []
    confs = (json.dumps(conf_of_run(step, each)) for each in step.windows)
    return [f"airflow dags trigger {shlex.quote(step.dag_id)} --conf {shlex.quote(conf)}" for conf in confs]


def step_json(step: FillStep, *, now: datetime, max_active_runs: int = MAX_ACTIVE_RUNS) -> dict[str, Any]:
    """Return a step with its windows, commands and requests as JSON values.

    :param now: as in `rest_requests`.
    """
    requests = rest_requests(step, now=now, max_active_runs=max_active_runs)
    return {
        "action": step.action.value,
        "windows": [
            {**window_to_json(each.window), "dag_run_id": each.dag_run_id, "task_id": each.task_id}
            for each in step.windows
        ],
        "commands": commands_of(step),
        "requests": [request.to_json() for request in requests],
    }


def fill_command(*, program: str, dag_id: str, flow_id: str | None, within: IngestionWindow) -> str:
    """Return the command that fills all gaps of a range.

    :param program: as `versions.command_program`.
    :param flow_id: None if the DAG has only one dataflow.
    """
    parts = [f"{program} fill --dag-id {shlex.quote(dag_id)} --from {iso(within.start)} --to {iso(within.end)}"]
    return " ".join([*parts, *([f"--flow-id {shlex.quote(flow_id)}"] if flow_id else [])])


def tasks_run_again(coverage: Coverage, rows: Iterable[TaskRow]) -> list[str]:
    """Return the succeeded tasks that a command of `fill_commands` with `--reprocess-behavior` would run again.

    Airflow runs all tasks of a DAG run again, so these tasks would ingest their windows a second time.

    :param rows: of all dataflows of the DAG's tasks.
    """
    filled = [each for spans in gaps(coverage) for span in spans for each in span.expected if each.dag_run_id]
    runs = {(each.dag_id, each.dag_run_id) for each in filled}
    wanted = {(each.dag_id, each.dag_run_id, each.task_id, each.map_index) for each in filled}
    return sorted(
        {
            row.task_id
            for row in rows
            if row.creates and row.state == "success" and (row.dag_id, row.run_id) in runs
            if (row.dag_id, row.run_id, row.task_id, row.map_index) not in wanted
        }
    )


def succeeded_tasks(
    rows: Iterable[TaskRow], *, dag_id: str, any_state: bool = False
) -> dict[str, frozenset[tuple[str, int]]]:
    """Return the succeeded tasks of each DAG run that create flow runs, as (task id, map index).

    :param rows: of all dataflows of the DAG's tasks.
    :param any_state: also return tasks in other states.
    """
    found: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in rows:
        if row.creates and row.dag_id == dag_id and (any_state or row.state == "success"):
            found[row.run_id].add((row.task_id, row.map_index))
    return {run_id: frozenset(tasks) for run_id, tasks in found.items()}


def _backfill_command(step: FillStep) -> str:
    first, last = step.dates
    parts = [
        "airflow backfill create",
        f"--dag-id {shlex.quote(step.dag_id)}",
        f"--from-date {_date_text(first)}",
        f"--to-date {_date_text(last)}",
    ]
    if step.reprocess != "none":
        parts.append(f"--reprocess-behavior {step.reprocess}")
    if step.restate:
        parts.append(f"--dag-run-conf {shlex.quote(json.dumps(restate_conf(step)))}")
    return " ".join(parts)


def _date_text(date: datetime) -> str:
    return date.astimezone(timezone.utc).isoformat()
