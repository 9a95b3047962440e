# SPDX-License-Identifier: Apache-2.0
"""`airflow flowservice flows`: list the dataflows of a sandbox, or print a DAG file for them."""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice.cli.output import (
    CommandError,
    airflow_console,
    print_rows,
    quiet_retries,
    quiet_stdout,
    write_document,
    write_error,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from airflow_flowservice.api.client import FlowServiceClient
    from airflow_flowservice.api.models import Flow, FlowSpec

_PAGE = 100
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


@dataclass(frozen=True, kw_only=True)
class ListedFlow:
    """A dataflow with its kind of source.

    :param source: name of the flow specification, such as `CRMToAEP`; its id if it cannot be read.
    :param needs_delta_column: True for table-based sources; None if this is unknown.
    """

    flow: Flow
    source: str | None
    needs_delta_column: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: ids and texts of Adobe, times in ISO 8601 (UTC)."""
        from airflow_flowservice.api.json_values import instant_at, text_at

        details = ("lastRunDetails",)
        started = instant_at(self.flow.raw, *details, "startedAtUTC")
        completed = instant_at(self.flow.raw, *details, "completedAtUTC")
        return {
            "flow_id": self.flow.id,
            "name": self.flow.name,
            "state": self.flow.state or None,
            "schedule": self.flow.frequency,
            "one_time": self.flow.one_time,
            "source": self.source,
            "table_based": self.needs_delta_column,
            "delta_column": self.flow.delta_column.name if self.flow.delta_column else None,
            "last_run_id": text_at(self.flow.raw, *details, "id"),
            "last_run_status": text_at(self.flow.raw, *details, "state"),
            "last_run_started": started.isoformat() if started else None,
            "last_run_completed": completed.isoformat() if completed else None,
        }


def flows(arguments: argparse.Namespace) -> NoReturn:
    """Print the dataflows and exit: 0 if there are some, 2 if there is none or Flow Service cannot be used."""
    from airflow_flowservice.exceptions import FlowServiceError

    try:
        with quiet_stdout(), quiet_retries():
            found = _read(arguments)
    except (CommandError, FlowServiceError) as error:
        write_error(CommandError(str(error)))
        sys.exit(2)
    if arguments.output in ("json", "yaml"):
        write_document([each.to_dict() for each in found], output=arguments.output)
    elif arguments.output == "dag":
        sys.stdout.write(dag_file_of(found, conn_id=arguments.conn_id))
    else:
        print_rows(airflow_console(), [_row(each) for each in found], output=arguments.output)
    sys.exit(0)


def _read(arguments: argparse.Namespace) -> list[ListedFlow]:
    """Return the selected dataflows, sorted by name.

    :raises CommandError: no dataflow is selected, or a selected one is not in the sandbox.
    """
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.hooks import client_of

    with client_of(connections.stored_connection(arguments.conn_id)) as client:
        known = list(client.list_flows(limit=_PAGE))
        chosen = list(_selected(known, arguments))
        if not chosen:
            raise CommandError(_nothing_to_show(client, known=len(known), chosen=arguments.flow_id))
        return sorted(_with_sources(client, chosen), key=lambda it: (it.flow.name or "", it.flow.id))


def _selected(known: Iterable[Flow], arguments: argparse.Namespace) -> Iterator[Flow]:
    by_id = {flow.id: flow for flow in known}
    if unknown := [flow_id for flow_id in arguments.flow_id if flow_id not in by_id]:
        raise CommandError(
            f"The connection's sandbox has no dataflow {', '.join(unknown)}; run the command without --flow-id"
        )
    for flow in by_id.values():
        # A dataflow without a frequency may be one-time, so it is not hidden.
        if arguments.one_time and flow.one_time is False:
            continue
        if not arguments.flow_id or flow.id in arguments.flow_id:
            yield flow


def _nothing_to_show(client: FlowServiceClient, *, known: int, chosen: Collection[str]) -> str:
    if chosen:
        return f"None of the dataflows of --flow-id is one-time: {', '.join(chosen)}; omit --one-time to list them"
    place = f"sandbox {client.sandbox} of {client.org_id}"
    if known:
        return f"None of the {known} dataflows in {place} is one-time; omit --one-time to list all of them"
    return f"There is no dataflow in {place}; check the connection's sandbox, or create one in Experience Platform"


def _with_sources(client: FlowServiceClient, chosen: Iterable[Flow]) -> Iterator[ListedFlow]:
    """Yield each dataflow with its source; each specification is read once."""
    specs: dict[str, FlowSpec | None] = {}
    for flow in chosen:
        spec_id = flow.flow_spec_id
        if spec_id and spec_id not in specs:
            specs[spec_id] = _spec(client, spec_id)
        spec = specs.get(spec_id or "")
        yield ListedFlow(
            flow=flow,
            source=(spec.name if spec else None) or spec_id,
            needs_delta_column=spec.needs_delta_column if spec else None,
        )


def _spec(client: FlowServiceClient, spec_id: str) -> FlowSpec | None:
    """Return the specification; None if it cannot be read, because the list is useful without it."""
    from airflow_flowservice.exceptions import FlowServiceError

    try:
        return client.get_flow_spec(spec_id)
    except FlowServiceError:
        return None


def _row(listed: ListedFlow) -> dict[str, str]:
    """Return the cells of a table's row."""
    values = listed.to_dict()
    last_run = " ".join(
        filter(None, (values["last_run_status"], values["last_run_completed"] or values["last_run_started"]))
    )
    schedule = "one-time" if values["one_time"] else values["schedule"]
    return {
        "flow_id": values["flow_id"],
        "name": values["name"] or "",
        "state": values["state"] or "",
        "schedule": schedule or "",
        "source": values["source"] or "",
        "last run": last_run,
    }


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
