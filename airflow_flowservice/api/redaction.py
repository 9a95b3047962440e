# SPDX-License-Identifier: Apache-2.0
"""Texts of a response without secrets: short excerpts for messages, and JSON values."""

from __future__ import annotations

import html
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXCERPT_LENGTH = 200
MESSAGE_LENGTH = 1000

MAX_INPUT_LENGTH = 65_536
"""Characters of a text from which an excerpt is taken."""

_HIDDEN = "***"
# A shorter secret cannot be a real one, and may be a part of any id or word that the client has to parse.
_MIN_SECRET_LENGTH = 8
_LOOKS_SECRET = re.compile(
    r"(?i)(?<=bearer )[\w.~+/=-]+"
    r"|(?<=client_secret=)[^&\s\"']+"
    r"|(?<=access_token=)[^&\s\"']+"
)
_WORD = re.compile(r"[\w.-]{6,}")
_TOKEN_START = re.compile("(?i)eyJ")
_UNESCAPED = re.compile(r"[A-Za-z0-9_.~-]+")
_ESCAPE = re.compile("%[0-9A-F]{2}")
_LABELLED_SECRET = re.compile(r"(?i)(\\?[\"'](?:access_token|client_secret)\\?[\"']\s*:\s*\\?[\"'])[^\"'\\]*")


def excerpt(text: str | bytes, *, secrets: Iterable[str] = (), length: int = EXCERPT_LENGTH) -> str:
    """Return at most `length` printable characters on one line, with known and likely secrets as `***`.

    :param text: any text. Bytes are decoded as JSON is (UTF-8, UTF-16 or UTF-32); undecodable bytes are replaced.
    :param secrets: values that the excerpt must not contain.
    """
    spellings = _spellings(tuple(filter(None, secrets)))
    cut = text[:MAX_INPUT_LENGTH]
    if isinstance(cut, bytes):
        cut = cut.decode(json.detect_encoding(cut), errors="replace")
    # Before spaces are joined, because a secret may contain some.
    cut = _replace_all(cut, spellings)
    if len(text) > MAX_INPUT_LENGTH:
        # The end may be the beginning of a secret.
        cut = cut[: -max(map(len, spellings), default=0) or None]
    printable = cut if cut.isprintable() else "".join(each if each.isprintable() else " " for each in cut)
    line = _redact_text(" ".join(printable.split()), spellings)
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


def _long_enough(secrets: Iterable[str]) -> tuple[str, ...]:
    return tuple(secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH)


def _redact_text(text: str, spellings: tuple[str, ...]) -> str:
    """Return the text with `***` for bearer tokens, JSON web tokens, labelled secrets and `spellings`."""
    text = _LABELLED_SECRET.sub(rf"\g<1>{_HIDDEN}", _replace_all(text, spellings))
    text = _LOOKS_SECRET.sub(_HIDDEN, text)
    return _WORD.sub(_redact_token, text) if _TOKEN_START.search(text) else text


def _redact_token(word: re.Match[str]) -> str:
    """Return a word with `***` for a JSON web token (`eyJ….….…`). Each word is read once, so the time is linear."""
    text = word.group()
    start = _TOKEN_START.search(text)
    if start is None or text.find(".", start.end() + 1, len(text) - 1) < 0:
        return text
    return text[: start.start()] + _HIDDEN


def _replace_all(text: str, spellings: tuple[str, ...]) -> str:
    for spelling in spellings:
        text = text.replace(spelling, _HIDDEN)
    return text


@lru_cache(maxsize=8)  # each response uses the same secrets several times
def _spellings(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the spellings of each secret, longest first, because one may contain another.

    These are the plain secret, and the secret quoted for a URL or a form, or escaped for JSON or HTML. Headers are read
    as Latin-1. `repr` escapes the messages of exceptions, once or twice.
    """
    found = {spelling for secret in secrets for spelling in _spellings_of(secret)}
    return tuple(sorted(found, key=lambda spelling: (-len(spelling), spelling)))


def _spellings_of(secret: str) -> Iterator[str]:
    yield from (secret, html.escape(secret), html.escape(secret, quote=False), json.dumps(secret)[1:-1])
    if _UNESCAPED.fullmatch(secret):
        return
    for quoted in (quote(secret, safe=""), quote_plus(secret), quote(secret)):
        yield from (quoted, _ESCAPE.sub(lambda escape: escape.group().lower(), quoted))
    latin = secret.encode().decode("latin-1")
    yield latin
    for escaped in (repr(secret)[1:-1], repr(latin)[1:-1], repr(secret.encode())[2:-1]):
        again = repr(escaped)[1:-1]
        yield from (escaped, escaped.replace("'", "\\'"), again, again.replace("'", "\\'"))
