"""Datetimes as Flow Service takes them: whole epoch seconds, or milliseconds in filters."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_flowservice.exceptions import ConfigurationError

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND = timedelta(seconds=1)


def epoch_seconds(value: Any, name: str, *, round_up: bool = False) -> int:
    """Whole seconds since 1970.

    :param round_up: whether a fraction of a second may be there, and makes it the next second.
    :raises ConfigurationError: no datetime, a naive one, one before 1970, or one with a fraction of a second.
    """
    seconds, fraction = divmod(_since_epoch(value, name), _SECOND)
    if fraction and not round_up:
        raise ConfigurationError(f"{name} {value.isoformat()} must be in whole seconds")
    return seconds + bool(fraction)


def epoch_milliseconds(value: Any, name: str) -> int:
    """Whole milliseconds since 1970, rounded down.

    :raises ConfigurationError: no datetime, a naive one, or one before 1970.
    """
    return _since_epoch(value, name) // timedelta(milliseconds=1)


def interval(start: datetime, end: datetime) -> str:
    """A window for messages: `2026-01-01T00:00:00Z/2026-01-02T00:00:00Z`."""
    return f"{_iso(start)}/{_iso(end)}"


def _iso(value: datetime) -> str:
    return value.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _since_epoch(value: Any, name: str) -> timedelta:
    if not isinstance(value, datetime):
        raise ConfigurationError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise ConfigurationError(f"{name} {value.isoformat()} has no timezone", remedy="give an aware datetime")
    since: timedelta = value.astimezone(timezone.utc) - _EPOCH
    if since < timedelta(0):
        raise ConfigurationError(f"{name} {value.isoformat()} is before 1970")
    return since
