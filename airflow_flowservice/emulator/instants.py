# SPDX-License-Identifier: Apache-2.0
"""Conversion between instants and text, always in UTC."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def format_utc(epoch_s: float) -> str:
    """Return epoch seconds as ISO 8601 text with `Z`, rounded down to whole seconds."""
    instant = _EPOCH + timedelta(seconds=math.floor(epoch_s))
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch_ms(epoch_s: float) -> int:
    """Convert epoch seconds to whole epoch milliseconds."""
    return int(epoch_s * 1000)


def to_epoch_s(value: str | float | datetime) -> int:
    """Return the epoch seconds of an ISO 8601 date or datetime, or of a number of epoch seconds.

    A date and a datetime without an offset are in UTC. Fractions of a second are rounded up. All records of
    the emulator are at whole minutes, so rounding moves no record into or out of a range.

    Raises:
        ValueError: if the value has none of these formats.
    """
    if isinstance(value, datetime):
        return math.ceil(_utc(value).timestamp())
    try:
        return math.ceil(float(value))
    except (ValueError, OverflowError):
        return math.ceil(_utc(_from_iso(str(value))).timestamp())


def _from_iso(text: str) -> datetime:
    # In a query string, an unescaped "+" of an offset is decoded as a space.
    normalized = text.strip().replace("Z", "+00:00").replace("z", "+00:00")
    if "T" in normalized:
        normalized = normalized.replace(" ", "+")
    try:
        return datetime.fromisoformat(normalized)
    except ValueError:
        raise ValueError(f"Not an ISO 8601 date, an ISO 8601 datetime or epoch seconds: {text!r}.") from None


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
