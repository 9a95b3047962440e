# SPDX-License-Identifier: Apache-2.0
"""Ingest every dataflow of a YAML file once a day, with one task for each entry.

`airflow flowservice flows` lists the dataflows of a sandbox. The keys of the file are task ids, and the values are
arguments of the operator.
"""

from __future__ import annotations

from pathlib import Path

import pendulum
import yaml
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

DATAFLOWS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")) or {}

with DAG(
    dag_id="flowservice_from_yaml",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2},
    doc_md=__doc__,
    tags=["flowservice"],
):
    for task_id, arguments in DATAFLOWS.items():
        OnDemandFlowRunOperator(task_id=task_id, **{"wait_for_completion": True, "deferrable": True, **arguments})
