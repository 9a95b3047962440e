"""What the demo shows while it works: a live line for each phase, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Phases:
    """Shows one phase after the other; use it as a context manager.

    :param console: a terminal gets live lines with elapsed times, anything else plain lines.
    """

    def __init__(self, *, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._last = ""
        self._task: TaskID | None = None
        self._live = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Phases:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._live.stop()

    def phase(self, text: str, *, steps: int = 1) -> None:
        """Begin a phase of so many steps; the one before it is done."""
        self._finish()
        self._task = self._live.add_task(text, total=steps if steps > 1 else None, note="")
        self._plain(text)

    def runs(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Show how many DAG runs are in which state; those that ended are the phase's steps."""
        states = Counter(str(run["state"]) for run in runs)
        note = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        if self._task is not None:
            self._live.update(self._task, completed=states["success"] + states["failed"], note=note)
        if note != self._last:
            self._plain(f"  {note}")
        self._last = note

    def _finish(self) -> None:
        if self._task is not None:
            total = self._live.tasks[self._task].total or 1
            self._live.update(self._task, total=total, completed=total)

    def _plain(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"[{time.monotonic() - self._began:5.0f} s] {text}", markup=False)
