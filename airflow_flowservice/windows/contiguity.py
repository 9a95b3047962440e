# SPDX-License-Identifier: Apache-2.0
"""Find gaps and overlaps between windows, and windows whose length differs because of a clock change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Literal

from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Break:
    """A gap (time between windows that no window contains) or an overlap (time that several windows contain).

    :param index: index of the window that begins late or early, in the windows given to `find_breaks`.
    """

    kind: Literal["gap", "overlap"]
    index: int
    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """Return the time from start to end."""
        return self.end - self.start


def find_breaks(windows: Sequence[IngestionWindow]) -> list[Break]:
    """Return all gaps and overlaps of windows, ordered by time; an empty list if the windows are contiguous.

    Each window is compared with all windows that begin before it. Therefore, an overlap with a long window that covers
    several windows is also found.

    :param windows: windows in any order.
    """
    found = []
    reached: datetime | None = None
    for index in sorted(range(len(windows)), key=windows.__getitem__):
        window = windows[index]
        if reached is not None and window.start > reached:
            found.append(Break(kind="gap", index=index, start=reached, end=window.start))
        if reached is not None and window.start < reached:
            found.append(Break(kind="overlap", index=index, start=window.start, end=min(reached, window.end)))
        reached = window.end if reached is None else max(reached, window.end)
    return found


def uncovered(window: IngestionWindow, parts: Iterable[IngestionWindow]) -> list[IngestionWindow]:
    """Return the time of a window that no part contains: contiguous pieces, ordered by time.

    :param parts: windows in any order; they may overlap each other and exceed the window.
    """
    pieces = []
    reached = window.start
    for part in sorted(part for part in parts if part.overlaps(window)):
        if part.start > reached:
            pieces.append(IngestionWindow(reached, part.start))
        reached = max(reached, part.end)
    return [*pieces, IngestionWindow(reached, window.end)] if reached < window.end else pieces


def length_text(length: timedelta) -> str:
    """Return a length of time as text: `25 h`, `1 h 30 min`, `7 d`. Days are used from 48 hours on, if whole."""
    if length >= 2 * _DAY and not length % _DAY:
        return f"{length // _DAY} d"
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{count} {unit}" for count, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if count]
    return " ".join(parts) or "0 s"


def clock_change_note(window: IngestionWindow, *, zone: tzinfo) -> str:
    """Return a note if a window is one or more local days, and a clock change makes it longer or shorter; else ''."""
    local = [edge.astimezone(zone).replace(tzinfo=None) for edge in (window.start, window.end)]
    days, rest = divmod(local[1] - local[0], _DAY)
    length = window.end - window.start
    if days < 1 or rest or days * _DAY == length:
        return ""
    return f"local day of {length_text(length)}" if days == 1 else f"{days} local days of {length_text(length)}"
