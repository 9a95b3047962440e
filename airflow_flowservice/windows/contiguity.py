"""Whether windows tile: where they leave a gap or overlap, and which of them are days of another length."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_flowservice.windows.window import IngestionWindow

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Break:
    """A span of time between windows that nobody ingests (`gap`), or that is ingested again (`overlap`).

    :param index: of the window that begins late or early, in the windows that were given.
    """

    kind: Literal["gap", "overlap"]
    index: int
    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """From start to end."""
        return self.end - self.start


def breaks(windows: Sequence[IngestionWindow]) -> list[Break]:
    """All gaps and overlaps of windows, by time; none if they tile.

    Each window is held against all that begin before it, so a long window that covers several is found too.

    :param windows: in any order.
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


def length_text(length: timedelta) -> str:
    """A length of time for people: `25 h`, `1 h 30 min`, `7 d`; up to 48 hours not in days."""
    if length >= 2 * _DAY and not length % _DAY:
        return f"{length // _DAY} d"
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{count} {unit}" for count, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if count]
    return " ".join(parts) or "0 s"


def uneven_day(window: IngestionWindow, *, zone: tzinfo) -> str:
    """Says so if a window is a local day, or several, of another length because the clocks change; else empty."""
    local = [moment.astimezone(zone).replace(tzinfo=None) for moment in (window.start, window.end)]
    days, rest = divmod(local[1] - local[0], _DAY)
    length = window.end - window.start
    if days < 1 or rest or days * _DAY == length:
        return ""
    return f"local day of {length_text(length)}" if days == 1 else f"{days} local days of {length_text(length)}"
