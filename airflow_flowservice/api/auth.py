# SPDX-License-Identifier: Apache-2.0
"""Access tokens of Adobe's identity service (IMS), by OAuth server-to-server.

All clients of a process that have the same credential share one token. One thread fetches it while the other threads
wait, and it is replaced some time before it expires. With a `SharedCache`, the processes of a machine share it also;
otherwise it is kept in memory only.
Source: https://developer.adobe.com/developer-console/docs/guides/authentication/ServerToServerAuthentication/
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from requests.auth import AuthBase

from airflow_flowservice.api.json_values import text_at, value_at
from airflow_flowservice.api.responses import GIVEN_UP, parse_error_body
from airflow_flowservice.exceptions import (
    ApiError,
    AuthenticationError,
    FlowServiceError,
    NoAnswerError,
    NotSentError,
    RateLimitedError,
    ServerError,
    UnreadableAnswerError,
    from_dict,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest

    from airflow_flowservice.api.http_session import HttpResponse, HttpSession
    from airflow_flowservice.api.responses import ErrorBody
    from airflow_flowservice.api.shared_cache import CachedValue, SharedCache

DEFAULT_SCOPES = "openid,AdobeID,session,additional_info.projectedProductContext,read_organizations"
"""Scopes that Adobe Developer Console grants a credential with the Experience Platform API."""

IMS_PATH = "/ims/token/v3"

_DEFAULT_LIFETIME_S = 3600.0
_MAX_LIFETIME_S = 7 * 24 * 3600
"""Adobe's tokens are valid for a day: a larger `expires_in` is in milliseconds."""

_PAGE = re.compile(rb"\s*<(!doctype )?html\b", re.IGNORECASE)

_MAX_TOKEN_LENGTH = 16_384
"""Adobe's tokens have about 2,000 characters. Airflow masks the token in each line of its logs."""


class Auth(Protocol):
    """Source of tokens for the transport."""

    def token(self, *, within_s: float = math.inf) -> str:
        """Return a token; fetch one if necessary, within some seconds."""

    def renew(self, rejected: str, *, within_s: float = math.inf) -> bool:
        """Replace a token after a 401; return True if there is another token than the rejected one."""

    def renew_shared(self, refused: str, *, within_s: float = math.inf) -> bool:
        """Replace a token of another process after a 403; return True if there is another token."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the values that no message may contain."""


class Bearer(AuthBase):
    """Authorization of one request with one token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class GivenToken(AuthBase):
    """Ready token, used unchanged; it is never fetched and cannot be renewed.

    :param on_token: called once with the token, so that logs can mask it.
    """

    def __init__(self, token: str, *, on_token: Callable[[str], None] | None = None) -> None:
        self._token = token
        if on_token:
            on_token(token)

    def token(self, *, within_s: float = math.inf) -> str:
        """Return the token."""
        return self._token

    def renew(self, rejected: str, *, within_s: float = math.inf) -> bool:
        """Return False: the token cannot be renewed."""
        return False

    def renew_shared(self, refused: str, *, within_s: float = math.inf) -> bool:
        """Return False: the token is not of another process."""
        return False

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the token."""
        return (self._token,)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return Bearer(self._token)(request)


class ImsAuth(AuthBase):
    """Tokens for a client id and secret.

    :param http: requests to the IMS host.
    :param scopes: comma-separated.
    :param on_token: called with each new token before it is used, so that logs can mask it.
    :param clock: monotonic clock, in seconds.
    :param cache: shares tokens among processes; None, or a cache that stores no secrets, shares none.
    :param org_id: organization in which the token is used. A token that one organization refuses is not removed for
        another one.
    :param reuses_tokens: False to share no token with other clients of the process, to test the credential.
    """

    def __init__(
        self,
        *,
        http: HttpSession,
        client_id: str,
        client_secret: str,
        scopes: str = DEFAULT_SCOPES,
        on_token: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        cache: SharedCache | None = None,
        org_id: str = "",
        reuses_tokens: bool = True,
    ) -> None:
        self._http = http
        self._client_id = client_id
        self._client_secret = client_secret
        self._scopes = scopes
        self._on_token = on_token
        self._clock = clock
        self._last: str | None = None
        credential = (http.base_url, client_id, scopes, client_secret)
        self._shared = _shared_token(*credential) if reuses_tokens else _SharedToken()
        self._cached: _CachedToken | None = None
        if reuses_tokens and cache is not None and cache.stores_secrets:
            name = cache.name("token", http.base_url, client_id, client_secret, scopes, org_id)
            self._cached = _CachedToken(cache, name, clock)

    def __repr__(self) -> str:
        return f"<ImsAuth client id {self._client_id} at {self._http.host}>"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return Bearer(self.token())(request)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the client secret and the last token."""
        return (self._client_secret, self._last or "")

    def token(self, *, within_s: float = math.inf) -> str:
        """Return a valid token; fetch one if there is none, or if it expires soon.

        :param within_s: limit in seconds for all attempts of the token's request, or for the wait for another thread.
        :raises AuthenticationError: IMS rejects the client id and secret.
        :raises ApiError: the request to IMS failed, and there is no unexpired token.
        """
        try:
            token = self._shared.get(partial(self._fetch, within_s), self._clock, within_s=within_s)
        except ApiError as error:
            unexpired = self._shared.unexpired(self._clock)
            if unexpired is None or not error.retryable:
                raise
            token = unexpired
        return self._announce(token.value)

    def renew(self, rejected: str, *, within_s: float = math.inf) -> bool:
        """Replace a token that was rejected with a 401; return True.

        :raises ApiError: no other token could be fetched.
        """
        fetch = partial(self._fetch, within_s, rejected=rejected)
        self._announce(self._shared.get(fetch, self._clock, rejected=rejected, within_s=within_s).value)
        return True

    def renew_shared(self, refused: str, *, within_s: float = math.inf) -> bool:
        """Replace a token of another process that was refused with a 403; return True if there is another token.

        The permission may have been granted after the token was issued, and without a cache this process would have
        requested a token. The refused token remains valid for other requests. If no other token can be fetched,
        return False, so that the 403 is the error.
        """
        if self._cached is None or not self._shared.is_of_other_process(refused):
            return False
        fetch = partial(self._cached.get, self._request, unwanted=refused, within_s=within_s)
        try:
            self._announce(self._shared.get(fetch, self._clock, rejected=refused, within_s=within_s).value)
        except ApiError:
            return False
        return True

    def _announce(self, token: str) -> str:
        """Call `on_token` with a new token, and return the token."""
        if token != self._last and self._on_token:
            self._on_token(token)
        self._last = token
        return token

    def _fetch(self, within_s: float, *, rejected: str | None = None) -> ImsToken:
        if self._cached is None:
            return self._request(within_s)
        return self._cached.get(self._request, unwanted=rejected, is_invalid=rejected is not None, within_s=within_s)

    def _request(self, within_s: float) -> ImsToken:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "scope": self._scopes,
        }
        response = self._http.send("POST", IMS_PATH, body=form, secrets=(self._client_secret,), within_s=within_s)
        return parse_token(response, now=self._clock(), client_id=self._client_id, host=self._http.host)


# --- one token for all clients of a credential ---


@dataclass(frozen=True, kw_only=True)
class ImsToken:
    """Access token and its times, in seconds of the clock of `ImsAuth`.

    :param is_of_other_process: True if the token was read from the cache, so that it may be hours old.
    """

    value: str = field(repr=False)
    refresh_at: float
    expires_at: float
    is_of_other_process: bool = False


@dataclass(frozen=True)
class _CachedToken:
    """Token of one credential that the processes of this machine share."""

    cache: SharedCache = field(repr=False)
    name: str
    clock: Callable[[], float] = field(repr=False)

    def get(
        self,
        request: Callable[[float], ImsToken],
        *,
        unwanted: str | None,
        is_invalid: bool = False,
        within_s: float,
    ) -> ImsToken:
        """Return the token of another process, or request one. While one process requests it, the others wait.

        :param request: requests a token of IMS within some seconds.
        :param unwanted: token that Flow Service refused.
        :param is_invalid: the refused token is invalid for all requests, so it is removed.
        """
        if (token := self._read(unwanted)) is not None:
            return token
        ends_at = time.monotonic() + within_s
        # The other half remains for the request, also if a process with the lock is stopped.
        with self.cache.lock(self.name, within_s=within_s / 2):
            if (token := self._read(unwanted)) is not None:
                return token
            if is_invalid:
                self.cache.remove(self.name)
            return self._request(request, unwanted=unwanted, within_s=ends_at - time.monotonic())

    def _request(self, request: Callable[[float], ImsToken], *, unwanted: str | None, within_s: float) -> ImsToken:
        """Request a token and share it. If IMS cannot be reached, return the shared token that expires soon."""
        try:
            token = request(within_s)
        except ApiError as error:
            # A refused token remains in the cache if it could not be removed.
            if not error.retryable or (due := self._read(unwanted, is_due=True)) is None:
                raise
            return due
        now = self.clock()
        times = {"refresh_after_s": token.refresh_at - now, "expires_after_s": token.expires_at - now}
        self.cache.write(self.name, {"token": token.value, **times})
        return token

    def _read(self, unwanted: str | None, *, is_due: bool = False) -> ImsToken | None:
        """Return the stored token; None if there is none that can be used.

        :param unwanted: token that is not returned.
        :param is_due: also return a token that is to be replaced soon.
        """
        found = self.cache.read(self.name, max_age_s=_MAX_LIFETIME_S)
        token = _token_from_cache(found, now=self.clock()) if found is not None else None
        if token is None or token.value == unwanted:
            return None
        return token if self.clock() < (token.expires_at if is_due else token.refresh_at) else None


class _SharedToken:
    """Token of one credential in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: ImsToken | None = None
        self._pending: Future[ImsToken] | None = None

    def get(
        self,
        fetch: Callable[[], ImsToken],
        clock: Callable[[], float],
        *,
        rejected: str | None = None,
        within_s: float = math.inf,
    ) -> ImsToken:
        """Return the token. If it is due or was rejected, one caller fetches a new one and the other callers wait."""
        with self._lock:
            token = self._token
            if token and token.value != rejected and clock() < token.refresh_at:
                return token
            pending, is_first = self._pending, self._pending is None
            if pending is None:
                pending = self._pending = Future()
        return self._fetch_for_all(fetch, pending) if is_first else _wait_for(pending, within_s=within_s)

    def unexpired(self, clock: Callable[[], float]) -> ImsToken | None:
        """Return the token if it is still valid, although it is due for renewal."""
        with self._lock:
            return self._token if self._token and clock() < self._token.expires_at else None

    def is_of_other_process(self, value: str) -> bool:
        """Return whether this is the token, and was read from the cache."""
        with self._lock:
            return self._token is not None and self._token.value == value and self._token.is_of_other_process

    def _fetch_for_all(self, fetch: Callable[[], ImsToken], pending: Future[ImsToken]) -> ImsToken:
        try:
            token = fetch()
        except BaseException as error:
            with self._lock:
                self._pending = None
            known = isinstance(error, FlowServiceError)
            pending.set_exception(error if known else NotSentError("fetching the token was interrupted"))
            raise
        with self._lock:
            self._token, self._pending = token, None
        pending.set_result(token)
        return token


def _wait_for(pending: Future[ImsToken], *, within_s: float) -> ImsToken:
    """Return the token that another thread fetches.

    :raises NotSentError: the other thread has no token within these seconds.
    :raises FlowServiceError: a copy of that thread's error, because each caller adds its own fields to an error.
    """
    try:
        return pending.result(None if math.isinf(within_s) else max(within_s, 0.0))
    except FutureTimeoutError as error:
        raise NotSentError(f"no token could be fetched within {within_s:.3g} s") from error
    except FlowServiceError as error:
        raise from_dict(error.to_dict()) from error


_shared_tokens: dict[tuple[str, str, str, str], _SharedToken] = {}
_shared_tokens_lock = threading.Lock()


def _shared_token(ims_url: str, client_id: str, scopes: str, client_secret: str) -> _SharedToken:
    digest = hashlib.sha256(client_secret.encode()).hexdigest()
    with _shared_tokens_lock:
        return _shared_tokens.setdefault((ims_url, client_id, scopes, digest), _SharedToken())


# --- responses of IMS ---


def parse_token(response: HttpResponse, *, now: float, client_id: str, host: str) -> ImsToken:
    """Return the token of IMS's response.

    :param now: the current time, in seconds of the clock of the token's times.
    :raises AuthenticationError: IMS refused; the message names client id and host.
    :raises ApiError: IMS is busy or failed, or its response has no token.
    """
    if not 200 <= response.status < 300:
        raise _refusal(response, client_id=client_id, host=host)
    found = response.json()
    value = text_at(found, "access_token", length=None)
    if not _is_token(value):
        message = f"IMS at {host} sent {_describe_without_token(response)}"
        raise _error(UnreadableAnswerError, response, message, remedy=_CHECK_IMS_URL)
    lifetime = lifetime_s(value_at(found, "expires_in"))
    return ImsToken(value=value, refresh_at=now + lifetime - min(300.0, lifetime / 10), expires_at=now + lifetime)


def _describe_without_token(response: HttpResponse) -> str:
    """Return the page of a proxy, or the type and the size of another body, whose text may be a token."""
    if not response.body.strip() or _PAGE.match(response.body):
        return response.excerpt
    content_type = response.headers.get("content-type", "unknown type")
    return f"a response without an access token ({content_type}, {len(response.body)} bytes)"


def _is_token(value: Any) -> TypeGuard[str]:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TOKEN_LENGTH:
        return False
    return value.isascii() and value.isprintable() and " " not in value


def _token_from_cache(found: CachedValue, *, now: float) -> ImsToken | None:
    """Return the token of an entry of the cache; None if the entry has another form."""
    value = found.value.get("token")
    stored: list[Any] = [found.value.get(name) for name in ("refresh_after_s", "expires_after_s")]
    seconds = [
        float(each) - found.age_s for each in stored if type(each) in (int, float) and 0 <= each <= _MAX_LIFETIME_S
    ]
    if not _is_token(value) or len(seconds) != len(stored):
        return None
    refresh_after_s, expires_after_s = seconds
    times = {"refresh_at": now + refresh_after_s, "expires_at": now + expires_after_s}
    return ImsToken(value=value, **times, is_of_other_process=True)


def lifetime_s(expires_in: Any) -> float:
    """Return a token's lifetime in seconds, from seconds or milliseconds, a number or a string; default: an hour."""
    try:
        lifetime = float(expires_in)
    except (TypeError, ValueError, OverflowError):
        return _DEFAULT_LIFETIME_S
    if isinstance(expires_in, bool) or not math.isfinite(lifetime) or lifetime < 0:
        return _DEFAULT_LIFETIME_S
    return lifetime / 1000 if lifetime > _MAX_LIFETIME_S else lifetime


_CHECK_IMS_URL = "check ims_url in the connection's extra; a proxy or a wrong host sends such a response"


def _refusal(response: HttpResponse, *, client_id: str, host: str) -> ApiError:
    body = parse_error_body(response)
    message = f"IMS at {host} returned no token for client id {client_id}: {body.message}"
    if response.status == 429:
        return _error(RateLimitedError, response, message, body.code)
    if response.status >= 500:
        return _error(ServerError, response, message, body.code)
    if response.status in GIVEN_UP:
        return _error(NoAnswerError, response, message, body.code)
    if response.status < 400 or response.is_html or response.status in (404, 405):
        return _error(UnreadableAnswerError, response, message, body.code, _CHECK_IMS_URL)
    return _error(AuthenticationError, response, message, body.code, _remedy_of_refusal(body))


def _remedy_of_refusal(body: ErrorBody) -> str | None:
    """Return a remedy for the invalid part of the credential, or None if IMS does not name it.

    IMS sends `invalid client_secret parameter` or `invalid client_id parameter`, both with `invalid_client`.
    """
    if body.code == "invalid_scope":
        return "check the scopes in the connection's extra against those of the credential in Adobe Developer Console"
    if body.code != "invalid_client":
        return None
    message = body.message.lower()
    if "secret" in message:
        return (
            "set password (client secret) of the connection to a secret that Adobe Developer Console shows for the "
            "credential with this client id"
        )
    if re.search(r"client[ _]?id|unknown", message):
        return (
            "set login of the connection to the client id of an OAuth server-to-server credential in Adobe Developer "
            "Console"
        )
    return None


def _error(
    kind: type[ApiError], response: HttpResponse, message: str, code: str | None = None, remedy: str | None = None
) -> ApiError:
    return kind(message, http_status=response.status, code=code, request_id=response.request_id, remedy=remedy)
