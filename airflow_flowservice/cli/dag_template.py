# SPDX-License-Identifier: Apache-2.0
"""DAG file for dataflows, as `airflow flowservice flows --output dag` prints it."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_flowservice.cli.flows_command import ListedFlow

_TEMPLATE = '''\
"""Ingest each dataflow once a day. Change schedule, start date and tasks as needed."""

import pendulum
from airflow.sdk import DAG

from airflow_flowservice.operators import OnDemandFlowRunOperator

# The arguments of each dataflow, by task id.
DATAFLOWS = {{
{entries}
}}

with DAG(
    dag_id="ingest_dataflows",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={{"retries": 2}},
) as dag:
    for task_id, arguments in DATAFLOWS.items():
        OnDemandFlowRunOperator(
            task_id=task_id,
            flowservice_conn_id={conn_id},
            wait_for_completion=True,
            deferrable=True,
            **arguments,
        )
'''
# Airflow allows 250 characters in the id of a task.
_MAX_TASK_ID = 80


def dag_file_of(listed: Sequence[ListedFlow], *, conn_id: str) -> str:
    """Return the text of a DAG file with one task for each dataflow."""
    entries = [_entry(task_id, each) for task_id, each in zip(_task_ids(listed), listed, strict=True)]
    return _TEMPLATE.format(entries="\n".join(entries), conn_id=_literal(conn_id))


def _entry(task_id: str, listed: ListedFlow) -> str:
    lines = [f"    {_literal(task_id)}: {{"]
    if listed.flow.name:
        # Line breaks are escaped, so a name cannot end the comment.
        lines.append(f"        # {_literal(listed.flow.name)}")
    if listed.flow.one_time is False:
        lines.append(f"        # scheduled ({_literal(listed.flow.frequency or '')}): on-demand flow runs are refused")
    if not listed.flow.enabled:
        lines.append(f"        # {_literal(listed.flow.state)}: enable the dataflow first")
    lines.append(f'        "flow_id": {_literal(listed.flow.id)},')
    if listed.needs_delta_column and listed.flow.delta_column is None:
        lines.append('        # "delta_column": "updated_at",  # required: the column that identifies new rows')
    return "\n".join([*lines, "    },"])


def _literal(text: str) -> str:
    """Return a string literal of Python, in double quotes and with ASCII characters only."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'


def _task_ids(listed: Sequence[ListedFlow]) -> Iterator[str]:
    """Yield a unique task id for each dataflow, from its name or its id."""
    used: set[str] = set()
    for each in listed:
        ascii_name = unicodedata.normalize("NFKD", each.flow.name or "").encode("ascii", "ignore").decode()
        base = re.sub(r"[^a-z0-9]+", "_", ascii_name.lower())[:_MAX_TASK_ID].strip("_") or f"flow_{each.flow.id}"
        task_id = base if base not in used else f"{base}_{each.flow.id}"
        used.add(task_id)
        yield task_id
