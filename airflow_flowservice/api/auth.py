"""Access tokens of Adobe's identity service (IMS), by OAuth server-to-server.

One token serves all clients of a process that have the same credential. It lives in memory only, is
fetched by one thread while the others wait, and is replaced some time before it expires.
Source: https://developer.adobe.com/developer-console/docs/guides/authentication/ServerToServerAuthentication/
"""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from requests.auth import AuthBase

from airflow_flowservice.api._token import ImsToken, token_of
from airflow_flowservice.exceptions import ApiError, FlowServiceError, NotSentError, from_dict

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest

    from airflow_flowservice.api._http import Http

DEFAULT_SCOPES = "openid,AdobeID,session,additional_info.projectedProductContext,read_organizations"
"""What Adobe Developer Console grants a credential with the Experience Platform API."""

IMS_PATH = "/ims/token/v3"


class Auth(Protocol):
    """What the transport asks of a credential."""

    def token(self) -> str:
        """A token to send, fetched when need be."""

    def renew(self, rejected: str) -> bool:
        """After a 401: whether there is now another token than the rejected one."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no message may show."""


class Bearer(AuthBase):
    """Puts one token into a request."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class GivenToken(AuthBase):
    """A ready token, used as it is; it is never fetched and cannot be renewed.

    :param on_token: is told the token once, so that logs can mask it.
    """

    def __init__(self, token: str, *, on_token: Callable[[str], None] | None = None) -> None:
        self._token = token
        if on_token:
            on_token(token)

    def token(self) -> str:
        """The token."""
        return self._token

    def renew(self, rejected: str) -> bool:
        """Never."""
        return False

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token."""
        return (self._token,)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return Bearer(self._token)(request)


class ImsAuth(AuthBase):
    """Tokens for a client id and secret.

    :param http: requests to the IMS host.
    :param scopes: comma separated.
    :param on_token: is told each new token before it is used, so that logs can mask it.
    :param clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        http: Http,
        client_id: str,
        client_secret: str,
        scopes: str = DEFAULT_SCOPES,
        on_token: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._client_id = client_id
        self._client_secret = client_secret
        self._scopes = scopes
        self._on_token = on_token
        self._clock = clock
        self._last: str | None = None
        self._shared = _shared_for(http.base_url, client_id, scopes, client_secret)

    def __repr__(self) -> str:
        return f"<ImsAuth client id {self._client_id} at {self._http.host}>"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return Bearer(self.token())(request)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The client secret and the last token."""
        return (self._client_secret, self._last or "")

    def token(self) -> str:
        """A token that is valid for some time yet.

        :raises AuthenticationError: IMS does not accept the client id and secret.
        :raises ApiError: IMS could not be asked, and no token is left that is still valid.
        """
        try:
            token = self._shared.get(self._fetch, self._clock)
        except ApiError as error:
            left = self._shared.unexpired(self._clock)
            if left is None or not error.retryable:
                raise
            token = left
        return self._announced(token.value)

    def renew(self, rejected: str) -> bool:
        """Fetch another token in place of one that was answered by 401; True."""
        self._announced(self._shared.get(self._fetch, self._clock, rejected=rejected).value)
        return True

    def _announced(self, token: str) -> str:
        if token != self._last and self._on_token:
            self._on_token(token)
        self._last = token
        return token

    def _fetch(self) -> ImsToken:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "scope": self._scopes,
        }
        answer = self._http.send("POST", IMS_PATH, body=form, secrets=(self._client_secret,))
        return token_of(answer, now=self._clock(), client_id=self._client_id, host=self._http.host)


class _Shared:
    """One credential's token in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: ImsToken | None = None
        self._pending: Future[ImsToken] | None = None

    def get(
        self, fetch: Callable[[], ImsToken], clock: Callable[[], float], *, rejected: str | None = None
    ) -> ImsToken:
        """The token; when it is due, or was rejected, one caller fetches and the others wait for it."""
        with self._lock:
            token = self._token
            if token and token.value != rejected and clock() < token.refresh_at:
                return token
            pending, mine = self._pending, self._pending is None
            if pending is None:
                pending = self._pending = Future()
        return self._fetch_for_all(fetch, pending) if mine else _wait_for(pending)

    def unexpired(self, clock: Callable[[], float]) -> ImsToken | None:
        """The token, if it is still valid although it is due."""
        with self._lock:
            return self._token if self._token and clock() < self._token.expires_at else None

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


def _wait_for(pending: Future[ImsToken]) -> ImsToken:
    """Each waiter gets an error of its own, since errors are told later where they belong."""
    try:
        return pending.result()
    except FlowServiceError as error:
        raise from_dict(error.to_dict()) from error


_all_shared: dict[tuple[str, str, str, str], _Shared] = {}
_all_shared_lock = threading.Lock()


def _shared_for(ims_url: str, client_id: str, scopes: str, client_secret: str) -> _Shared:
    digest = hashlib.sha256(client_secret.encode()).hexdigest()
    with _all_shared_lock:
        return _all_shared.setdefault((ims_url, client_id, scopes, digest), _Shared())
