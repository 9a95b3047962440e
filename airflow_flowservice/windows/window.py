"""The window: the span of time that one DAG run owns and one flow run ingests."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_flowservice.exceptions import WindowError

START, END = "window_start", "window_end"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# As seconds this is the year 5138, as milliseconds it is 1973: nobody means the former.
_LOOKS_LIKE_MILLISECONDS = 100_000_000_000
_NUMBER = re.compile(r"-?\d+(\.\d*)?", re.ASCII)
# Airflow's `{{ ds_nodash }}`; as epoch seconds it would be a day in 1970.
_DATE_IN_DIGITS = re.compile(r"(19|20)\d{6}", re.ASCII)
# A worker's clock may lag behind the scheduler's; the run then starts when the window has ended.
CLOCK_SKEW = timedelta(seconds=60)


@dataclass(frozen=True, order=True)
class IngestionWindow:
    """A span of time, start-inclusive and end-exclusive, in whole seconds, UTC.

    Flow Service takes whole seconds, so both edges are cut down to the second; cutting keeps the order
    of all edges, so windows that tile still tile.

    :param start: aware datetime.
    :param end: aware datetime, after start.
    :raises WindowError: naive, empty or reversed, before 1970 or beyond the year 9999.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            object.__setattr__(self, name, _whole_second_utc(getattr(self, name), name=f"window_{name}"))
        if self.start == self.end:
            raise WindowError(f"the window is empty: it starts and ends at {iso(self.start)}")
        if self.start > self.end:
            raise WindowError(
                f"the window is reversed: it starts at {iso(self.start)} and ends at {iso(self.end)}",
                remedy="swap window_start and window_end",
            )

    def __str__(self) -> str:
        return f"{iso(self.start)}/{iso(self.end)}"

    @classmethod
    def parse(cls, text: str) -> IngestionWindow:
        """The window that `str()` made."""
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
        """Length in seconds."""
        return int((self.end - self.start).total_seconds())

    def overlaps(self, other: IngestionWindow) -> bool:
        """Whether both contain a moment."""
        return self.start < other.end and other.start < self.end

    def meets(self, other: IngestionWindow) -> bool:
        """Whether the other one begins where this one ends."""
        return self.end == other.start

    def shifted(self, offset: timedelta) -> IngestionWindow:
        """The same length of time, so much later (or earlier, if negative)."""
        return IngestionWindow(self.start + offset, self.end + offset)

    def require_past(self, *, now: datetime, remedy: str | None = None) -> None:
        """Refuse a window that is not over: it would be ingested in part, and never again.

        :param now: aware datetime; a window that ends within `CLOCK_SKEW` after it counts as over.
        :param remedy: what to do about it, where more is known than here.
        :raises WindowError: it ends later.
        """
        if self.end <= now + CLOCK_SKEW:
            return
        raise WindowError(
            f"the window ends in the future: it is now {iso(now)}",
            window=str(self),
            remedy=remedy
            or (
                "wait until the window is over; a run that should take the period before its date needs no "
                "window_end, and a manual run's date must not lie in the future"
            ),
        )


def parse_instant(value: Any, *, name: str) -> datetime:
    """A moment as people write it, as aware UTC datetime in whole seconds.

    :param value: aware datetime, ISO 8601 text with an offset, or epoch seconds (number or digits).
    :param name: of the argument, for messages.
    :raises WindowError: naive, empty, unreadable, milliseconds, or out of range.
    """
    if isinstance(value, datetime):
        return _whole_second_utc(value, name=name)
    if isinstance(value, str):
        return _parse_text(value.strip(), name=name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_epoch(value, name=name)
    raise WindowError(
        f"{name} is {value!r}, which is not a moment in time",
        remedy=f"give {name} as aware datetime, ISO 8601 with an offset, or epoch seconds",
    )


def _parse_text(text: str, *, name: str) -> datetime:
    from dateutil.parser import isoparse

    if text in ("", "None"):
        raise WindowError(
            f"{name} is empty: its template rendered to {text!r}",
            remedy=f"check the template of {name}; this DAG run may not have the value that it names",
        )
    if _NUMBER.fullmatch(text) and not _DATE_IN_DIGITS.fullmatch(text):
        return _from_epoch(float(text), name=name)
    try:
        return _whole_second_utc(isoparse(text), name=name)
    except (ValueError, OverflowError) as error:
        raise WindowError(
            f"{name} is {text[:80]!r}, which is not a moment in time",
            remedy=f"give {name} as ISO 8601 with an offset (2026-01-31T00:00:00+00:00) or as epoch seconds",
        ) from error


def _from_epoch(seconds: float, *, name: str) -> datetime:
    try:
        seconds = float(seconds)
    except OverflowError:  # an integer of more than 300 digits
        seconds = math.inf
    if math.isfinite(seconds) and abs(seconds) >= _LOOKS_LIKE_MILLISECONDS:
        raise WindowError(
            f"{name} is {seconds:.0f}, which looks like milliseconds",
            remedy=f"give {name} in epoch seconds (divide by 1000)",
        )
    try:
        moment = EPOCH + timedelta(seconds=seconds)
    except (OverflowError, ValueError) as error:  # inf, nan
        raise WindowError(
            f"{name} is {seconds}, which is not a moment in time",
            remedy=f"give {name} in epoch seconds, such as 1769817600",
        ) from error
    return _whole_second_utc(moment, name=name)


def _whole_second_utc(moment: datetime, *, name: str) -> datetime:
    if moment.utcoffset() is None:
        raise WindowError(
            f"{name} is {moment.isoformat()}, which has no time zone",
            remedy=f"give {name} an offset, for instance {moment.isoformat()}+00:00; nobody can guess it",
        )
    try:
        utc = moment.astimezone(timezone.utc)
    except OverflowError as error:
        raise WindowError(f"{name} is {moment.isoformat()}, which is out of range in UTC") from error
    if utc < EPOCH:
        raise WindowError(f"{name} is {moment.isoformat()}, which is before 1970")
    # A plain datetime, also from pendulum's subclass: it compares, pickles and renders the same anywhere.
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


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, to the second: `2026-01-31T00:00:00Z`."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
