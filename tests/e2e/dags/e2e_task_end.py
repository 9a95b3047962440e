# SPDX-License-Identifier: Apache-2.0
"""Deferrable tasks, plain and mapped, with code that Airflow calls at the end of a task on a worker.

Each call appends a line to the file `e2e_task_end.txt` in Airflow's home: call, task, map index and whether the task
was deferred before.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

BEGIN = pendulum.datetime(2026, 2, 1, tz="UTC")
hours = count()


def record(call: str, context: Any) -> None:
    """Append a line for a call."""
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    with Path(os.environ["AIRFLOW_HOME"], "e2e_task_end.txt").open("a") as file:
        file.write(f"{call} {ti.task_id} {map_index} {ti.task.was_deferred}\n")


def callback(context: Any) -> None:
    """Record a success callback."""
    record("callback", context)


def hook(context: Any, result: Any = None) -> None:
    """Record the argument `post_execute`."""
    record("hook", context)


class WithExecuteComplete(OnDemandFlowRunOperator):
    """Operator that overrides `execute_complete`."""

    def execute_complete(self, context: Any, event: Any) -> str:
        """Record the call."""
        flow_run_id = super().execute_complete(context, event)
        record("execute_complete", context)
        return flow_run_id


class WithPostExecute(OnDemandFlowRunOperator):
    """Operator that overrides `post_execute`."""

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Record the call."""
        record("post_execute", context)


def window() -> dict[str, str]:
    """Return the next hour."""
    start = BEGIN.add(hours=next(hours))
    return {"window_start": start.isoformat(), "window_end": start.add(hours=1).isoformat()}


FLOW = {"flow_id": str(uuid5(NAMESPACE_URL, "e2e_task_end"))}
WAIT = {"deferrable": True, "poll_interval": 1, "wait_for_completion": True}

with DAG(dag_id="e2e_task_end", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    OnDemandFlowRunOperator(task_id="plain_callback", on_success_callback=callback, **FLOW, **WAIT, **window())
    WithExecuteComplete(task_id="plain_complete", **FLOW, **WAIT, **window())
    WithPostExecute(task_id="plain_post", **FLOW, **WAIT, **window())
    OnDemandFlowRunOperator(task_id="plain_hook", post_execute=hook, **FLOW, **WAIT, **window())
    mapped = OnDemandFlowRunOperator.partial(
        task_id="mapped_callback",
        on_success_callback=callback,
        map_index_template="hour {{ task.window_start[11:13] }} of {{ task.flow_run_summary.id }}",
        **FLOW,
        **WAIT,
    ).expand_kwargs([window(), window()])
    WithExecuteComplete.partial(task_id="mapped_complete", **FLOW, **WAIT).expand_kwargs([window()])
    WithPostExecute.partial(task_id="mapped_post", **FLOW, **WAIT).expand_kwargs([window()])

    create = OnDemandFlowRunOperator(task_id="create", **FLOW, **window())
    waiting = {"poke_interval": 1, "timeout": 120}
    FlowRunSensor(
        task_id="sensor_callback",
        flow_run_id=create.output,
        start_from_trigger=True,
        on_success_callback=callback,
        **waiting,
    )
    FlowRunSensor.partial(
        task_id="sensor_mapped",
        deferrable=True,
        on_success_callback=callback,
        map_index_template="{{ task.flow_run_id }}",
        **waiting,
    ).expand(flow_run_id=[create.output])
    template = FlowRunSensor(
        task_id="sensor_template",
        flow_run_id="{{ ti.xcom_pull(task_ids='create') }}",
        start_from_trigger=True,
        **waiting,
    )
    create >> template
