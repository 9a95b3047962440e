# SPDX-License-Identifier: Apache-2.0
"""Complete backfills as Airflow's scheduler does, but without the wait for it, and repeat lost failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

# The update of the scheduler's `_mark_backfills_complete`, for one DAG.
_COMPLETE = """
    UPDATE backfill SET completed_at = now() WHERE dag_id = :dag_id AND completed_at IS NULL
    AND EXISTS (SELECT 1 FROM backfill_dag_run WHERE backfill_dag_run.backfill_id = backfill.id)
    AND NOT EXISTS (
        SELECT 1 FROM dag_run WHERE dag_run.backfill_id = backfill.id AND dag_run.state IN ('queued', 'running')
    )
"""


def complete_backfills(airflow: LocalAirflow, dag_id: str) -> None:
    """Mark the ended backfills of a DAG as completed, and wait until all of its backfills are.

    Airflow refuses another backfill of the DAG before. The scheduler marks them only every 30 seconds.
    """
    from sqlalchemy import create_engine, text

    engine = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])

    def are_completed() -> bool:
        with engine.begin() as connection:
            connection.execute(text(_COMPLETE), {"dag_id": dag_id})
        found = airflow.api("GET", f"/backfills?dag_id={dag_id}")["backfills"]
        return all(each["completed_at"] for each in found)

    wait_until(are_completed, what=f"the end of all backfills of {dag_id}")
    engine.dispose()


def repeat_lost_failures(airflow: LocalAirflow, dag_id: str) -> None:
    """Clear the task of a failed DAG run until it has read that its flow run failed.

    Airflow's scheduler may fail the last try while a worker starts for it. Then the outcome of the window is unknown.
    """
    for _ in range(5):
        runs = [run["dag_run_id"] for run in airflow.dag_runs(dag_id) if run["state"] == "failed"]
        lost = [run_id for run_id in runs if not _has_failed(airflow.xcom(dag_id, run_id, "ingest", "flow_run"))]
        if not lost:
            return
        for run_id in lost:
            body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["ingest"], "only_failed": False}
            airflow.api("POST", f"/dags/{dag_id}/clearTaskInstances", json={**body, "reset_dag_runs": True})
        airflow.wait_for_runs(dag_id, count=len(runs), timeout=240)
    raise AssertionError(f"the task of {lost} ended five times before it read the failure of its flow run")


def _has_failed(flow_run: dict[str, Any] | None) -> bool:
    return flow_run is not None and flow_run["status"] == "failed"
