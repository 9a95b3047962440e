# SPDX-License-Identifier: Apache-2.0
"""Check every hour that the dataflows of other DAGs are not late, and send an e-mail if one is.

This also finds dataflows whose DAG is paused, fails to parse, or was deleted.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG

from airflow_flowservice.alerts import FlowRunAlert
from airflow_flowservice.freshness import FlowFreshnessSensor

# The longest accepted lag of each dataflow.
MAX_LAGS = {
    "3abea21c-7e36-4be1-bec1-d3bad0e3e0de": timedelta(hours=26),
    "c9cef9cb-c934-4467-8ef9-cbc934546741": timedelta(hours=2),
}
EMAIL = FlowRunAlert(
    SmtpNotifier(
        from_email="airflow@example.com",
        to="on-call@example.com",
        subject="Late dataflow",
        html_content="<pre>{{ flowservice_message | e }}</pre>",
    )
)

with DAG(
    dag_id="flowservice_watch",
    schedule="0 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"on_failure_callback": EMAIL},
    doc_md=__doc__,
    tags=["flowservice"],
):
    FlowFreshnessSensor.partial(task_id="watch", map_index_template="{{ task.flow_id }}").expand_kwargs(
        [{"flow_id": flow_id, "max_lag": max_lag.total_seconds()} for flow_id, max_lag in MAX_LAGS.items()]
    )
