# SPDX-License-Identifier: Apache-2.0
"""DAGs of `test_asking.py`: tasks whose lost responses only a person can resolve."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

SETTINGS: dict[str, Any] = {
    "on_uncertain": "ask",
    "ask_timeout": timedelta(hours=1),
    "uncertain_patience": 20,
    "wait_for_completion": True,
    "poll_interval": 1,
    # On a busy machine, Airflow starts tasks again.
    "retries": 6,
    "retry_delay": timedelta(seconds=1),
}


class DyingOperator(OnDemandFlowRunOperator):
    """OnDemandFlowRunOperator whose worker dies when it has received the answer, the first time."""

    def execute_after_answer(self, context: Any, **arguments: Any) -> str:
        """Kill this process once, before it uses the answer."""
        marker = Path(os.environ["AIRFLOW_HOME"]) / f"{self.dag_id}.died"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute_after_answer(context, **arguments)


def flow_of(dag_id: str) -> str:
    """Return the id of a DAG's dataflow."""
    return str(uuid5(NAMESPACE_URL, dag_id))


with DAG("e2e_asking", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    OnDemandFlowRunOperator.partial(
        task_id="ingest", flow_id=flow_of("e2e_asking"), deferrable=True, **SETTINGS
    ).expand_kwargs(
        [{"window_start": f"2026-02-0{day}T00:00:00Z", "window_end": f"2026-02-0{day + 1}T00:00:00Z"} for day in (1, 2)]
    )

with DAG("e2e_asking_dying", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    DyingOperator(
        task_id="ingest",
        flow_id=flow_of("e2e_asking_dying"),
        window_start="2026-02-01T00:00:00Z",
        window_end="2026-02-02T00:00:00Z",
        deferrable=False,
        **SETTINGS,
    )
