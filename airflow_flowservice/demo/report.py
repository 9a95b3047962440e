"""What the demo shows at its end: a row for each window, and the ledger's verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One window: what Airflow's run and the flow run say about it; the end of the log if it failed."""

    window: str
    flow_run: str
    status: str
    records: int | None
    succeeded: bool
    log: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the ledger says about the backfilled windows: counts of records."""

    missing: int
    duplicated: int

    @property
    def good(self) -> bool:
        """Whether each record was ingested exactly once."""
        return self.missing == 0 and self.duplicated == 0

    def __str__(self) -> str:
        return f"missing {self.missing}, duplicated {self.duplicated}"


def row_of(*, run: Mapping[str, Any], flow_run: Mapping[str, Any] | None) -> Row:
    """The row of a DAG run.

    :param run: as Airflow's REST API shows it.
    :param flow_run: the XCom ``flow_run`` of the task that ingested; None when there is none.
    """
    if flow_run is None:
        return Row(
            window=f"of the run {run['logical_date']}",
            flow_run="none",
            status=f"task {run['state']}",
            records=None,
            succeeded=False,
        )
    records = flow_run.get("output_records", flow_run.get("records"))
    return Row(
        window=f"{_short(flow_run['window_start'])} to {_short(flow_run['window_end'])}",
        flow_run=str(flow_run["id"]),
        status=str(flow_run["status"]),
        records=None if records is None else int(records),
        succeeded=run["state"] == "success" and flow_run["status"] == "success",
    )


def show(console: Console, *, rows: Sequence[Row], verdict: Verdict) -> None:
    """Print the table and the verdict."""
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
            console.print(f"The log of {row.window} ends:\n{row.log}\n", markup=False, highlight=False)
    colour = "bold green" if verdict.good else "bold red"
    console.print(f"The ledger of Flow Service: [{colour}]{verdict}[/]", highlight=False)


def _short(moment: str) -> str:
    """A date alone at midnight UTC, otherwise date and time to the minute."""
    aware = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return f"{aware:%Y-%m-%d}" if (aware.hour, aware.minute) == (0, 0) else f"{aware:%Y-%m-%d %H:%M}"
