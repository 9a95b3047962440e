"""Short excerpts of external text for messages, without secrets; never used for parsing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

EXCERPT_LENGTH = 200
MESSAGE_LENGTH = 1000

_MAX_INPUT_LENGTH = 65_536

_HIDDEN = "***"
# A shorter secret cannot be a real one, and may be a part of any id or word that the client has to parse.
_MIN_SECRET_LENGTH = 8
_LOOKS_SECRET = re.compile(
    r"(?i)(?<=bearer )[\w.~+/=-]+"
    r"|eyJ[\w-]+\.[\w.-]+"
    r"|(?<=client_secret=)[^&\s\"']+"
    r"|(?<=access_token=)[^&\s\"']+"
)
_LABELLED_SECRET = re.compile(r"(?i)(\\?[\"'](?:access_token|client_secret)\\?[\"']\s*:\s*\\?[\"'])[^\"'\\]*")


def excerpt(text: str | bytes, *, secrets: Iterable[str] = (), length: int = EXCERPT_LENGTH) -> str:
    """Return at most `length` printable characters on one line, with known and likely secrets as `***`.

    :param text: any text. Bytes are decoded as JSON is (UTF-8, UTF-16 or UTF-32); undecodable bytes are replaced.
    :param secrets: values that the excerpt must not contain.
    """
    if isinstance(text, bytes):
        text = text[:_MAX_INPUT_LENGTH].decode(json.detect_encoding(text), errors="replace")
    text = text[:_MAX_INPUT_LENGTH]
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = redact_text(" ".join(printable.split()), secrets=secrets)
    return line if len(line) <= length else line[: length - 1] + "…"


def may_contain(body: bytes, *, secrets: Iterable[str]) -> bool:
    """Return whether a JSON body may contain one of `secrets`. Fast check; may return a false positive."""
    other_escapes = body.count(b"\\") != body.count(b'\\"')  # the etag of every flow run has escaped quotes
    if other_escapes or b"\0" in body:  # UTF-16 and UTF-32 contain zero bytes
        return True
    return any(spelling.replace('"', '\\"').encode() in body for spelling in _spellings(_long_enough(secrets)))


def redact_json(value: Any, *, secrets: Iterable[str]) -> Any:
    """Return a JSON value with `***` for `secrets` in all texts.

    Very short secrets and the names of fields are unchanged.

    :raises RecursionError: the value is nested too deeply.
    """
    return _redact_value(value, _spellings(_long_enough(secrets)))


def _redact_value(value: Any, spellings: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _redact_value(each, spellings) for name, each in value.items()}
    if isinstance(value, list):
        return [_redact_value(each, spellings) for each in value]
    if not isinstance(value, str):
        return value
    return _replace_all(value, spellings)


def _long_enough(secrets: Iterable[str]) -> Iterable[str]:
    return (secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH)


def redact_text(text: str, *, secrets: Iterable[str] = ()) -> str:
    """Return the text with `***` for bearer tokens, labelled secrets and `secrets`."""
    text = _LABELLED_SECRET.sub(rf"\g<1>{_HIDDEN}", _replace_all(text, _spellings(filter(None, secrets))))
    return _LOOKS_SECRET.sub(_HIDDEN, text)


def _replace_all(text: str, spellings: tuple[str, ...]) -> str:
    for spelling in spellings:
        text = text.replace(spelling, _HIDDEN)
    return text


def _spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return each secret as plain text, quoted for a URL, quoted for a form, and escaped for JSON."""
    forms = ((each, quote(each, safe=""), quote_plus(each), json.dumps(each)[1:-1]) for each in secrets)
    return tuple(dict.fromkeys(spelling for spellings in forms for spelling in spellings))
