# SPDX-License-Identifier: Apache-2.0
"""Create the requests to Airflow's REST API that fill windows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_flowservice.coverage.fill_plan import FillAction
from airflow_flowservice.windows.window import iso, window_to_json

if TYPE_CHECKING:
    from airflow_flowservice.coverage.fill_plan import FilledWindow, FillStep

MAX_ACTIVE_RUNS = 10  # the default of `airflow backfill create`


@dataclass(frozen=True, kw_only=True)
class RestRequest:
    """`POST` request to Airflow's REST API.

    :param path: path below Airflow's address.
    """

    path: str
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"POST {self.path} {json.dumps(self.body)}"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"method": "POST", "path": self.path, "body": self.body}


def rest_requests(step: FillStep, *, now: datetime, max_active_runs: int = MAX_ACTIVE_RUNS) -> list[RestRequest]:
    """Return the requests of a step: one for a backfill, or one for each window.

    :param now: aware; part of the ids of DAG runs that ingest windows again.
    """
    if step.action is FillAction.BACKFILL:
        return [_backfill(step, max_active_runs=max_active_runs)]
    create = _clear if step.action is FillAction.CLEAR else _trigger
    return [create(step, each, now) for each in step.windows]


def run_id_of(step: FillStep, filled: FilledWindow, *, now: datetime) -> str:
    """Return the id of the DAG run that a trigger creates.

    Airflow refuses a second DAG run with the same id, so a window is not triggered twice.
    """
    edges = f"{iso(filled.window.start)}__{iso(filled.window.end)}"
    return f"flowservice_restate__{edges}__{iso(now)}" if step.restate else f"flowservice_fill__{edges}"


def restate_conf(step: FillStep) -> dict[str, Any]:
    """Return the conf that requests to ingest windows again; empty if the step does not.

    A DAG run has all tasks of its DAG, so the conf names the dataflow.
    """
    if not step.restate:
        return {}
    return {"flowservice": {"restate": True if step.flow_id is None else [step.flow_id]}}


def conf_of_run(step: FillStep, filled: FilledWindow) -> dict[str, Any]:
    """Return the conf of the DAG run that a trigger creates."""
    return {**window_to_json(filled.window), **restate_conf(step)}


def _backfill(step: FillStep, *, max_active_runs: int) -> RestRequest:
    first, last = step.dates
    body = {
        "dag_id": step.dag_id,
        "from_date": first.astimezone(timezone.utc).isoformat(),
        "to_date": last.astimezone(timezone.utc).isoformat(),
        "reprocess_behavior": step.reprocess,
        "max_active_runs": max_active_runs,
    }
    return RestRequest(
        path="/api/v2/backfills", body={**body, **({"dag_run_conf": restate_conf(step)} if step.restate else {})}
    )


def _clear(step: FillStep, filled: FilledWindow, now: datetime) -> RestRequest:
    is_mapped = filled.map_index >= 0
    body = {
        "dry_run": False,
        "dag_run_id": filled.dag_run_id,
        "task_ids": [[filled.task_id, filled.map_index] if is_mapped else filled.task_id],
        "only_failed": filled.has_failed_task,
        "include_downstream": filled.has_failed_task,
        "include_upstream": filled.task_state == "upstream_failed",
    }
    return RestRequest(path=f"/api/v2/dags/{quote(step.dag_id, safe='')}/clearTaskInstances", body=body)


def _trigger(step: FillStep, filled: FilledWindow, now: datetime) -> RestRequest:
    body = {
        "dag_run_id": run_id_of(step, filled, now=now),
        "logical_date": None,
        "conf": conf_of_run(step, filled),
    }
    return RestRequest(path=f"/api/v2/dags/{quote(step.dag_id, safe='')}/dagRuns", body=body)
