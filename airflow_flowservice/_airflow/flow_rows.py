# SPDX-License-Identifier: Apache-2.0
"""Select the task instances of one dataflow, and the dataflows that it continues."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airflow_flowservice.coverage.ledger_runs import NO_RECORDS, LedgerRecords

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_flowservice._airflow.database import Feed, TaskRow, TaskSettings


def tasks_of_flow(tasks: Iterable[TaskSettings], flow_id: str) -> list[TaskSettings]:
    """Return the tasks that create flow runs of the dataflow, or may do so."""
    return [task for task in tasks if task.flow_id in (None, flow_id)]


def earlier_flows(tasks: Iterable[TaskSettings], flow_id: str, *, feeds: Iterable[Feed]) -> tuple[str, ...]:
    """Return the earlier dataflows that the dataflow continues, by the arguments of tasks.

    A task without a literal `flow_id` counts only if its flow runs are of the dataflow. If no task names the dataflow,
    one also counts whose flow runs are all of its earlier dataflows. Otherwise, windows of other dataflows would count.

    :param feeds: as in `rows_of_flow`.
    """
    flows_of_task: dict[str, set[str]] = defaultdict(set)
    for feed in feeds:
        flows_of_task[feed.task_id].add(feed.flow_id)
    tasks = tasks_of_flow(tasks, flow_id)
    is_named = any(task.flow_id == flow_id or flow_id in flows_of_task[task.task_id] for task in tasks)
    found: set[str] = set()
    for task in tasks:
        flow_ids = flows_of_task[task.task_id]
        if flow_id in {task.flow_id, *flow_ids} or (not is_named and flow_ids <= set(task.continues)):
            found.update(task.continues)
    return tuple(sorted(found - {flow_id}))


def rows_of_flow(
    rows: Sequence[TaskRow],
    *,
    flow_id: str,
    feeds: Iterable[Feed],
    include_unknown: bool = False,
    records: LedgerRecords = NO_RECORDS,
    newest: Mapping[tuple[str, str, int], str | None] | None = None,
    continues: Collection[str] = (),
) -> list[TaskRow]:
    """Return the rows of one dataflow.

    A row with a flow run belongs to the dataflow of that flow run. A row without one belongs to the dataflow of the
    newest flow run of its task and map index, or to the dataflow that continues this one. If there is none, it belongs
    to the task's dataflows in `feeds`. A row that owns an entry of the ledger belongs to the entry's dataflow.

    :param rows: sorted by the time of their DAG runs.
    :param feeds: the dataflow of each task's newest flow run.
    :param include_unknown: also return the rows of tasks that have no flow run yet.
    :param records: the ledger's records of the dataflow.
    :param continues: earlier dataflows whose flow runs count as flow runs of this one.
    :param newest: dataflow of the newest flow run of each task and map index, if `rows` does not have all flow runs.
    """
    counted = {flow_id, *continues}
    owners = {entry.owner for entry in records.entries}
    flows_of_task: dict[tuple[str, str], set[str]] = defaultdict(set)
    for feed in feeds:
        flows_of_task[feed.dag_id, feed.task_id].add(feed.flow_id)
    last = {_task_key(row): flow_of(row) for row in rows if row.flow_run} | dict(newest or {})

    def has_flow(row: TaskRow) -> bool:
        if row.flow_run:
            return flow_of(row) in counted
        if f"{row.dag_id}/{row.run_id}/{row.task_id}/{row.map_index}" in owners:
            return True
        if _task_key(row) in last:
            return last[_task_key(row)] in counted
        flow_ids = flows_of_task.get((row.dag_id, row.task_id))
        return flow_id in flow_ids if flow_ids else include_unknown

    return [row for row in rows if has_flow(row)]


def flow_of(row: TaskRow) -> str | None:
    """Return the dataflow id in the XCom of a task instance; None if there is none."""
    return row.flow_run.flow_id if row.flow_run else None


def _task_key(row: TaskRow) -> tuple[str, str, int]:
    return row.dag_id, row.task_id, row.map_index
