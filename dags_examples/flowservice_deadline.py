# SPDX-License-Identifier: Apache-2.0
"""Ingest one day, and send an e-mail if the DAG run has not ended three hours after it was queued.

Deadline alerts need Airflow 3.1. The e-mail has dataflow, window, flow run and its page.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from airflow_flowservice.alerts import deadline_callback
from airflow_flowservice.operators import OnDemandFlowRunOperator

EMAIL = {
    "from_email": "airflow@example.com",
    "to": "on-call@example.com",
    "subject": "Ingestion takes too long",
    "html_content": "<pre>{{ flowservice_message | e }}</pre>",
}

with DAG(
    dag_id="flowservice_deadline",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2},
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=3),
        callback=deadline_callback(SmtpNotifier, EMAIL),
    ),
    doc_md=__doc__,
    tags=["flowservice"],
):
    OnDemandFlowRunOperator(
        task_id="ingest",
        flow_id="3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
        delta_column="updated_at",
        wait_for_completion=True,
        deferrable=True,
    )
