# SPDX-License-Identifier: Apache-2.0
"""Print findings as lines: with colours and wrapped in a terminal, or else one plain line for each."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from airflow_flowservice.checks.findings import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_flowservice.checks.findings import Finding

_STYLES = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.NOT_CHECKED: "dim", Verdict.WRONG: "bold red"}
_VERDICT_WIDTH, _CHECK_WIDTH = 11, 12


def finding_printer(stream: IO[str]) -> Callable[[Finding], None]:
    """Return a function that prints a finding on a stream."""
    console = Console(file=stream)

    def show(finding: Finding) -> None:
        if console.is_terminal:
            console.print(_row(finding))
        else:
            line = f"{finding.verdict.value:<{_VERDICT_WIDTH}}  {finding.check:<{_CHECK_WIDTH}}  {finding}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return show


def _row(finding: Finding) -> Table:
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=_VERDICT_WIDTH, style=_STYLES[finding.verdict])
    row.add_column(width=_CHECK_WIDTH)
    row.add_column(overflow="fold")
    row.add_row(finding.verdict.value, finding.check, Text(finding.message))
    if finding.remedy:
        row.add_row("", "", Text(f"What to do: {finding.remedy}", style="italic"))
    return row
