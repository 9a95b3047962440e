# SPDX-License-Identifier: Apache-2.0
"""A DAG that does not use Flow Service: it waits in the triggerer, then returns a value."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, task

with DAG(
    dag_id="e2e_plain",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
):
    wait = TimeDeltaSensor(task_id="wait", delta=timedelta(seconds=2), deferrable=True)

    @task
    def answer(number: int) -> dict[str, int]:
        """Print and return a number."""
        print(f"the number is {number}")
        return {"number": number}

    wait >> answer(42)
