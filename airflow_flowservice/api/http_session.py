"""HTTP requests to one host: timeouts, retries, and whether a failed request was sent."""

from __future__ import annotations

import os
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from random import uniform
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from airflow_flowservice import __version__
from airflow_flowservice.api.json_values import UNREADABLE, parse_json
from airflow_flowservice.api.library_texts import excerpt_of_exception, hides_secrets
from airflow_flowservice.api.redaction import excerpt, may_contain, redact_json
from airflow_flowservice.exceptions import (
    ApiError,
    ConfigurationError,
    NoAnswerError,
    NotSentError,
    UnreadableAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from requests.auth import AuthBase
    from urllib3.response import BaseHTTPResponse

CONNECT_TIMEOUT_S = 10.0
MAX_RETRY_AFTER_S = 120.0
_MAX_BACKOFF_S = 30.0
_BUSY_OR_BROKEN = frozenset({429, *range(500, 600)})
_HALF_A_SECOND = timedelta(milliseconds=500)
"""`Date` has whole seconds; the middle of its second is the best estimate."""
_HEADERS = {"Accept": "application/json", "User-Agent": f"airflow-flowservice/{__version__}"}


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
        """The `x-request-id`, which Adobe's support needs."""
        found = self.headers.get("x-request-id") or self.headers.get("x-adobe-request-id")
        return found or None

    @property
    def excerpt(self) -> str:
        """Beginning of the body without secrets, or a statement that the body is empty."""
        return repr(excerpt(self.body, secrets=self.secrets)) if self.body.strip() else "an empty body"

    @property
    def is_html(self) -> bool:
        """True if the body is an HTML page, which proxies and gateways send."""
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


class HttpSession:
    """Requests to one host, with timeouts, retries and without redirects; safe to share among threads.

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
        self._repeatable = _retry_all(max_attempts, pause)
        self._unrepeatable = _retry_unsent(max_attempts, pause)
        self._pooled = self._new_session(self._repeatable)

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
    ) -> HttpResponse:
        """Send a request that changes nothing; repeat it after connection errors, 429 and 5xx.

        :param path: quoted path with its query; begins with a slash.
        :param body: JSON text, or the fields of a form.
        :raises NotSentError: no connection could be made.
        :raises NoAnswerError: no complete response arrived.
        """
        retry: urllib3.Retry = self._repeatable
        while True:
            try:
                return self._request(self._pooled, method, path, headers or {}, body, auth, secrets)
            except requests.exceptions.ChunkedEncodingError as error:
                retry = self._retry_incomplete_response(retry, method, path, error)

    @hides_secrets
    def send_once(
        self,
        path: str,
        *,
        headers: Mapping[str, str],
        body: str | None,
        auth: AuthBase,
        secrets: tuple[str, ...] = (),
    ) -> HttpResponse:
        """Send a POST that creates something; repeat it only if it was not sent, or if the response is 429.

        :raises NotSentError: no connection could be made, so nothing was created.
        :raises NoAnswerError: no complete response arrived, so the outcome is unknown.
        """
        # The POST has its own connection: after a reset of a kept-alive connection, its outcome would be unknown.
        headers = {**headers, "Connection": "close"}
        with self._new_session(self._unrepeatable) as session:
            try:
                return self._request(session, "POST", path, headers, body, auth, secrets)
            except requests.exceptions.ChunkedEncodingError as error:
                raise self._error_of(error) from error

    def close(self) -> None:
        """Close idle connections."""
        self._pooled.close()

    def __enter__(self) -> HttpSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_session(self, retry: urllib3.Retry) -> requests.Session:
        session = requests.Session()
        session.headers.update(_HEADERS)
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Plain http is allowed on loopback only; a proxy from the environment would receive the secret.
        session.trust_env = self.base_url.startswith("https:")
        adapter = _SentTrackingAdapter(max_retries=retry)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def _request(
        self,
        session: requests.Session,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: str | Mapping[str, str] | None,
        auth: AuthBase | None,
        secrets: tuple[str, ...],
    ) -> HttpResponse:
        _last_attempt.sent = None
        try:
            received = session.request(
                method,
                self.base_url + path,
                headers=dict(headers),
                data=body.encode() if isinstance(body, str) else body,
                auth=auth or _no_auth,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.exceptions.ChunkedEncodingError:
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._error_of(error) from error
        response = HttpResponse(
            status=received.status_code,
            body=received.content,
            headers={name.lower(): value for name, value in received.headers.items()},
            secrets=secrets,
        )
        self._update_clock_offset(response)
        return response

    def _retry_incomplete_response(
        self, retry: urllib3.Retry, method: str, path: str, error: Exception
    ) -> urllib3.Retry:
        """Pause before a repetition, and return the next state.

        :raises NoAnswerError: there is no attempt left.
        """
        try:
            retry = retry.increment(method, path, error=urllib3.exceptions.ProtocolError(str(error)))
        except urllib3.exceptions.MaxRetryError:
            raise self._error_of(error) from error
        retry.sleep()
        return retry

    def _error_of(self, error: Exception) -> ApiError | ConfigurationError:
        cause = _innermost(error)
        reason = excerpt_of_exception(cause)
        if isinstance(error, requests.exceptions.ContentDecodingError):
            return UnreadableAnswerError(f"the response of {self.host} cannot be decompressed ({reason})")
        if remedy := _certificate_remedy(error, cause):
            return NotSentError(f"no connection to {self.host} could be made ({reason})", remedy=remedy)
        if isinstance(error, ValueError):
            return ConfigurationError(f"no request can be sent to {self.host} ({reason})")
        if _last_attempt.sent is False or isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
            return NotSentError(f"no connection to {self.host} could be made ({reason})")
        return NoAnswerError(f"the request was sent to {self.host}, but no complete response arrived ({reason})")

    def _update_clock_offset(self, response: HttpResponse) -> None:
        date = http_date(response.headers.get("date"))
        if date is not None and "age" not in response.headers:
            self.clock_offset = date + _HALF_A_SECOND - datetime.now(timezone.utc)


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
    """Return the remedy of an error of TLS certificates that occurs before a request is sent; None if it is another."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    name = next((name for name in names if os.environ.get(name)), names[0])
    path = os.environ.get(name)
    where = "in the environment of the workers and the triggerer; a retry is safe"
    # `requests` raises a plain OSError if there is no such file, before it connects.
    if "TLS CA certificate bundle" in str(error):
        return f"set {name} ({excerpt(path or 'not set')}) to an existing file of CA certificates, {where}"
    is_tls = isinstance(cause, ssl.SSLError) or isinstance(error, requests.exceptions.SSLError)
    if _last_attempt.sent is not False or not is_tls:
        return None
    return (
        f"if a proxy or an internal authority issues the certificate, set {name} ({excerpt(path or 'not set')}) to a "
        f"file with its CA certificate, {where}; otherwise check the connection's host and this machine's clock"
    )


# --- retries ---


class PausingRetry(urllib3.Retry):
    """`Retry` that also pauses before the first repetition, and limits the pause that `Retry-After` requests."""

    pause: Callable[[float], None] = staticmethod(time.sleep)

    def new(self, **kwargs: Any) -> PausingRetry:
        """Return the next state, with the same pause function."""
        following = super().new(**kwargs)
        following.pause = self.pause
        return following

    def get_backoff_time(self) -> float:
        """Return urllib3's backoff in seconds; urllib3 itself does not pause before the first repetition."""
        one_failure_more = self.new(history=(*self.history[:1], *self.history))
        return super(PausingRetry, one_failure_more).get_backoff_time()

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Pause as long as `Retry-After` requests, at most `MAX_RETRY_AFTER_S`; without it, use the backoff."""
        requested = 0.0
        if response:
            requested = retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date"))
        if requested > 0:
            self.pause(min(requested * uniform(1.0, 1.1), MAX_RETRY_AFTER_S))
        else:
            self.pause(self.get_backoff_time())


def _retry_all(max_attempts: int, pause: Callable[[float], None]) -> PausingRetry:
    """Return the retries of requests that change nothing: after connection errors, 429 and 5xx."""
    return _new_retry(pause, total=max_attempts - 1, status_forcelist=_BUSY_OR_BROKEN)


def _retry_unsent(max_attempts: int, pause: Callable[[float], None]) -> PausingRetry:
    """Return the retries of requests that create something: if no connection was made, or after 429."""
    return _new_retry(pause, total=max_attempts - 1, read=0, other=0, status_forcelist=frozenset({429}))


def _new_retry(pause: Callable[[float], None], **limits: Any) -> PausingRetry:
    retry = PausingRetry(
        redirect=False,
        allowed_methods=frozenset({"GET", "POST"}),
        raise_on_status=False,
        # 0.25 s, doubled with each failure, plus up to 0.25 s
        backoff_factor=0.125,
        backoff_jitter=0.25,
        backoff_max=_MAX_BACKOFF_S,
        # If True, urllib3 repeats a POST after 413 and 503 with a `Retry-After`. `sleep` reads the header instead.
        respect_retry_after_header=False,
        **limits,
    )
    retry.pause = pause
    return retry


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


# --- connections that record whether a request was sent ---
#
# `requests` does not report this: a failed TLS handshake and an incomplete response raise the same classes.
# After a failed handshake, a POST created nothing; after an incomplete response, its outcome is unknown.


class _LastAttempt(threading.local):
    """Record of this thread's last attempt: True if it was sent; None if there is no record (SOCKS proxies)."""

    sent: bool | None = None


_last_attempt = _LastAttempt()


class _SentTrackingConnection(HTTPConnection):
    """Connection that records whether a request was sent."""

    def connect(self) -> None:
        _last_attempt.sent = False
        super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.is_closed:
            self.connect()
        _last_attempt.sent = True
        super().request(*args, **kwargs)


class _SentTrackingTLSConnection(_SentTrackingConnection, HTTPSConnection):
    """TLS connection that records whether a request was sent."""


class _SentTrackingPool(urllib3.HTTPConnectionPool):
    """Pool of `_SentTrackingConnection`."""

    ConnectionCls = _SentTrackingConnection


class _SentTrackingTLSPool(urllib3.HTTPSConnectionPool):
    """Pool of `_SentTrackingTLSConnection`."""

    ConnectionCls = _SentTrackingTLSConnection


class _SentTrackingAdapter(HTTPAdapter):
    """Adapter whose connections record whether a request was sent, except through SOCKS proxies."""

    pools: ClassVar[dict[str, Any]] = {"http": _SentTrackingPool, "https": _SentTrackingTLSPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self.pools
        return manager
