# SPDX-License-Identifier: Apache-2.0
"""HTTP requests to one host: timeouts, retries, and whether a failed request was sent."""

from __future__ import annotations

import math
import os
import ssl
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from random import uniform
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3

from airflow_flowservice import __version__
from airflow_flowservice.api.json_values import UNREADABLE, parse_json, text_at
from airflow_flowservice.api.redaction import (
    MAX_INPUT_LENGTH,
    address_remedy,
    excerpt,
    excerpt_of_exception,
    hides_secrets,
    may_contain,
    redact_json,
)
from airflow_flowservice.api.response_limits import (
    ACCEPT_ENCODING,
    DecompressionError,
    ResponseTooLargeError,
    SendAttempt,
    SessionWithoutRedirects,
    TrackingAdapter,
    body_pieces,
    limited_attempt,
    read_body,
)
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowServiceError,
    NoAnswerError,
    NotSentError,
    UnreadableAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from types import TracebackType

    from requests.auth import AuthBase

CONNECT_TIMEOUT_S = 10.0
ATTEMPT_TIMEOUTS = 2
"""Limit of an attempt as a whole, from connecting to the last byte of the response, as a multiple of `timeout_s`."""
MAX_RETRY_AFTER_S = 120.0
_MAX_BACKOFF_S = 30.0
_BUSY_OR_BROKEN = frozenset({408, 425, 429, 460, 499, *range(500, 600)})
_HALF_A_SECOND = timedelta(milliseconds=500)
"""`Date` has whole seconds; the middle of its second is the best estimate."""
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": ACCEPT_ENCODING,
    "User-Agent": f"airflow-flowservice/{__version__}",
}


@dataclass(frozen=True, kw_only=True)
class HttpResponse:
    """Response to one request, independent of its connection.

    :param status: HTTP status.
    :param body: decompressed body.
    :param headers: headers with lower-case names; each value is one printable line of at most 200 characters.
    :param secrets: values that no text of the response may contain, in headers or in the body.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        headers = {name: excerpt(value, secrets=self.secrets) for name, value in self.headers.items()}
        object.__setattr__(self, "headers", headers)

    @property
    def request_id(self) -> str | None:
        """Return the `x-request-id`, which Adobe's support needs; without it, the id in the body's `report`."""
        found = self.headers.get("x-request-id") or self.headers.get("x-adobe-request-id")
        if found:
            return found
        in_body = text_at(self.json(), "report", "request-id", length=MAX_INPUT_LENGTH)
        return excerpt(in_body, secrets=self.secrets) if in_body else None

    @property
    def excerpt(self) -> str:
        """Return the beginning of the body without secrets, or a statement that the body is empty."""
        return repr(excerpt(self.body, secrets=self.secrets)) if self.body.strip() else "an empty body"

    @property
    def is_html(self) -> bool:
        """Return True if the body is an HTML page, which proxies and gateways send."""
        content_type = self.headers.get("content-type", "").lower()
        return "html" in content_type or self.body.lstrip()[:1] == b"<"

    def json(self) -> Any:
        """Return the body's JSON value, or `json_values.UNREADABLE`. Returned secrets are replaced by `***`."""
        value = parse_json(self.body)
        if not may_contain(self.body, secrets=self.secrets):
            return value
        try:
            return redact_json(value, secrets=self.secrets)
        except RecursionError:
            return UNREADABLE


@dataclass(frozen=True, kw_only=True)
class StreamedResponse(HttpResponse):
    """Response with status 2xx whose body is read in pieces; `body` is empty.

    :param pieces: generator of the decompressed body, which can be consumed one time. Closing it closes the connection.
    """

    pieces: Generator[bytes, None, None] = field(repr=False)


class HttpSession:
    """Requests to one host, with timeouts, retries and without redirects; safe to share among threads.

    An attempt takes at most `ATTEMPT_TIMEOUTS` times `timeout_s`. All attempts of a request together take at most
    `max_attempts + 1` times `timeout_s`, without the pauses between them.

    :param base_url: scheme, host and optional path, without a trailing slash.
    :param timeout_s: seconds to wait for (each part of) a response.
    :param max_attempts: maximum number of attempts of a request that may be repeated.
    :param pause: function that waits some seconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float,
        max_attempts: int,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc
        self.clock_offset: timedelta | None = None
        self._timeout = (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        self._max_attempts = max_attempts
        self._pause = pause
        self._pooled = self._new_session()

    @hides_secrets
    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: str | Mapping[str, str] | None = None,
        auth: AuthBase | None = None,
        secrets: tuple[str, ...] = (),
        within_s: float = math.inf,
    ) -> HttpResponse:
        """Send a request that changes nothing; repeat it after connection errors, 429 and 5xx.

        :param path: quoted path with its query; begins with a slash.
        :param body: JSON text, or the fields of a form.
        :param within_s: limit in seconds for all attempts and their pauses.
        :raises NotSentError: no connection could be made.
        :raises NoAnswerError: no complete response arrived.
        :raises UnreadableAnswerError: the response is too large, or cannot be decompressed.
        """
        attempt = partial(self._attempt, self._pooled, method, path, headers or {}, body, auth, secrets)
        return self._send(attempt, is_repeatable=_can_repeat_read, within_s=within_s)

    @hides_secrets
    def send_once(
        self,
        path: str,
        *,
        headers: Mapping[str, str],
        body: str | None,
        auth: AuthBase,
        secrets: tuple[str, ...] = (),
        begins_within_s: float = math.inf,
    ) -> HttpResponse:
        """Send a POST that creates something; repeat it only if it was not sent, or if the response is 429.

        :param begins_within_s: seconds after which it is not repeated.
        :raises NotSentError: no connection could be made, so nothing was created.
        :raises NoAnswerError: no complete response arrived, so the outcome is unknown.
        :raises UnreadableAnswerError: the response cannot be read, so the outcome is unknown.
        """
        headers = {**headers, "Connection": "close"}

        def attempt(seconds: float) -> HttpResponse | FlowServiceError:
            # Each POST has its own connection: after a reset of a kept-alive connection, its outcome would be unknown.
            with self._new_session() as session:
                return self._attempt(session, "POST", path, headers, body, auth, secrets, seconds)

        return self._send(attempt, is_repeatable=_can_repeat_post, within_s=math.inf, begins_within_s=begins_within_s)

    @hides_secrets
    def stream(
        self,
        path: str,
        *,
        headers: Mapping[str, str],
        auth: AuthBase,
        secrets: tuple[str, ...] = (),
        within_s: float,
        max_bytes: int,
    ) -> HttpResponse:
        """Send a GET for a long body; repeat it as `send` does, but only before the body begins.

        Return a `StreamedResponse` for a status 2xx. Its `pieces` raise the errors of `send`; these errors contain no
        part of the body.

        :param within_s: limit in seconds for the body of one attempt.
        :param max_bytes: maximum size of the body, as transferred and decompressed.
        """

        def attempt(seconds: float) -> HttpResponse | FlowServiceError:
            def read(received: requests.Response, sent: SendAttempt) -> HttpResponse:
                if not 200 <= received.status_code < 300:
                    return _read(received, secrets)
                sent.extend(seconds=within_s, max_bytes=max_bytes)
                pieces = self._pieces(received, sent, max_bytes=max_bytes)
                return StreamedResponse(**_head_of(received, secrets), pieces=pieces)

            return self._attempt(self._pooled, "GET", path, headers, None, auth, secrets, seconds, read=read)

        return self._send(attempt, is_repeatable=_can_repeat_read, within_s=math.inf)

    def close(self) -> None:
        """Close idle connections."""
        self._pooled.close()

    def __enter__(self) -> HttpSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_session(self) -> requests.Session:
        session = SessionWithoutRedirects()
        session.headers.update(_HEADERS)
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Plain http is allowed on loopback only; a proxy from the environment would receive the secret.
        session.trust_env = self.base_url.startswith("https:")
        adapter = TrackingAdapter(max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def _send(
        self,
        attempt: Callable[[float], HttpResponse | FlowServiceError],
        *,
        is_repeatable: Callable[[HttpResponse | FlowServiceError], bool],
        within_s: float,
        begins_within_s: float = math.inf,
    ) -> HttpResponse:
        """Make attempts until the result is final, or until the number of attempts or their time is used up.

        :param begins_within_s: seconds after which no further attempt begins.
        """
        started, timeout_s = time.monotonic(), self._timeout[1]
        ends_at, last_begin = started + within_s, started + min(within_s, begins_within_s)
        remaining = (self._max_attempts + 1) * timeout_s
        for failures in range(1, self._max_attempts + 1):
            began = time.monotonic()
            result = attempt(min(ATTEMPT_TIMEOUTS * timeout_s, remaining, ends_at - began))
            remaining -= time.monotonic() - began
            if failures == self._max_attempts or remaining <= 0 or not is_repeatable(result):
                break
            pause = pause_s(failures, result.headers if isinstance(result, HttpResponse) else {})
            if time.monotonic() + pause >= last_begin:
                break
            self._pause(pause)
        if isinstance(result, FlowServiceError):
            raise result
        return result

    def _attempt(
        self,
        session: requests.Session,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: str | Mapping[str, str] | None,
        auth: AuthBase | None,
        secrets: tuple[str, ...],
        seconds: float,
        *,
        read: Callable[[requests.Response, SendAttempt], HttpResponse] | None = None,
    ) -> HttpResponse | FlowServiceError:
        """Send a request one time within some seconds; return the response, or the error.

        :param read: creates the response; default: with its whole body.
        """
        with limited_attempt(seconds) as attempt:
            try:
                received = session.request(
                    method,
                    self.base_url + path,
                    headers=dict(headers),
                    data=body.encode() if isinstance(body, str) else body,
                    auth=auth or _no_auth,
                    timeout=(_positive(min(self._timeout[0], seconds)), _positive(min(self._timeout[1], seconds))),
                    allow_redirects=False,
                    stream=True,
                )
                response = read(received, attempt) if read else _read(received, secrets)
                self._update_clock_offset(response)
            except Exception as error:
                attempt.close()
                return self._error_of(error, attempt)
        return response

    def _pieces(
        self, received: requests.Response, attempt: SendAttempt, *, max_bytes: int
    ) -> Generator[bytes, None, None]:
        """Yield the body, and close the response at the end.

        :raises FlowServiceError: the body is incomplete, too large or invalid; without the text of the library's error,
            which can contain a part of the body.
        """
        failure = None
        try:
            yield from body_pieces(received.raw, limit=max_bytes, needs_end=True)
        except Exception as error:
            cause = _innermost(error)
            reason = str(cause) if isinstance(cause, ResponseTooLargeError) else type(cause).__name__
            failure = self._known_error(error, attempt, reason)
        finally:
            received.close()
            attempt.close()
        if failure:
            raise failure

    def _error_of(self, error: Exception, attempt: SendAttempt) -> FlowServiceError:
        """Return the package's error for any error of an attempt.

        An unexpected error before the request was sent is raised unchanged.
        """
        cause = _innermost(error)
        reason = excerpt_of_exception(cause)
        known = self._known_error(error, attempt, reason)
        known.__cause__ = error
        return known

    def _known_error(self, error: Exception, attempt: SendAttempt, reason: str) -> FlowServiceError:
        if isinstance(error, DecompressionError):
            return UnreadableAnswerError(f"the response of {self.host} cannot be decompressed ({reason})")
        if isinstance(error, ResponseTooLargeError):
            return UnreadableAnswerError(f"the response of {self.host} is too large ({reason})")
        limit = f" within {attempt.limit_s:.3g} s" if attempt.is_over else ""
        if attempt.sent:
            return NoAnswerError(
                f"the request was sent to {self.host}, but no complete response arrived{limit} ({reason})"
            )
        if remedy := _certificate_remedy(error, _innermost(error)):
            return NotSentError(f"no connection to {self.host} could be made ({reason})", remedy=remedy)
        if isinstance(error, ValueError):
            remedy = address_remedy(_innermost(error))
            return ConfigurationError(f"no request can be sent to {self.host} ({reason})", remedy=remedy)
        if isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError)):
            return NotSentError(f"no connection to {self.host} could be made{limit} ({reason})")
        raise error

    def _update_clock_offset(self, response: HttpResponse) -> None:
        date = http_date(response.headers.get("date"))
        if date is not None and "age" not in response.headers:
            self.clock_offset = date - datetime.now(timezone.utc) + _HALF_A_SECOND


def _positive(seconds: float) -> float:
    """Return a timeout that urllib3 accepts, also if no time is left."""
    return max(seconds, 0.001)


def _read(received: requests.Response, secrets: tuple[str, ...]) -> HttpResponse:
    try:
        body = read_body(received.raw)
    except BaseException:
        received.close()
        raise
    return HttpResponse(**_head_of(received, secrets), body=body)


def _head_of(received: requests.Response, secrets: tuple[str, ...]) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in received.headers.items()}
    return {"status": received.status_code, "headers": headers, "secrets": secrets}


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return the request unchanged. Without an `auth`, `requests` would read `.netrc`."""
    return request


def _innermost(error: BaseException) -> BaseException:
    """Return the error that `requests` and `urllib3` wrapped."""
    for inner in (getattr(error, "reason", None), *error.args[:1]):
        if isinstance(inner, BaseException):
            return _innermost(inner)
    return error


def _certificate_remedy(error: Exception, cause: BaseException) -> str | None:
    """Return the remedy of an error of TLS certificates before a request was sent; None if it is another error."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    name = next((name for name in names if os.environ.get(name)), names[0])
    path = os.environ.get(name)
    where = "in the environment of the workers and the triggerer; a retry is safe"
    # `requests` raises a plain OSError if there is no such file, before it connects.
    if "TLS CA certificate bundle" in str(error):
        return f"set {name} ({excerpt(path or 'not set')}) to an existing file of CA certificates, {where}"
    is_tls = isinstance(cause, ssl.SSLError) or isinstance(error, requests.exceptions.SSLError)
    if not is_tls:
        return None
    return (
        f"if a proxy or an internal authority issues the certificate, set {name} ({excerpt(path or 'not set')}) to a "
        f"file with its CA certificate, {where}; otherwise check the connection's host and this machine's clock"
    )


# --- retries ---


def _can_repeat_read(result: HttpResponse | FlowServiceError) -> bool:
    """Return whether to repeat a request that changes nothing: after connection errors, 429, 5xx and timeouts."""
    if isinstance(result, HttpResponse):
        return result.status in _BUSY_OR_BROKEN
    return isinstance(result, (NotSentError, NoAnswerError))


def _can_repeat_post(result: HttpResponse | FlowServiceError) -> bool:
    """Return whether to repeat a request that creates something: if it was not sent, or after 429."""
    if isinstance(result, HttpResponse):
        return result.status == 429
    return isinstance(result, NotSentError)


def pause_s(failures: int, headers: Mapping[str, str]) -> float:
    """Return the seconds before the next attempt.

    This is the time that `Retry-After` requests, at most `MAX_RETRY_AFTER_S`. Without it, it is 0.25 seconds,
    doubled with each failure, plus up to 0.25 seconds.

    :param failures: number of attempts so far.
    :param headers: of the response, with lower-case names.
    """
    requested = retry_after_s(headers.get("retry-after"), headers.get("date"))
    if requested > 0:
        return min(requested * uniform(1.0, 1.1), MAX_RETRY_AFTER_S)
    return min(0.25 * 2.0 ** min(failures - 1, 30) + uniform(0.0, 0.25), _MAX_BACKOFF_S)


def retry_after_s(retry_after: str | None, date: str | None = None) -> float:
    """Return the seconds that `Retry-After` requests; 0 if it is missing or invalid.

    urllib3's own parser raises an error for an invalid header, and compares a date with the local clock.

    :param retry_after: seconds or an HTTP date.
    :param date: the response's `Date`, so that the result does not depend on the local clock.
    """
    if not retry_after:
        return 0.0
    plain = retry_after.strip()
    if plain.isascii() and plain.isdigit():
        return float(plain[:9])
    until = http_date(plain)
    if until is None:
        return 0.0
    now = http_date(date) or datetime.now(timezone.utc)
    return max((until - now).total_seconds(), 0.0)


def http_date(text: str | None) -> datetime | None:
    """Return an HTTP date as an aware UTC datetime, or None if it is invalid."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or timezone.utc)
