"""`airflow flowservice check`: whether a connection and a dataflow are fit for on-demand ingestion."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice.cli.output import output_format, quiet_retries, quiet_stdout, write_document

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from airflow_flowservice.checks.findings import Finding
    from airflow_flowservice.exceptions import FlowServiceError

CONNECTION, SETTINGS = "connection", "settings"
# A doctor tells of trouble instead of waiting for its end.
_ATTEMPTS = 2


def check(arguments: argparse.Namespace) -> NoReturn:
    """Print what was found, line by line, and exit: 0 if nothing is wrong, else 1."""
    from airflow_flowservice.cli.finding_lines import finding_printer

    found = []
    output = output_format(arguments)
    show = None if output in ("json", "yaml") else finding_printer(sys.stdout)
    with quiet_stdout(), quiet_retries():
        for finding in findings_of(arguments.conn_id, flow_id=arguments.flow_id):
            found.append(finding)
            if show:
                show(finding)
    if show is None:
        write_document([finding.to_dict() for finding in found], output=output)
    sys.exit(1 if any(finding.wrong for finding in found) else 0)


def findings_of(conn_id: str, *, flow_id: str | None) -> Iterator[Finding]:
    """Every check in turn; after one that fails, those that can still be made."""
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
    yield from _of_connection(connection, flow_id=flow_id)


def _of_connection(connection: Any, *, flow_id: str | None) -> Iterator[Finding]:
    from airflow_flowservice.checks import checkup, findings
    from airflow_flowservice.cli import client_settings
    from airflow_flowservice.get_provider_info import CONNECTION_FIELDS
    from airflow_flowservice.hooks import client_of

    errors = client_settings.errors_of(connection)
    client = client_of(client_settings.without(connection, errors, max_attempts=_ATTEMPTS))
    yield from (_of_setting(name, error) for name, error in errors.items())
    if unknown := client_settings.unknown_extras(connection):
        remedy = f"use these alone: {', '.join(CONNECTION_FIELDS)}"
        yield findings.note(SETTINGS, f"extra has {', '.join(unknown)}, which nothing reads", remedy=remedy)
    if not errors:
        yield findings.ok(SETTINGS, f"Flow Service at {client.base_url}, IMS at {client.ims_url}")
    with client:
        yield from checkup.everything(
            client,
            flow_id=flow_id,
            tokens=client_settings.FOR_TOKENS.isdisjoint(errors),
            platform=client_settings.FOR_THE_PLATFORM.isdisjoint(errors),
        )


def _of_setting(name: str, error: FlowServiceError) -> Finding:
    """What is wrong with one field; the error itself speaks of the client's arguments."""
    from airflow_flowservice.checks.findings import wrong
    from airflow_flowservice.get_provider_info import CONNECTION_FIELDS

    if error.remedy != error.default_remedy:
        return wrong(SETTINGS, error)
    field = f"{name} in its extra" if name in CONNECTION_FIELDS else f"its {name}"
    return wrong(SETTINGS, error, remedy=f"edit the connection: correct {field}")
