# SPDX-License-Identifier: Apache-2.0
"""Define the window, the span of time of one DAG run that one flow run ingests, and parse its edges."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.plain_text import remedy_for_list

START, END = "window_start", "window_end"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# As seconds, this is the year 5138, which is not plausible; as milliseconds, it is 1973.
_LOOKS_LIKE_MILLISECONDS = 100_000_000_000
_FINER_UNITS = (("milliseconds", 1000), ("microseconds", 1000_000), ("nanoseconds", 1000_000_000))
_NUMBER = re.compile(r"-?\d+(\.\d*)?", re.ASCII)
# Numbers outside this span are more often a misread date than epoch seconds.
_EARLIEST_NUMBER = datetime(2000, 1, 1, tzinfo=timezone.utc)
_LATEST_NUMBER_AHEAD = timedelta(days=366)
# Dates in digits, such as Airflow's `{{ ds_nodash }}`. As epoch seconds, 20260109 would be a day in 1970.
# With hours, a number is a date only from the year 2000 on: epoch seconds of 2030 begin with 19.
_STAMPS = (
    (re.compile(r"(19|20)\d{6}", re.ASCII), "%Y%m%d"),
    (re.compile(r"20\d{8}", re.ASCII), "%Y%m%d%H"),
    (re.compile(r"(19|20)\d{10}", re.ASCII), "%Y%m%d%H%M"),
    (re.compile(r"(19|20)\d{12}", re.ASCII), "%Y%m%d%H%M%S"),
    (re.compile(r"(19|20)\d{13,18}", re.ASCII), "%Y%m%d%H%M%S%f"),
)
# A worker's clock may be behind the scheduler's clock, although the scheduler starts a run after its window's end.
CLOCK_SKEW = timedelta(seconds=60)


@dataclass(frozen=True, order=True)
class IngestionWindow:
    """A span of time, start-inclusive and end-exclusive, in whole seconds, UTC.

    Flow Service takes whole seconds, so both edges are truncated to the second. Truncation keeps the order of all
    edges, so contiguous windows stay contiguous.

    :param start: aware datetime.
    :param end: aware datetime, after start.
    :raises WindowError: the window is empty or reversed, or an edge is naive, before 1970 or after the year 9999.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            object.__setattr__(self, name, _whole_second_utc(getattr(self, name), name=f"window_{name}"))
        if self.start == self.end:
            raise WindowError(
                f"the window is empty: it starts and ends at {iso(self.start)}",
                remedy=(
                    "pass window_start and window_end that differ; if both are templates of the data interval, which "
                    "Airflow leaves empty for most schedules, omit both: the task then has its schedule's period"
                ),
            )
        if self.start > self.end:
            raise WindowError(
                f"the window is reversed: it starts at {iso(self.start)} and ends at {iso(self.end)}",
                remedy="swap window_start and window_end",
            )

    def __str__(self) -> str:
        return f"{iso(self.start)}/{iso(self.end)}"

    @classmethod
    def parse(cls, text: str) -> IngestionWindow:
        """Return the window of a text that `str()` returned."""
        start, _, end = text.partition("/")
        return cls(parse_instant(start, name="window_start"), parse_instant(end, name="window_end"))

    @classmethod
    def if_valid(cls, start: datetime | None, end: datetime | None) -> IngestionWindow | None:
        """Return the window between two instants, or None if they do not make a window."""
        if start is None or end is None:
            return None
        try:
            return cls(start, end)
        except WindowError:
            return None

    @property
    def seconds(self) -> int:
        """Return the length in seconds."""
        return int((self.end - self.start).total_seconds())

    def overlaps(self, other: IngestionWindow) -> bool:
        """Return whether an instant exists that both windows contain."""
        return self.start < other.end and other.start < self.end

    def contains(self, other: IngestionWindow) -> bool:
        """Return whether this window contains each instant of the other one."""
        return self.start <= other.start and other.end <= self.end

    def meets(self, other: IngestionWindow) -> bool:
        """Return whether the other window begins where this one ends."""
        return self.end == other.start

    def shifted(self, offset: timedelta) -> IngestionWindow:
        """Return a window of the same length that is moved later, or earlier if the offset is negative."""
        return IngestionWindow(self.start + offset, self.end + offset)

    def require_past(self, *, now: datetime, remedy: str | None = None) -> None:
        """Raise an error if the window has not ended: its data would be ingested only in part.

        :param now: aware datetime; a window that ends within `CLOCK_SKEW` after it counts as ended.
        :param remedy: the remedy in the error, if the caller knows a more specific one.
        :raises WindowError: the window ends later.
        """
        if self.end <= now + CLOCK_SKEW:
            return
        raise WindowError(
            f"the window ends in the future: it is now {iso(now)}",
            window=self,
            remedy=remedy
            or (
                "wait until the window has ended; a run for the period before its logical date needs no window_end, "
                "and a manual run's logical date must not be in the future"
            ),
        )


def parse_instant(value: Any, *, name: str) -> datetime:
    """Parse an instant, and return it as aware UTC datetime in whole seconds.

    :param value: aware datetime, ISO 8601 text with an offset, or epoch seconds (number or digits) from the year 2000
        on, at most 366 days ahead.
    :param name: name of the argument, for error messages.
    :raises WindowError: the value is naive, empty, unreadable, a date in digits, in milliseconds, or out of range.
    """
    if isinstance(value, datetime):
        return _whole_second_utc(value, name=name)
    if isinstance(value, str):
        return _parse_text(value.strip(), name=name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_number(value, name=name)
    remedy = f"give {name} as aware datetime, ISO 8601 with an offset, or epoch seconds{remedy_for_list(value)}"
    if value is None:
        remedy = f"{_empty_remedy(name)}; otherwise {remedy}"
    raise WindowError(f"{name} is {value!r}, which is not a valid time", remedy=remedy)


def _empty_remedy(name: str) -> str:
    remedy = f"check the template of {name}; this DAG run may not have the value that the template uses"
    if name not in (START, END):
        return remedy
    return (
        f"{remedy}; to use conf or params only if they have {START} and {END}, omit both arguments: the task reads "
        "conf and params without templates"
    )


def _parse_text(text: str, *, name: str) -> datetime:
    from dateutil.parser import isoparse

    if text in ("", "None"):
        raise WindowError(
            f"{name} is empty: its template rendered to {text!r}",
            remedy=_empty_remedy(name),
        )
    if _NUMBER.fullmatch(text):
        # float() would round digits beyond 15, and a date in digits may have 20.
        return _from_number(float(text) if "." in text or len(text) > 20 else int(text), name=name)
    try:
        return _whole_second_utc(isoparse(text), name=name)
    except (ValueError, OverflowError) as error:
        raise WindowError(
            f"{name} is {text[:80]!r}, which is not a valid time",
            remedy=(
                f"give {name} as ISO 8601 with an offset (2026-01-31T00:00:00+00:00) or as epoch seconds"
                f"{remedy_for_list(text)}"
            ),
        ) from error


def _from_number(number: float, *, name: str) -> datetime:
    """Return the instant of epoch seconds.

    :raises WindowError: the number is a date in digits, in a finer unit, before 2000, or more than a year ahead.
    """
    try:
        seconds = float(number)
    except OverflowError:  # an integer of more than 300 digits
        seconds = math.inf
    if not math.isfinite(seconds):
        raise WindowError(
            f"{name} is {seconds}, which is not a valid time",
            remedy=f"give {name} in epoch seconds, such as 1769817600",
        )
    if date := _date_in_digits(number):
        raise WindowError(
            f"{name} is {int(number)}, which reads as the date {date.isoformat()} in digits, which has no time zone",
            remedy=f"give {name} as ISO 8601 with an offset, for instance {date.isoformat()}+00:00; no zone is assumed",
        )
    if abs(seconds) >= _LOOKS_LIKE_MILLISECONDS:
        unit, divisor = _unit_of(seconds)
        raise WindowError(
            f"{name} is {seconds:.0f}, which looks like {unit}",
            remedy=f"give {name} in epoch seconds (divide by {divisor})",
        )
    return _require_plausible(EPOCH + timedelta(seconds=seconds), number=number, name=name)


def _date_in_digits(number: float) -> datetime | None:
    """Return the naive datetime that a number shows in its digits, or None if it shows none."""
    digits = str(int(number))
    for pattern, form in _STAMPS:
        if not pattern.fullmatch(digits):
            continue
        try:
            return datetime.strptime(digits, form).replace(microsecond=0)  # noqa: DTZ007 - the digits have no zone
        except ValueError:
            continue
    return None


def _unit_of(number: float) -> tuple[str, int]:
    """Return the unit in which a number is nearest to the present, and its divisor."""
    return next(
        ((unit, divisor) for unit, divisor in _FINER_UNITS if abs(number) / divisor < _LOOKS_LIKE_MILLISECONDS),
        _FINER_UNITS[-1],
    )


def _require_plausible(instant: datetime, *, number: float, name: str) -> datetime:
    """Return the instant of a number in whole seconds.

    :raises WindowError: it is before 2000, or more than a year ahead.
    """
    if instant < EPOCH:
        return _whole_second_utc(instant, name=name)  # raises
    if _EARLIEST_NUMBER <= instant <= datetime.now(timezone.utc) + _LATEST_NUMBER_AHEAD:
        return _whole_second_utc(instant, name=name)
    why = "before the year 2000" if instant < _EARLIEST_NUMBER else "more than a year ahead"
    raise WindowError(
        f"{name} is {number}, which is {iso(instant)} in epoch seconds, {why}",
        remedy=f"check the template of {name}; if this time is intended, give it as ISO 8601: {iso(instant)}",
    )


def _whole_second_utc(instant: datetime, *, name: str) -> datetime:
    if instant.utcoffset() is None:
        raise WindowError(
            f"{name} is {instant.isoformat()}, which has no time zone",
            remedy=f"give {name} an offset, for instance {instant.isoformat()}+00:00; no zone is assumed",
        )
    try:
        utc = instant.astimezone(timezone.utc)
    except OverflowError as error:
        raise WindowError(f"{name} is {instant.isoformat()}, which is out of range in UTC") from error
    if utc < EPOCH:
        raise WindowError(f"{name} is {instant.isoformat()}, which is before 1970")
    # A plain datetime, also from pendulum's subclass: plain datetimes compare, pickle and render the same everywhere.
    return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, tzinfo=timezone.utc)


def window_to_json(window: IngestionWindow | None) -> dict[str, str | None]:
    """Return `window_start` and `window_end` as ISO 8601 text in UTC; both are None if there is no window."""
    if window is None:
        return {START: None, END: None}
    return {START: iso(window.start), END: iso(window.end)}


def window_from_json(values: Mapping[str, Any]) -> IngestionWindow | None:
    """Parse what `window_to_json` returned; return None if the values are missing or do not make a window."""
    start, end = values.get(START), values.get(END)
    if not isinstance(start, str) or not isinstance(end, str):
        return None
    try:
        return IngestionWindow(parse_instant(start, name=START), parse_instant(end, name=END))
    except WindowError:
        return None


def epoch_seconds(instant: datetime, *, round_up: bool = False) -> int:
    """Return whole seconds since 1970.

    :param instant: aware datetime.
    :param round_up: whether a fraction counts as a full second; otherwise it is dropped.
    """
    since, second = instant - EPOCH, timedelta(seconds=1)
    return -(-since // second) if round_up else since // second


def epoch_milliseconds(instant: datetime) -> int:
    """Return whole milliseconds since 1970, rounded down.

    :param instant: aware datetime.
    """
    return (instant - EPOCH) // timedelta(milliseconds=1)


def iso(instant: datetime) -> str:
    """Return ISO 8601 text in UTC, to the second: `2026-01-31T00:00:00Z`."""
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
