"""Short, safe excerpts of what came from outside: for messages, never for parsing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

EXCERPT_LENGTH = 200
MESSAGE_LENGTH = 1000

_LOOKED_AT = 65_536

_HIDDEN = "***"
# A shorter secret is no real one, and may be a part of any id or word that the client has to understand.
_TELLING_LENGTH = 8
_LOOKS_SECRET = re.compile(
    r"(?i)(?<=bearer )[\w.~+/=-]+"
    r"|eyJ[\w-]+\.[\w.-]+"
    r"|(?<=client_secret=)[^&\s\"']+"
    r"|(?<=access_token=)[^&\s\"']+"
)
_LABELLED_SECRET = re.compile(r"(?i)(\\?[\"'](?:access_token|client_secret)\\?[\"']\s*:\s*\\?[\"'])[^\"'\\]*")


def excerpt(text: str | bytes, *, secrets: Iterable[str] = (), length: int = EXCERPT_LENGTH) -> str:
    """At most `length` printable characters on one line, with known and likely secrets as `***`.

    :param text: anything; bytes are read as UTF-8 and what cannot be read is replaced.
    :param secrets: values that must not be shown.
    """
    if isinstance(text, bytes):
        text = text[:_LOOKED_AT].decode("utf-8", errors="replace")
    text = text[:_LOOKED_AT]
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = scrub(" ".join(printable.split()), secrets=secrets)
    return line if len(line) <= length else line[: length - 1] + "…"


def may_have(body: bytes, *, secrets: Iterable[str]) -> bool:
    """Whether texts of a JSON body can have one of `secrets`: quick, and true where something is escaped."""
    spelled = (spelling.encode() for secret in _telling(secrets) for spelling in _spellings(secret))
    return b"\\" in body or any(spelling in body for spelling in spelled)


def hide(value: Any, *, secrets: Iterable[str]) -> Any:
    """A JSON value whose texts have `***` in place of `secrets`, the very short ones excepted; names of fields stay.

    :raises RecursionError: it is nested too deeply.
    """
    if isinstance(value, dict):
        return {name: hide(each, secrets=secrets) for name, each in value.items()}
    if isinstance(value, list):
        return [hide(each, secrets=secrets) for each in value]
    if not isinstance(value, str):
        return value
    return _without(value, _telling(secrets))


def _telling(secrets: Iterable[str]) -> tuple[str, ...]:
    return tuple(secret for secret in secrets if len(secret) >= _TELLING_LENGTH)


def scrub(text: str, *, secrets: Iterable[str] = ()) -> str:
    """The text without bearer tokens, labelled secrets, or any of `secrets`."""
    text = _LABELLED_SECRET.sub(rf"\g<1>{_HIDDEN}", _without(text, secrets))
    return _LOOKS_SECRET.sub(_HIDDEN, text)


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in filter(None, secrets):
        for spelling in _spellings(secret):
            text = text.replace(spelling, _HIDDEN)
    return text


def _spellings(secret: str) -> tuple[str, ...]:
    return (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1])
