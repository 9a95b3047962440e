"""Read windows that are requested explicitly: in a DAG run's conf, in a DAG's params, in asset events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.window import END, START, IngestionWindow, parse_instant

_EMPTY = (None, "")


def requested_window(values: Mapping[str, Any], *, where: str) -> IngestionWindow | None:
    """Return the window of a mapping with `window_start` and `window_end`, or None if both are missing.

    :param values: instants in the forms of `parse_instant`; None and empty text count as missing.
    :param where: the mapping's name, for error messages.
    :raises WindowError: only one of the two is given, or they are not a valid window.
    """
    given = {name: values.get(name) for name in (START, END) if values.get(name) not in _EMPTY}
    if not given:
        return None
    if len(given) == 1:
        raise WindowError(
            f"{where} gives only {next(iter(given))}",
            remedy=f"give window_start and window_end in {where}, or neither",
        )
    return IngestionWindow(*(parse_instant(given[name], name=f"{name} in {where}") for name in (START, END)))


def window_of_events(events: Iterable[tuple[str, Mapping[str, Any]]]) -> IngestionWindow | None:
    """Return the merged window of asset events, or None if no event contains a window.

    The windows of each asset are merged, then the windows of all assets. A window that several events contain counts
    once. Events without a window are ignored.

    :param events: an asset's name and the event's `extra`.
    :raises WindowError: the windows leave a gap, or overlap.
    """
    by_asset: dict[str, set[IngestionWindow]] = {}
    for asset, extra in events:
        if window := requested_window(extra or {}, where=f"the event of asset {asset!r}"):
            by_asset.setdefault(asset, set()).add(window)
    if not by_asset:
        return None
    return merge_windows({merge_windows(windows) for windows in by_asset.values()})


def merge_windows(windows: Iterable[IngestionWindow]) -> IngestionWindow:
    """Return the window from the first start to the last end of contiguous windows.

    :raises WindowError: the windows leave a gap, or overlap.
    """
    ordered = sorted(windows)
    for one, other in pairwise(ordered):
        if not one.meets(other):
            fault = "overlap" if one.overlaps(other) else "leave a gap"
            raise WindowError(
                f"the windows of the events that triggered this run {fault}: {one} and {other}",
                remedy=(
                    "for each window to ingest, trigger the DAG manually with window_start and window_end in its conf; "
                    "then mark this task as success"
                ),
            )
    return IngestionWindow(ordered[0].start, ordered[-1].end)
