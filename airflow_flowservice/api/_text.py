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

    :param text: anything; bytes are read as JSON is, in UTF-8, 16 or 32, and what cannot be read is replaced.
    :param secrets: values that must not be shown.
    """
    if isinstance(text, bytes):
        text = text[:_LOOKED_AT].decode(json.detect_encoding(text), errors="replace")
    text = text[:_LOOKED_AT]
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = scrub(" ".join(printable.split()), secrets=secrets)
    return line if len(line) <= length else line[: length - 1] + "…"


def may_have(body: bytes, *, secrets: Iterable[str]) -> bool:
    """Whether texts of a JSON body can have one of `secrets`: quick, and true where bytes do not tell."""
    other_escapes = body.count(b"\\") != body.count(b'\\"')  # every flow run has escaped quotes, in its etag
    if other_escapes or b"\0" in body:  # as in UTF-16 and UTF-32
        return True
    return any(spelling.replace('"', '\\"').encode() in body for spelling in _spellings(_telling(secrets)))


def hide(value: Any, *, secrets: Iterable[str]) -> Any:
    """A JSON value whose texts have `***` in place of `secrets`, the very short ones excepted; names of fields stay.

    :raises RecursionError: it is nested too deeply.
    """
    return _hidden(value, _spellings(_telling(secrets)))


def _hidden(value: Any, spellings: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _hidden(each, spellings) for name, each in value.items()}
    if isinstance(value, list):
        return [_hidden(each, spellings) for each in value]
    if not isinstance(value, str):
        return value
    return _without(value, spellings)


def _telling(secrets: Iterable[str]) -> Iterable[str]:
    return (secret for secret in secrets if len(secret) >= _TELLING_LENGTH)


def scrub(text: str, *, secrets: Iterable[str] = ()) -> str:
    """The text without bearer tokens, labelled secrets, or any of `secrets`."""
    text = _LABELLED_SECRET.sub(rf"\g<1>{_HIDDEN}", _without(text, _spellings(filter(None, secrets))))
    return _LOOKS_SECRET.sub(_HIDDEN, text)


def _without(text: str, spellings: tuple[str, ...]) -> str:
    for spelling in spellings:
        text = text.replace(spelling, _HIDDEN)
    return text


def _spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """How texts may have them: as they are, as URLs and forms have them, and in JSON."""
    ways = ((each, quote(each, safe=""), quote_plus(each), json.dumps(each)[1:-1]) for each in secrets)
    return tuple(dict.fromkeys(spelling for spellings in ways for spelling in spellings))
