# SPDX-License-Identifier: Apache-2.0
"""`airflow flowservice check`: check a connection and a dataflow for on-demand ingestion."""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice.checks.findings import Verdict
from airflow_flowservice.cli.output import output_format, quiet_retries, quiet_stdout, write_document

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import IO

    from rich.table import Table

    from airflow_flowservice.checks.findings import Finding
    from airflow_flowservice.exceptions import FlowServiceError

CONNECTION, SETTINGS = "connection", "settings"
# The command reports an outage instead of waiting for its end.
_MAX_ATTEMPTS = 2
# Fields of the connection without which a request cannot be sent; all other fields have a default.
_NEEDED_BY_IMS = frozenset({"login", "password", "extra", "access_token", "ims_url", "scopes"})
_NEEDED_BY_FLOW_SERVICE = _NEEDED_BY_IMS | {"host", "org_id", "sandbox"}
_STYLES = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.NOT_CHECKED: "dim", Verdict.WRONG: "bold red"}
_VERDICT_WIDTH, _CHECK_WIDTH = 11, 12


def check(arguments: argparse.Namespace) -> NoReturn:
    """Print the finding of each check on a line, and exit with 0 if nothing is wrong, otherwise with 1."""
    found = []
    output = output_format(arguments)
    show = None if output in ("json", "yaml") else finding_printer(sys.stdout)
    with quiet_stdout(), quiet_retries():
        of_dag = _findings_of_dag(arguments.dag_id) if arguments.dag_id else ()
        for finding in chain(findings_of(arguments.conn_id, flow_id=arguments.flow_id), of_dag):
            found.append(finding)
            if show:
                show(finding)
    if show is None:
        write_document([finding.to_dict() for finding in found], output=output)
    sys.exit(1 if any(finding.wrong for finding in found) else 0)


def findings_of(conn_id: str, *, flow_id: str | None) -> Iterator[Finding]:
    """Yield the finding of each check; after a failed check, the checks that depend on it are not made."""
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.checks.findings import note, ok, wrong
    from airflow_flowservice.exceptions import FlowServiceError

    try:
        connection = connections.stored_connection(conn_id)
    except FlowServiceError as error:
        yield wrong(CONNECTION, error)
        return
    if connection.conn_type == "flowservice":
        yield ok(CONNECTION, f"{conn_id!r} can be read")
    else:
        remedy = "set its type to flowservice ('Adobe Flow Service'), whose form has the right fields"
        yield note(CONNECTION, f"{conn_id!r} can be read, and is of type {connection.conn_type!r}", remedy=remedy)
    yield from _findings_of_connection(connection, flow_id=flow_id)


def _findings_of_dag(dag_id: str) -> Iterator[Finding]:
    from airflow_flowservice._airflow.dag_pools import pool_findings
    from airflow_flowservice.checks.findings import POOL, Finding
    from airflow_flowservice.cli.metadata_session import metadata_session
    from airflow_flowservice.cli.output import CommandError

    try:
        with metadata_session() as session:
            yield from pool_findings(session, dag_id)
    except CommandError as error:
        yield Finding(check=POOL, verdict=Verdict.NOT_CHECKED, message=str(error))


def _findings_of_connection(connection: Any, *, flow_id: str | None) -> Iterator[Finding]:
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.checks import checkup, findings

    settings = connections.parse_connection(connection)
    errors: dict[str, FlowServiceError] = {**settings.errors}
    if org_id_error := settings.org_id_error:
        errors["org_id"] = org_id_error
    yield from (_finding_of_setting(name, error) for name, error in errors.items())
    with settings.create_client(on_token=connections.mask, max_attempts=_MAX_ATTEMPTS, reuses_tokens=False) as client:
        if not errors:
            yield findings.ok(SETTINGS, f"Flow Service at {client.base_url}, IMS at {client.ims_url}")
        yield from checkup.everything(
            client,
            flow_id=flow_id,
            tokens=_NEEDED_BY_IMS.isdisjoint(errors),
            platform=_NEEDED_BY_FLOW_SERVICE.isdisjoint(errors),
        )


def _finding_of_setting(name: str, error: FlowServiceError) -> Finding:
    """Return the finding of an invalid setting, with a remedy that names the field of the connection."""
    from airflow_flowservice.checks.findings import wrong
    from airflow_flowservice.get_provider_info import CONNECTION_FIELDS

    # The error's message names the client's parameter.
    if error.remedy != error.default_remedy:
        return wrong(SETTINGS, error)
    field = f"{name} in its extra" if name in CONNECTION_FIELDS else f"its {name}"
    return wrong(SETTINGS, error, remedy=f"edit the connection: correct {field}")


def finding_printer(stream: IO[str]) -> Callable[[Finding], None]:
    """Return a function that prints a finding: with colours and wrapped in a terminal, or else as one plain line."""
    from rich.console import Console

    console = Console(file=stream)

    def show(finding: Finding) -> None:
        if console.is_terminal:
            console.print(_row(finding))
        else:
            line = f"{finding.verdict.value:<{_VERDICT_WIDTH}}  {finding.check:<{_CHECK_WIDTH}}  {finding}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return show


def _row(finding: Finding) -> Table:
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=_VERDICT_WIDTH, style=_STYLES[finding.verdict])
    row.add_column(width=_CHECK_WIDTH)
    row.add_column(overflow="fold")
    row.add_row(finding.verdict.value, finding.check, Text(finding.message))
    if finding.remedy:
        row.add_row("", "", Text(f"What to do: {finding.remedy}", style="italic"))
    return row
