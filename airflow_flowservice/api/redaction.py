# SPDX-License-Identifier: Apache-2.0
"""Texts from outside without secrets: excerpts for messages, JSON values, and texts of the HTTP libraries.

Log messages and exceptions of the HTTP libraries can contain parts of a response: `BadStatusLine` and
`InvalidChunkLength` contain a line of it, and urllib3 logs them before a repetition. It also logs invalid headers.
While a request runs, this module removes the request's secrets from both.
"""

from __future__ import annotations

import html
import json
import logging
import re
import threading
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from urllib.parse import quote, quote_plus

from airflow_flowservice.exceptions import FlowServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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


# --- texts of the HTTP libraries ---

P = ParamSpec("P")
T = TypeVar("T")

_LOGGERS = (
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
)

_ADDRESS_ERRORS = ("LocationParseError", "ProxySchemeUnknown", "InvalidProxyURL")
_ADDRESS_REMEDY = (
    "check the connection's host, and the address of the proxy in HTTPS_PROXY: special characters in its user name and "
    "password must be quoted (/ as %2F, # as %23, @ as %40)"
)


class _Request(threading.local):
    """Request of this thread: its secrets, or None if no request runs."""

    secrets: tuple[str, ...] | None = None


_request = _Request()


def hides_secrets(send: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that sends a request, so that log messages and errors do not contain its secrets.

    The secrets are the function's keyword argument `secrets`. A `FlowServiceError` that the function raises has no
    cause and no context, because their texts would contain what the server sent.
    """

    @wraps(send)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        earlier, _request.secrets = _request.secrets, cast("Any", kwargs).get("secrets", ())
        _add_log_filter()
        try:
            return send(*args, **kwargs)
        except FlowServiceError as error:
            error.__cause__ = error.__context__ = None
            raise
        finally:
            _request.secrets = earlier

    return call


def address_remedy(error: BaseException) -> str | None:
    """Return the remedy of an exception about an address, which can be that of a proxy; None for any other."""
    return _ADDRESS_REMEDY if type(error).__name__ in _ADDRESS_ERRORS else None


def excerpt_of_exception(error: BaseException) -> str:
    """Return class and text of a library's exception, on one line without the secrets of this thread's request.

    The text of an exception about an address is omitted, because it can contain the password of a proxy.
    """
    if type(error).__name__ in _ADDRESS_ERRORS:
        return type(error).__name__
    return f"{type(error).__name__}: {excerpt(str(error), secrets=_request.secrets or ())}"


class _LogFilter(logging.Filter):
    """Filter that removes secrets, line breaks and the traceback from the records of requests of this package."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _request.secrets is not None:
            record.msg = excerpt(record.getMessage(), secrets=_request.secrets, length=MESSAGE_LENGTH)
            record.args = record.exc_info = record.exc_text = None
        return True


_log_filter = _LogFilter()


def _add_log_filter() -> None:
    # At each request, because a new configuration of logging may have removed it. Adding it again has no effect.
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_log_filter)
