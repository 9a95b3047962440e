"""Values out of JSON that may have any shape: what is missing or strange is `None` or empty."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_flowservice.windows.window import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNREADABLE = object()
"""What `parse` answers for text that is no JSON; JSON itself can hold `null`."""

_MILLISECONDS_FROM = 100_000_000_000
"""As seconds this is the year 5138, as milliseconds 1973: values from here on are milliseconds."""

_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,9})?")


def parse(body: bytes) -> Any:
    """The JSON value of a body, or `UNREADABLE`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return UNREADABLE


def at(value: Any, *path: str) -> Any:
    """The value at the end of a path of keys, or None where a step is missing."""
    for key in path:
        if not isinstance(value, dict):  # as JSON has it; the abstract class costs a good deal more
            return None
        value = value.get(key)
    return value


def text(value: Any, *path: str) -> str | None:
    """A string that is not empty; whole numbers become strings, since codes come as both."""
    found = at(value, *path)
    if found is None:
        return None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found) if abs(found) < 10**18 else None
    if isinstance(found, str) and found.strip():
        return found.strip()
    return None


def texts(value: Any, *path: str) -> tuple[str, ...]:
    """The strings of a list; a lone string is a list of one."""
    found = at(value, *path)
    candidates = found if isinstance(found, list) else [found]
    return tuple(item for item in candidates if isinstance(item, str) and item)


def objects(value: Any, *path: str) -> Iterator[Mapping[str, Any]]:
    """The objects in a list; a lone object is a list of one."""
    found = at(value, *path)
    candidates = found if isinstance(found, list) else [found]
    for item in candidates:
        if isinstance(item, dict):
            yield item


def count(value: Any, *path: str) -> int | None:
    """A whole number from zero on; Adobe writes `-1` for not known."""
    number = _number(at(value, *path))
    if number is None or number < 0 or number != number // 1:
        return None
    return int(number)


def instant(value: Any, *path: str, zero: bool = False) -> datetime | None:
    """Epoch seconds or milliseconds, told apart by magnitude, as an aware UTC datetime.

    :param zero: whether 0 is an instant (the beginning of a window may be 1970) or means none.
    """
    found = at(value, *path)
    number = None if found is None else _number(found)
    if number is None or number < 0 or (number == 0 and not zero):
        return None
    try:
        if number >= _MILLISECONDS_FROM:
            return EPOCH + timedelta(milliseconds=number)
        return EPOCH + timedelta(seconds=number)
    except OverflowError:
        return None


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        plain = value.strip()
        if not _NUMBER.fullmatch(plain):
            return None
        value = float(plain) if "." in plain else int(plain)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 10**18:
        return value
    return None
