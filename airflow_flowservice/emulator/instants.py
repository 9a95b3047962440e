"""Instants as text and back, always UTC."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def format_utc(epoch_s: float) -> str:
    """Epoch seconds as ISO 8601 with `Z`, in whole seconds."""
    moment = _EPOCH + timedelta(seconds=math.floor(epoch_s))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch_ms(epoch_s: float) -> int:
    """Epoch seconds as whole epoch milliseconds."""
    return int(epoch_s * 1000)


def epoch_seconds(value: str | float | datetime) -> int:
    """Epoch seconds of an ISO 8601 date or datetime, or of epoch seconds.

    A date, and a datetime without an offset, are UTC. Fractions of a second are rounded up: the emulator's
    records sit on whole minutes, so this moves no record into or out of a range.

    Raises:
        ValueError: when it is none of these.
    """
    if isinstance(value, datetime):
        return math.ceil(_utc(value).timestamp())
    try:
        return math.ceil(float(value))
    except (ValueError, OverflowError):
        return math.ceil(_utc(_from_iso(str(value))).timestamp())


def _from_iso(text: str) -> datetime:
    # An unescaped "+" of an offset arrives from a query string as a space.
    tidy = text.strip().replace("Z", "+00:00").replace("z", "+00:00")
    if "T" in tidy:
        tidy = tidy.replace(" ", "+")
    try:
        return datetime.fromisoformat(tidy)
    except ValueError:
        raise ValueError(f"not an ISO 8601 date, datetime or epoch seconds: {text!r}") from None


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
