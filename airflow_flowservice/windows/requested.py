"""Read windows that are requested explicitly: in a DAG run's conf, in a DAG's params, in asset events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.window import END, START, IngestionWindow, parse_instant

_EMPTY = (None, "")
# Other spellings of the two keys, without case and punctuation; also the names in Adobe's API.
_SPELLINGS = {"windowstart": START, "windowstarttime": START, "windowend": END, "windowendtime": END}


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


def require_no_other_spelling(values: Mapping[str, Any], *, where: str) -> None:
    """Raise an error if a mapping without a window has one under other keys, which would be ignored.

    :param values: mapping without `window_start` and `window_end`; empty values count as missing.
    :raises WindowError: a key is another spelling, or another mapping in it contains a window.
    """
    for key, name in _spellings(values):
        if key != name:
            raise WindowError(
                f"{where} has the key {key!r}, which is not read as {name}",
                remedy=f"name the keys window_start and window_end in {where}",
            )
    for key, value in values.items():
        if isinstance(value, Mapping) and any(_spellings(value)):
            raise WindowError(
                f"{where} has a window inside the key {str(key)[:60]!r}, where it is not read",
                remedy=f"put window_start and window_end directly into {where}, not into another object",
            )


def _spellings(values: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield the keys with a value that look like an edge of a window, and the name of the edge."""
    for key, value in values.items():
        name = _SPELLINGS.get(re.sub(r"[\W_]", "", str(key)).lower())
        if name is not None and value not in _EMPTY:
            yield str(key), name


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
