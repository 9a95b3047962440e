"""One host over HTTP: a request becomes an `Answer`, or an error that says whether it was sent."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3

from airflow_flowservice import __version__
from airflow_flowservice.api import _retry, _wire
from airflow_flowservice.api._answer import Answer
from airflow_flowservice.api._text import excerpt
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

CONNECT_TIMEOUT_S = 10.0
_HALF_A_SECOND = timedelta(milliseconds=500)
"""`Date` has whole seconds; the middle of its second is the best guess."""
_HEADERS = {"Accept": "application/json", "User-Agent": f"airflow-flowservice/{__version__}"}


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps `requests` from looking into `.netrc`."""
    return request


class Http:
    """Requests to one host, with timeouts, retries and no redirects; safe to share among threads.

    :param base_url: scheme, host and perhaps a path, without a slash at the end.
    :param timeout_s: seconds to wait for (each part of) an answer.
    :param max_attempts: how often a request that may be repeated is made at most.
    :param pause: waits some seconds.
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
        self._repeatable = _retry.repeat_everything(max_attempts, pause)
        self._unrepeatable = _retry.repeat_what_was_not_taken(max_attempts, pause)
        self._pooled = self._session(self._repeatable)

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: str | Mapping[str, str] | None = None,
        auth: AuthBase | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Answer:
        """Make a request that changes nothing, and repeat it while that can help.

        :param path: begins with a slash; with the query, quoted.
        :param body: JSON text, or a form's fields.
        :raises NotSentError: no connection could be made.
        :raises NoAnswerError: no whole answer came.
        """
        retry: urllib3.Retry = self._repeatable
        while True:
            try:
                return self._request(self._pooled, method, path, headers or {}, body, auth, secrets)
            except requests.exceptions.ChunkedEncodingError as error:
                retry = self._after_half_an_answer(retry, method, path, error)

    def send_once(
        self,
        path: str,
        *,
        headers: Mapping[str, str],
        body: str | None,
        auth: AuthBase,
        secrets: tuple[str, ...] = (),
    ) -> Answer:
        """Make a POST that creates something; repeat it only when it was not sent, or answered by 429.

        It gets a connection of its own: on one that was kept alive, a reset would leave open whether
        the request arrived.

        :raises NotSentError: no connection could be made, so nothing was created.
        :raises NoAnswerError: no whole answer came, so nobody knows.
        """
        headers = {**headers, "Connection": "close"}
        with self._session(self._unrepeatable) as session:
            try:
                return self._request(session, "POST", path, headers, body, auth, secrets)
            except requests.exceptions.ChunkedEncodingError as error:
                raise self._failure(error) from error

    def close(self) -> None:
        """Close idle connections."""
        self._pooled.close()

    def __enter__(self) -> Http:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _session(self, retry: urllib3.Retry) -> requests.Session:
        session = requests.Session()
        session.headers.update(_HEADERS)
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Plain http means loopback here, and a proxy would take the secret off this machine.
        session.trust_env = self.base_url.startswith("https:")
        adapter = _wire.NotingAdapter(max_retries=retry)
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
    ) -> Answer:
        _wire.forget()
        try:
            response = session.request(
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
            raise self._failure(error) from error
        answer = Answer(
            status=response.status_code,
            body=response.content,
            headers={name.lower(): value for name, value in response.headers.items()},
            secrets=secrets,
        )
        self._look_at_the_clock(answer)
        return answer

    def _after_half_an_answer(self, retry: urllib3.Retry, method: str, path: str, error: Exception) -> urllib3.Retry:
        try:
            retry = retry.increment(method, path, error=urllib3.exceptions.ProtocolError(str(error)))
        except urllib3.exceptions.MaxRetryError:
            raise self._failure(error) from error
        retry.sleep()
        return retry

    def _failure(self, error: Exception) -> ApiError | ConfigurationError:
        cause = _innermost(error)
        reason = f"{type(cause).__name__}: {excerpt(str(cause))}"
        if isinstance(error, requests.exceptions.ContentDecodingError):
            return UnreadableAnswerError(f"the answer of {self.host} cannot be decompressed ({reason})")
        if isinstance(error, ValueError):
            return ConfigurationError(f"no request can be made to {self.host} ({reason})")
        if _wire.was_sent() is False or isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
            return NotSentError(f"no connection to {self.host} could be made ({reason})")
        return NoAnswerError(f"{self.host} was asked, and no whole answer came back ({reason})")

    def _look_at_the_clock(self, answer: Answer) -> None:
        there = _retry.http_date(answer.headers.get("date"))
        if there is not None and "age" not in answer.headers:
            self.clock_offset = there + _HALF_A_SECOND - datetime.now(timezone.utc)


def _innermost(error: BaseException) -> BaseException:
    """What `requests` and `urllib3` wrapped."""
    for inner in (getattr(error, "reason", None), *error.args[:1]):
        if isinstance(inner, BaseException):
            return _innermost(inner)
    return error
