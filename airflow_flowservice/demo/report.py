# SPDX-License-Identifier: Apache-2.0
"""Final report of the demo: a table of the windows and the result of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class WindowRow:
    """Row of one window in the report.

    :param window: start and end of the window.
    :param flow_run: id of the flow run.
    :param status: status of the flow run, or state of the task if there is no flow run.
    :param records: number of ingested records; None if unknown.
    :param succeeded: whether both the DAG run and the flow run succeeded.
    :param log: end of the task log if the DAG run failed.
    """

    window: str
    flow_run: str
    status: str
    records: int | None
    succeeded: bool
    log: str = ""


@dataclass(frozen=True)
class LedgerResult:
    """Counts of missing and duplicated records in the backfilled windows."""

    missing: int
    duplicated: int

    @property
    def is_exactly_once(self) -> bool:
        """Return whether each record was ingested exactly once."""
        return self.missing == 0 and self.duplicated == 0

    def __str__(self) -> str:
        return f"missing {self.missing}, duplicated {self.duplicated}"


def window_row(*, run: Mapping[str, Any], flow_run: Mapping[str, Any] | None) -> WindowRow:
    """Return the row of a DAG run.

    :param run: the DAG run in the format of Airflow's REST API.
    :param flow_run: the XCom ``flow_run`` of the ingesting task; None if there is none.
    """
    if flow_run is None:
        return WindowRow(
            window=f"window of logical date {run['logical_date']}",
            flow_run="none",
            status=f"task {run['state']}",
            records=None,
            succeeded=False,
        )
    records = flow_run.get("output_records", flow_run.get("records"))
    return WindowRow(
        window=f"{_short_time(flow_run['window_start'])} to {_short_time(flow_run['window_end'])}",
        flow_run=str(flow_run["id"]),
        status=str(flow_run["status"]),
        records=None if records is None else int(records),
        succeeded=run["state"] == "success" and flow_run["status"] == "success",
    )


def print_report(console: Console, *, rows: Sequence[WindowRow], result: LedgerResult) -> None:
    """Print the table of the windows and the result of the ledger."""
    table = Table(box=SIMPLE_HEAD, title="Windows (UTC; the end is exclusive)", title_justify="left")
    for name in ("window", "flow run", "status"):
        table.add_column(name, overflow="fold")
    table.add_column("records", justify="right")
    for row in rows:
        colour = "green" if row.succeeded else "red"
        records = "" if row.records is None else f"{row.records:,}"
        table.add_row(row.window, row.flow_run, f"[{colour}]{row.status}[/]", records)
    console.print(table)
    for row in rows:
        if row.log:
            console.print(f"Last lines of the log of {row.window}:\n{row.log}\n", markup=False, highlight=False)
    colour = "bold green" if result.is_exactly_once else "bold red"
    console.print(f"Records in Flow Service's ledger: [{colour}]{result}[/]", highlight=False)


def _short_time(instant: str) -> str:
    """Return only the date for midnight UTC, otherwise the date and the time in minutes."""
    parsed = datetime.fromisoformat(instant.replace("Z", "+00:00"))
    return f"{parsed:%Y-%m-%d}" if (parsed.hour, parsed.minute) == (0, 0) else f"{parsed:%Y-%m-%d %H:%M}"
