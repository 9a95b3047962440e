"""The code and the message in the body of a refusal, whichever of Adobe's shapes it has.

Seen: `{"type", "title", "status", "report": {...}, "error-chain": [...]}`, `{"error_code", "message"}`,
`{"code", "message"}`, `{"errorMessage"}`, `{"errors": [...]}`, and `{"error", "error_description"}` of IMS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api import _json
from airflow_flowservice.api._text import MESSAGE_LENGTH, excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_flowservice.api._answer import Answer

_CODE_KEYS = ("error_code", "errorCode", "code", "error-code")
_MESSAGE_KEYS = (
    "message",
    "errorMessage",
    "error_description",
    "detail",
    "detailed-message",
    "detailedMessage",
    "title",
    "reason",
    "error",
)
_INNER_KEYS = ("report", "error", "errors", "error-chain", "errorDetails")
_CODE_AT_THE_END = re.compile(r"[/:#]((?:[A-Za-z]+-)?\d{3,6}(?:-\d{3})?)$")
_NUMBER = re.compile(r"(?<!\d)\d{3,6}(?!\d)")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a refusal says.

    :param code: as it came, such as `1382`, `1382-400` or `invalid_client`; None when there is none.
    :param message: its words, else an excerpt of the body.
    """

    code: str | None
    message: str

    @property
    def number(self) -> int | None:
        """The code's own number: 1382 for `1382`, `1382-400` and `FLOW-1382-400`."""
        found = _NUMBER.search(self.code or "")
        return int(found.group()) if found else None


def problem_in(answer: Answer) -> Problem:
    """Read a refusal; a body that says nothing is shown as an excerpt."""
    places = list(_places(answer.json(), depth=3))
    code = next((code for place in places if (code := _code_of(place))), None)
    message = next((message for place in places if (message := _first_text(place, _MESSAGE_KEYS))), None)
    return Problem(
        code=excerpt(code, secrets=answer.secrets, length=80) if code else None,
        message=excerpt(message, secrets=answer.secrets, length=MESSAGE_LENGTH)
        if message
        else f"the answer was {answer.excerpt}",
    )


def _places(value: Any, *, depth: int) -> Iterator[Any]:
    """The body and the objects inside it that may hold code and message, outermost first."""
    if isinstance(value, list):
        for item in value[:5]:
            yield from _places(item, depth=depth - 1)
        return
    if not isinstance(value, dict) or depth < 0:
        return
    yield value
    for key in _INNER_KEYS:
        yield from _places(_unkeyed(value.get(key)), depth=depth - 1)


def _unkeyed(value: Any) -> Any:
    """`{"400": [{...}]}`, errors under their status, as a plain list."""
    if isinstance(value, dict) and value and all(str(key).isdigit() for key in value):
        return [item for items in value.values() for item in (items if isinstance(items, list) else [items])]
    return value


def _code_of(place: Any) -> str | None:
    named = _first_text(place, _CODE_KEYS)
    if named:
        return named
    if kind := _CODE_AT_THE_END.search(_json.text(place, "type") or ""):
        return kind.group(1)
    error = _json.text(place, "error")
    return error if error and re.fullmatch(r"\w{1,60}", error) else None


def _first_text(place: Any, keys: tuple[str, ...]) -> str | None:
    return next((found for key in keys if (found := _json.text(place, key))), None)
