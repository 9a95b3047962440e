# SPDX-License-Identifier: Apache-2.0
"""Progress display of the demo: live lines in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class DemoProgress:
    """Show the phases of the demo one after the other. Use it as a context manager.

    :param console: output console. A terminal shows live lines with elapsed times.
    """

    def __init__(self, *, console: Console) -> None:
        self._console = console
        self._started_at = time.monotonic()
        self._last_note = ""
        self._task: TaskID | None = None
        self._live_lines = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> DemoProgress:
        self._live_lines.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._live_lines.stop()

    def start_phase(self, text: str, *, steps: int = 1) -> None:
        """Finish the current phase and start a phase with this number of steps."""
        self._finish()
        self._task = self._live_lines.add_task(text, total=steps if steps > 1 else None, note="")
        self._print_plain(text)

    def show_runs(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Show the number of DAG runs in each state. Each ended DAG run is a step of the phase."""
        states = Counter(str(run["state"]) for run in runs)
        note = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        if self._task is not None:
            self._live_lines.update(self._task, completed=states["success"] + states["failed"], note=note)
        if note != self._last_note:
            self._print_plain(f"  {note}")
        self._last_note = note

    def _finish(self) -> None:
        if self._task is not None:
            total = self._live_lines.tasks[self._task].total or 1
            self._live_lines.update(self._task, total=total, completed=total)

    def _print_plain(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"[{time.monotonic() - self._started_at:5.0f} s] {text}", markup=False)
