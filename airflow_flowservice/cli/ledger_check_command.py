# SPDX-License-Identifier: Apache-2.0
"""Command `airflow flowservice ledger check`: compare the ledger with Flow Service."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_flowservice.cli.ledger_command import ledger_command, opened_ledger, range_of
from airflow_flowservice.cli.output import (
    CommandError,
    airflow_console,
    print_line,
    print_rows,
    quiet_retries,
    quiet_stdout,
    write_document,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from airflow_flowservice.api.client import FlowServiceClient
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.checks.ledger_check import LedgerDifference
    from airflow_flowservice.ledger.entry import LedgerEntry
    from airflow_flowservice.windows.window import IngestionWindow

_CLOCK_SKEW = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """Difference of a dataflow."""

    flow_id: str
    difference: LedgerDifference

    def to_json(self) -> dict[str, Any]:
        from airflow_flowservice.windows.window import window_to_json

        found = self.difference
        return {
            "flow_id": self.flow_id,
            **window_to_json(found.window),
            "flow_run_id": found.flow_run_id,
            "problem": found.problem,
            "owner": found.owner,
        }


@ledger_command
def check_ledger(arguments: argparse.Namespace) -> int:
    """Print the differences, and exit with 0 if there is none, with 1 if there are some."""
    with quiet_stdout(), quiet_retries():
        count, found = _check(arguments)
    if arguments.output in ("json", "yaml"):
        write_document([each.to_json() for each in found], output=arguments.output)
    else:
        console = airflow_console()
        if found:
            print_rows(console, [_row(each) for each in found], output=arguments.output)
        if arguments.output == "table":
            print_line(console, f"{count} entries and the flow runs of Flow Service: {len(found)} differences.")
    return 1 if found else 0


def _check(arguments: argparse.Namespace) -> tuple[int, list[_Checked]]:
    """Return the number of entries, and the differences.

    :raises CommandError: there is no dataflow to check.
    """
    from airflow_flowservice._airflow import connections
    from airflow_flowservice.hooks import client_of

    within = range_of(arguments, is_required=False)
    conn_id = arguments.conn_id or "flowservice_default"
    with client_of(connections.stored_connection(conn_id)) as client:
        entries = _entries(arguments, client)
        if not entries:
            raise CommandError(
                "the ledger has no entry of this connection's organization and sandbox; give --flow-id to list the "
                "successful flow runs of a dataflow"
            )
        found = [
            _Checked(flow_id=flow_id, difference=difference)
            for flow_id, of_flow in sorted(entries.items())
            for difference in _differences(client, flow_id, of_flow, within=within)
        ]
    return sum(map(len, entries.values())), found


def _entries(arguments: argparse.Namespace, client: FlowServiceClient) -> dict[str, list[LedgerEntry]]:
    """Return the entries of each dataflow of the connection's sandbox."""
    from airflow_flowservice.ledger.entry import DataflowKey

    flow_id = arguments.flow_id
    found: defaultdict[str, list[LedgerEntry]] = defaultdict(list)
    if flow_id is not None:
        found[flow_id] = []
    dataflows = None if flow_id is None else DataflowKey(client.org_id, client.sandbox, flow_id).spellings
    with opened_ledger(arguments) as ledger:
        for entry in ledger.entries(dataflows):
            if (entry.dataflow.organization, entry.dataflow.sandbox) == (client.org_id, client.sandbox):
                found[entry.dataflow.canonical.flow_id].append(entry)
    return found


def _differences(
    client: FlowServiceClient, flow_id: str, entries: list[LedgerEntry], *, within: IngestionWindow | None
) -> Iterator[LedgerDifference]:
    from airflow_flowservice.checks.ledger_check import compare_ledger
    from airflow_flowservice.exceptions import RunNotFoundError

    def find(flow_run_id: str) -> FlowRun | None:
        try:
            return client.get_run(flow_run_id)
        except RunNotFoundError:
            return None

    # A flow run is created after the end of its window. The margin allows for clock differences.
    since = within.start - _CLOCK_SKEW if within is not None and within.start.year > 1970 else None
    runs = client.list_runs(flow_id=flow_id, created_since=since)
    yield from compare_ledger(entries, runs, find=find, within=within)


def _row(checked: _Checked) -> dict[str, str]:
    from airflow_flowservice.windows.window import iso

    found = checked.difference
    return {
        "dataflow": checked.flow_id,
        "from": iso(found.window.start) if found.window else "",
        "to": iso(found.window.end) if found.window else "",
        "flow_run": found.flow_run_id,
        "problem": found.problem,
        "owner": found.owner or "",
    }
