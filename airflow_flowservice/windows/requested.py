# SPDX-License-Identifier: Apache-2.0
"""Read windows that are requested explicitly: in a DAG run's conf, in a DAG's params, in asset events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.window import END, START, IngestionWindow, iso, parse_instant

_EMPTY = (None, "")
# Other spellings of the two keys, without case and punctuation; also the names in Adobe's API.
_SPELLINGS = {"windowstart": START, "windowstarttime": START, "windowend": END, "windowendtime": END}

# Keys that people use for a span of time, without case and punctuation.
_PAIRS = tuple(
    (start, end)
    for one, other in (("start", "end"), ("begin", "end"), ("from", "to"), ("since", "until"))
    for suffix in ("", "date", "time", "datetime", "ts")
    for prefix in ("", "datainterval", "interval", "logical", "period")
    for start, end in ((f"{prefix}{one}{suffix}", f"{prefix}{other}{suffix}"), (f"{suffix}{one}", f"{suffix}{other}"))
)
# Keys that people use for a span of time, or for one day, in one value, without case and punctuation.
_SPANS = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "data", "time", "date")
    for name in ("interval", "period", "range", "span", "frame", "partition", "partitionkey")
)
_DAYS = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "run", "data", "process", "processing", "target", "business", "partition", "ingest", "load")
    for name in ("date", "day", "dt")
)
# Keys of objects that contain a conf, for instance in the body of a request to Airflow's REST API.
_WRAPPERS = frozenset({"conf", "config", "dagrunconf", "params", "parameters"}) | _SPANS
# Airflow's names of a logical date, without case and punctuation.
_LOGICAL_DATES = frozenset({"logicaldate", "executiondate", "ds", "dsnodash", "ts"})
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|(\d{8,})", re.ASCII)
# The smallest date in digits. Numbers of nine digits and more can be epoch seconds, milliseconds, or dates with times.
_EARLIEST_STAMP = 19_000_101
_LATEST_STAMP = 99_991_231
_MAX_DEPTH = 5


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
    :raises WindowError: a key is another spelling, or another object or list in it contains a window.
    """
    for key, name in _spellings(values):
        if key != name:
            raise WindowError(
                f"{where} has the key {key!r}, which is not read as {name}",
                remedy=f"name the keys window_start and window_end in {where}",
            )
    for key, value in values.items():
        if _contains_window(value):
            raise WindowError(
                f"{where} has a window inside the key {_shown(key)}, where it is not read",
                remedy=f"put window_start and window_end directly into {where}, not into another object",
            )


def require_no_unread_times(values: Mapping[str, Any], *, where: str) -> None:
    """Raise an error if a mapping without a window has times that are probably meant as one.

    These are times under a key that is similar to `window_start`, or under a key such as `interval` or `date`. Two
    times under keys such as `start` and `end` are also refused. The keys may be for another task, so a window in the
    same mapping takes precedence. Numbers that cannot be times, such as those of rows, are ignored.

    :param values: as for `require_no_other_spelling`.
    :raises WindowError: the error names the keys.
    """
    problem = _times_text(_unread_keys(values), values)
    if problem:
        raise WindowError(
            f"{where} has {problem}, which this task does not read as a window",
            remedy=(
                f"name the keys window_start and window_end in {where}; if these times are for another task, add "
                "window_start and window_end"
            ),
        )


def _unread_keys(values: Mapping[str, Any], *, depth: int = _MAX_DEPTH) -> list[str]:
    """Return one or two keys whose times are probably meant as a window; empty if there are none."""
    keys = {_plain(key): key for key, value in values.items() if _contains_time(value)}
    for name, key in keys.items():
        is_wrapper = depth > 0 and name in _WRAPPERS and isinstance(values[key], Mapping)
        if _is_similar(name) or name in _DAYS or (name in _SPANS and not isinstance(values[key], Mapping)):
            return [key]
        if is_wrapper and _unread_keys(values[key], depth=depth - 1):
            return [key]
    pair = next((pair for pair in _PAIRS if keys.keys() >= set(pair)), ())
    return [keys[name] for name in pair]


def _times_text(keys: list[str], values: Mapping[str, Any]) -> str:
    """Return a phrase about the times of these keys; empty if there is no key."""
    if not keys:
        return ""
    is_number = all(isinstance(values[key], int | float) or str(values[key]).strip().isdigit() for key in keys)
    kind = "number that can be a time" if is_number else "time"
    if len(keys) == 1:
        return f"a {kind} in the key {_shown(keys[0])}"
    kinds = "numbers that can be times" if is_number else "times"
    return f"{kinds} in the keys {' and '.join(map(_shown, keys))}"


def require_same_logical_date(values: Mapping[str, Any], *, logical_date: datetime | None, where: str) -> None:
    """Raise an error if a mapping without a window names another logical date than that of the DAG run.

    :param values: as for `require_no_other_spelling`; Airflow reads no logical date from it.
    :raises WindowError: the error has both dates.
    """
    for key, value in values.items():
        if _plain(key) in _LOGICAL_DATES and _contains_time(value) and not _names(value, logical_date):
            own = f"is {iso(logical_date)}" if logical_date else "is not set"
            raise WindowError(
                f"{where} has the {_shown(key)} {str(value)[:60]}, but the logical date of this run {own}",
                remedy=(
                    "trigger the run with this logical date (--logical-date of `airflow dags trigger`), or with "
                    "window_start and window_end in its conf"
                ),
            )


def _names(value: Any, logical_date: datetime | None) -> bool:
    """Return whether a value is a logical date, or its day in UTC. A time without an offset is in UTC."""
    if logical_date is None:
        return False
    date = logical_date.astimezone(timezone.utc)
    text = str(value).strip()
    if text in (f"{date:%Y-%m-%d}", f"{date:%Y%m%d}"):
        return True
    if isinstance(value, str) and (naive := _naive(text)) is not None:
        return naive in (date.replace(microsecond=0), date.replace(hour=0, minute=0, second=0, microsecond=0))
    try:
        return parse_instant(value, name="date") == date.replace(microsecond=0)
    except WindowError:
        return False


def _naive(text: str) -> datetime | None:
    """Return a time without an offset as UTC; None if the text has an offset, or is no ISO 8601."""
    from dateutil.parser import isoparse

    try:
        found = isoparse(text)
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=timezone.utc, microsecond=0) if found.tzinfo is None else None


def _spellings(values: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield the keys with a value that look like an edge of a window, and the name of the edge."""
    for key, value in values.items():
        name = _SPELLINGS.get(_plain(key))
        if name is not None and value not in _EMPTY:
            yield str(key), name


def _plain(key: Any) -> str:
    """Return a key without case and punctuation."""
    return re.sub(r"[\W_]", "", str(key)).lower()


def _shown(key: Any) -> str:
    return repr(str(key)[:60])


def _contains_window(value: Any, *, depth: int = _MAX_DEPTH) -> bool:
    if isinstance(value, str):
        value = _object_in_text(value)
    if isinstance(value, Mapping) and any(_spellings(value)):
        return True
    return depth > 0 and any(_contains_window(each, depth=depth - 1) for each in _items(value))


def _object_in_text(text: str) -> Any:
    """Return the JSON object that a text contains, for instance of a conf that was encoded twice; else None."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _contains_time(value: Any, *, depth: int = _MAX_DEPTH) -> bool:
    """Return whether a value is a date, a time or epoch seconds, or contains one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _can_be_time(abs(value))
    if isinstance(value, str):
        found = _DATE.match(value.strip())
        return found is not None and (found[1] is None or _can_be_time(int(found[1][:20])))
    return depth > 0 and any(_contains_time(each, depth=depth - 1) for each in _items(value))


def _can_be_time(number: float) -> bool:
    """Return whether a number is a date in eight digits, or has more digits."""
    if not _EARLIEST_STAMP <= number <= _LATEST_STAMP:
        return number > _LATEST_STAMP
    try:
        datetime.strptime(str(int(number)), "%Y%m%d").replace(tzinfo=timezone.utc)
    except ValueError:
        return False
    return True


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _is_similar(name: str) -> bool:
    """Return whether a plain key is similar to the name of an edge."""
    return "window" in name or bool(get_close_matches(name, _SPELLINGS, n=1, cutoff=0.8))


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
