"""Windows that somebody asked for: in a DAG run's conf, in a DAG's params, in the events of assets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.window import END, START, IngestionWindow, parse_instant

_EMPTY = (None, "")


def named_window(values: Mapping[str, Any], *, where: str) -> IngestionWindow | None:
    """The window in a mapping with `window_start` and `window_end`, or None if it has neither.

    :param values: moments as `parse_instant` takes them; None and empty text count as not given.
    :param where: the mapping's name, for messages.
    :raises WindowError: only one of the two is given, or they make no window.
    """
    given = {name: values.get(name) for name in (START, END) if values.get(name) not in _EMPTY}
    if not given:
        return None
    if len(given) == 1:
        raise WindowError(
            f"{where} gives {next(iter(given))} alone",
            remedy=f"give window_start and window_end in {where}, or neither",
        )
    return IngestionWindow(*(parse_instant(given[name], name=f"{name} in {where}") for name in (START, END)))


def window_of_events(events: Iterable[tuple[str, Mapping[str, Any]]]) -> IngestionWindow | None:
    """The window that asset events carry together, or None if none carries any.

    Each asset's windows are joined, then those of all assets; the same window from several counts once.
    Events without a window are left out.

    :param events: an asset's name and the event's `extra`.
    :raises WindowError: the windows leave a gap, or overlap.
    """
    by_asset: dict[str, set[IngestionWindow]] = {}
    for asset, extra in events:
        if window := named_window(extra or {}, where=f"the event of asset {asset!r}"):
            by_asset.setdefault(asset, set()).add(window)
    if not by_asset:
        return None
    return joined({joined(windows) for windows in by_asset.values()})


def joined(windows: Iterable[IngestionWindow]) -> IngestionWindow:
    """The one window that windows make together.

    :raises WindowError: they leave a gap, or overlap.
    """
    ordered = sorted(windows)
    for one, other in pairwise(ordered):
        if not one.meets(other):
            fault = "overlap" if one.overlaps(other) else "leave a gap"
            raise WindowError(
                f"the windows of the events that triggered this run {fault}: {one} and {other}",
                remedy=(
                    "trigger the DAG by hand with window_start and window_end in its conf, once for each window "
                    "that is wanted, and mark this task as success"
                ),
            )
    return IngestionWindow(ordered[0].start, ordered[-1].end)
