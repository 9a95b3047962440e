# SPDX-License-Identifier: Apache-2.0
"""Errors of a flow run, from each place where Adobe's documents and samples have them.

The first sentence is often general (`Error in copying the data from Source.`), and the cause is in another place.
Source: https://experienceleague.adobe.com/en/docs/experience-platform/observability/alerts/rules
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.json_values import text_at, value_at
from airflow_flowservice.plain_text import ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_RUN_ERRORS = 20
"""Limit of the errors of one flow run; the last one states how many errors are omitted."""

_NO_MESSAGE = "no message"
_CODES = ("code", "errorCode", "error_code")
# Names of a message, also those of Adobe's other error formats.
_MESSAGES = ("message", "errorMessage", "error_description", "detail", "detailed-message", "reason", "title")
_CODE = re.compile(r"[A-Z][A-Z_]*-\d{3,6}(-\d{3})?")
_MAX_DEPTH = 2
# The places in `metrics` and in each activity, general errors first.
_PLACES = (
    ("statusSummary", "errors"),
    ("statusSummary", "extensions", "errors"),
    ("recordSummary", "failedInfo"),
    ("statusSummary", "extensions", "errorDetail"),
    ("statusSummary", "extensions", "errorDetails"),
    ("extensions", "errors"),
    ("extensions", "errorDetail"),
)


@dataclass(frozen=True, kw_only=True)
class RunError:
    """Error that a flow run reports, such as `CONNECTOR-1001-500`."""

    code: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.code else self.message


def bounded_errors(errors: Iterable[RunError]) -> tuple[RunError, ...]:
    """Return the errors without duplicates. If they exceed `MAX_RUN_ERRORS`, the last one states the omitted number.

    Sentences that differ only in case, spaces and the final period are the same. An error without a code is a duplicate
    of one that has a code and the same sentence.
    """
    distinct: dict[tuple[str, str | None], RunError] = {}
    for error in errors:
        distinct.setdefault((_normalized(error.message), error.code), error)
    with_code = {sentence for sentence, code in distinct if code is not None}
    unique = tuple(
        error for (sentence, code), error in distinct.items() if code is not None or sentence not in with_code
    )
    if len(unique) <= MAX_RUN_ERRORS:
        return unique
    listed = unique[: MAX_RUN_ERRORS - 1]
    return (*listed, RunError(code=None, message=f"{len(unique) - len(listed):,} more errors are omitted"))


def error_texts(errors: Iterable[RunError]) -> list[str]:
    """Return each sentence once, after the codes of all errors that have it, such as `C-1, C-2: Job aborted.`"""
    groups: dict[str, list[RunError]] = {}
    for error in errors:
        groups.setdefault(_normalized(error.message), []).append(error)
    found = []
    for group in groups.values():
        codes = ", ".join(error.code for error in group if error.code)
        found.append(f"{codes}: {group[0].message}" if codes else group[0].message)
    return found


def errors_of_run(raw: Any, activities: Iterable[Mapping[str, Any]]) -> Iterator[RunError]:
    """Yield the errors of a run's JSON object and of its activities, also those that repeat a sentence."""
    for part in (value_at(raw, "metrics"), *activities):
        for place in _PLACES:
            yield from _errors_in(value_at(part, *place))
    yield from _errors_in(value_at(raw, "extensions", "errors"))
    yield from _errors_in(value_at(raw, "extensions", "errorDetail"))


def _errors_in(value: Any, *, depth: int = _MAX_DEPTH) -> Iterator[RunError]:
    """Yield the errors of a list, an object or a text."""
    if value is None:
        return
    for error in value if isinstance(value, list) else [value]:
        if isinstance(error, str) and (text := text_at({"text": error}, "text")):
            yield RunError(code=None, message=text)
        code = next(filter(None, (text_at(error, key, length=ID_LENGTH) for key in _CODES)), None)
        message = _message_of(error)
        nested = value_at(error, "error") or value_at(error, "errors")
        if message is None and depth and isinstance(nested, dict | list):
            yield from _errors_in(nested, depth=depth - 1)
        elif message or code:
            yield RunError(code=code, message=message or _NO_MESSAGE)
        elif isinstance(error, dict):
            yield from _errors_by_code(error)


def _errors_by_code(errors: Mapping[str, Any]) -> Iterator[RunError]:
    """Yield the errors of an object whose names are codes, such as `{"CONNECTOR-1001-500": "..."}`."""
    for name, value in errors.items():
        message = text_at(errors, name) if isinstance(value, str) else _message_of(value)
        if message and _CODE.fullmatch(str(name)):
            yield RunError(code=str(name), message=message)


def _message_of(error: Any) -> str | None:
    message = next(filter(None, (_joined_text(error, key) for key in _MESSAGES)), None)
    description = text_at(error, "description")
    if message and description and _normalized(message) != _normalized(description):
        return f"{message.rstrip('.')}: {description}"
    return message or description


def _joined_text(error: Any, key: str) -> str | None:
    """Return a text, or the texts of a list as one."""
    value = value_at(error, key)
    if not isinstance(value, list):
        return text_at(error, key)
    return text_at({key: "; ".join(each for each in value[:MAX_RUN_ERRORS] if isinstance(each, str))}, key)


def _normalized(message: str) -> str:
    return " ".join(message.split()).rstrip(" .").casefold()
