# SPDX-License-Identifier: Apache-2.0
"""Code and message of an error response, in any of Adobe's formats.

Observed: `{"type", "title", "status", "report": {...}, "error-chain": [...]}`, `{"error_code", "message"}`,
`{"code", "message"}`, `{"errorMessage"}`, `{"errors": [...]}`, and `{"error", "error_description"}` of IMS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.json_values import text_at
from airflow_flowservice.api.redaction import MAX_INPUT_LENGTH, MESSAGE_LENGTH, excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_flowservice.api.http_session import HttpResponse

_CODE_KEYS = ("error_code", "errorCode", "code", "error-code")
_MESSAGE_KEYS = (
    "message",
    "errorMessage",
    "error_description",
    "detail",
    "detailed-message",
    "detailedMessage",
    "errorDetails",
    "errorDetail",
)
# General texts, which are used only if no object of the body has a message.
_TITLE_KEYS = ("title", "reason", "error")
_NESTED_KEYS = ("report", "error", "errors", "error-chain", "errorDetails")
_CODE_AT_END = re.compile(r"[/:#]((?:[A-Za-z]+-)?\d{3,6}(?:-\d{3})?)$")
_MAX_TEXTS = 200
_NUMBER = re.compile(r"(?<!\d)\d{3,6}(?!\d)")


@dataclass(frozen=True, kw_only=True)
class ErrorBody:
    """Code and message of an error response.

    :param code: as received, such as `1382`, `1382-400` or `invalid_client`; None if there is none.
    :param message: Adobe's message; if there is none, an excerpt of the body.
    """

    code: str | None
    message: str

    @property
    def number(self) -> int | None:
        """Return the number of the code: 1382 for `1382`, `1382-400` and `FLOW-1382-400`."""
        found = _NUMBER.search(self.code or "")
        return int(found.group()) if found else None


def parse_error_body(response: HttpResponse) -> ErrorBody:
    """Return code and message of an error response; without a message, an excerpt of the body."""
    objects = list(_nested_objects(response.json(), depth=3))
    code = next((code for each in objects if (code := _code_of(each))), None)
    candidates = (_first_text(each, keys) for keys in (_MESSAGE_KEYS, _TITLE_KEYS) for each in objects)
    message = next(filter(None, candidates), None)
    return ErrorBody(
        code=excerpt(code, secrets=response.secrets, length=80) if code else None,
        message=excerpt(message, secrets=response.secrets, length=MESSAGE_LENGTH)
        if message
        else f"the response was {response.excerpt}",
    )


def body_texts(response: HttpResponse) -> str:
    """Return all texts of an error response's JSON, one a line, without the names of fields; or the body's text."""
    value = response.json()
    texts = _texts_of(value, depth=6) if isinstance(value, (dict, list, str)) else [response.excerpt]
    return "\n".join(islice(texts, _MAX_TEXTS))


def _texts_of(value: Any, *, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:MAX_INPUT_LENGTH]
    elif isinstance(value, (dict, list)) and depth > 0:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(each, depth=depth - 1)


def _nested_objects(value: Any, *, depth: int) -> Iterator[Any]:
    """Yield the body and its nested objects that may contain code and message, outermost first."""
    if depth < 0:
        return
    if isinstance(value, list):
        for item in value[:5]:
            yield from _nested_objects(item, depth=depth - 1)
        return
    if not isinstance(value, dict):
        return
    yield value
    for key in _NESTED_KEYS:
        yield from _nested_objects(_flatten_status_keys(value.get(key)), depth=depth - 1)


def _flatten_status_keys(value: Any) -> Any:
    """Return the errors of `{"400": [{...}]}` as a plain list, and any other value unchanged."""
    if isinstance(value, dict) and value and all(str(key).isdigit() for key in value):
        return [item for items in value.values() for item in (items if isinstance(items, list) else [items])]
    return value


def _code_of(candidate: Any) -> str | None:
    code = _first_text(candidate, _CODE_KEYS)
    if code:
        return code
    if match := _CODE_AT_END.search(text_at(candidate, "type") or ""):
        return match.group(1)
    error = text_at(candidate, "error")
    return error if error and re.fullmatch(r"\w{1,60}", error) else None


def _first_text(candidate: Any, keys: tuple[str, ...]) -> str | None:
    # `excerpt` cuts the text after it has removed the secrets.
    texts = (text_at(candidate, key, length=MAX_INPUT_LENGTH) for key in keys)
    return next(filter(None, texts), None)
