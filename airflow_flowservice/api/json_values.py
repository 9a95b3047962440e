# SPDX-License-Identifier: Apache-2.0
"""Read values from JSON of any shape; a missing or unexpected value becomes `None` or empty."""

from __future__ import annotations

import json
import math
import operator
import re
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import UnreadableAnswerError
from airflow_flowservice.plain_text import ID_LENGTH, TEXT_LENGTH, clean_text
from airflow_flowservice.windows.window import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNREADABLE = object()
"""Result of `parse_json` for text that is not JSON; JSON itself can contain `null`."""

_MILLISECONDS_FROM = 100_000_000_000
"""Values from here on are milliseconds: in seconds this is the year 5138, in milliseconds the year 1973."""

_MICROSECONDS_FROM, _MICROSECONDS_TO = 10**14, 10**16
"""Values between are microseconds: in milliseconds, they are later than the year 5138."""

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}T", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,9})?")
_MAX_TEXTS = 1000
_MAX_DEPTH = 100


def parse_json(body: bytes) -> Any:
    """Return the JSON value of a body, or `UNREADABLE`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return UNREADABLE


def value_at(value: Any, *path: str) -> Any:
    """Return the value at the end of a path of keys, or None if a key is missing."""
    for key in path:
        if not isinstance(value, dict):  # `collections.abc.Mapping` is considerably slower
            return None
        value = value.get(key)
    return value


def text_at(value: Any, *path: str, length: int | None = TEXT_LENGTH) -> str | None:
    """Return a non-empty string, cleaned by `clean_text`, or None.

    An integer becomes a string, because Adobe sends codes in both types.

    :param length: maximum number of characters; None for no limit.
    """
    found = value_at(value, *path)
    if found is None:
        return None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found) if abs(found) < 10**18 else None
    if isinstance(found, str) and (text := found.strip()):
        return clean_text(text, length=length)
    return None


def texts_at(value: Any, *path: str) -> tuple[str, ...]:
    """Return up to 1,000 non-empty strings of a list, cleaned as ids; a single string counts as a list of one."""
    found = value_at(value, *path)
    candidates = found if isinstance(found, list) else [found]
    texts = (clean_text(item, length=ID_LENGTH) for item in candidates if isinstance(item, str) and item)
    return tuple(islice(texts, _MAX_TEXTS))


def objects_at(value: Any, *path: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list; a single object counts as a list of one."""
    found = value_at(value, *path)
    candidates = found if isinstance(found, list) else [found]
    for item in candidates:
        if isinstance(item, dict):
            yield item


def count_at(value: Any, *path: str) -> int | None:
    """Return a whole number from zero on, or None. Adobe writes `-1` for unknown."""
    number = _number(value_at(value, *path))
    if number is None or number < 0 or number != number // 1:
        return None
    return int(number)


def instant_at(value: Any, *path: str, zero: bool = False) -> datetime | None:
    """Return epoch seconds, milli- or microseconds, distinguished by magnitude, or ISO 8601, as an aware UTC datetime.

    ISO 8601 text without an offset is None: in a wrong time zone, a flow run would not be recognized.

    :param zero: True if 0 is an instant (a window may start in 1970), False if 0 means None.
    """
    found = value_at(value, *path)
    if isinstance(found, str) and _ISO_DATE.match(found.strip()):
        return _iso_instant(found.strip())
    number = None if found is None else _number(found)
    if number is None or number < 0 or (number == 0 and not zero):
        return None
    try:
        if _MICROSECONDS_FROM <= number < _MICROSECONDS_TO:
            return EPOCH + timedelta(microseconds=number)
        if number >= _MILLISECONDS_FROM:
            return EPOCH + timedelta(milliseconds=number)
        return EPOCH + timedelta(seconds=number)
    except OverflowError:
        return None


def _iso_instant(text: str) -> datetime | None:
    from dateutil.parser import isoparse

    try:
        found = isoparse(text)
        return None if found.tzinfo is None or found < EPOCH else found.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def required_id(raw: Any, kind: str) -> str:
    """Return the `id` of an object.

    :param kind: the kind of object, for the message, such as `flow run`.
    :raises UnreadableAnswerError: the value is not an object, or has no id.
    """
    identifier = text_at(raw, "id", length=ID_LENGTH)
    if not identifier:
        raise UnreadableAnswerError(f"Flow Service returned a {kind} that has no id")
    return identifier


def clean_json(value: Any, *, depth: int = _MAX_DEPTH) -> Any:
    """Return a JSON value that a database can store; the same object if nothing has to be changed.

    Texts and names are cleaned but not cut. A number that JSON does not have (NaN, infinity) and a value that is
    nested more than 100 levels deep become None.
    """
    if isinstance(value, str):
        return clean_text(value, length=None)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, (dict, list)):
        return value
    if depth == 0:
        return None
    if isinstance(value, list):
        items = [clean_json(each, depth=depth - 1) for each in value]
        return value if all(map(operator.is_, items, value)) else items
    names = [clean_text(str(name), length=None) for name in value]
    values = [clean_json(each, depth=depth - 1) for each in value.values()]
    unchanged = names == list(value) and all(map(operator.is_, values, value.values()))
    return value if unchanged else dict(zip(names, values, strict=True))


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        plain = value.strip()
        if not _NUMBER.fullmatch(plain):
            return None
        value = float(plain) if "." in plain else int(plain)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 10**18:
        return value
    return None
