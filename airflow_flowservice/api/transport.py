# SPDX-License-Identifier: Apache-2.0
"""Requests to Flow Service: headers, paths, and new tokens after a 401.

Source of the headers: https://experienceleague.adobe.com/en/docs/experience-platform/landing/platform-apis/api-guide
"""

from __future__ import annotations

import json
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.auth import Bearer
from airflow_flowservice.exceptions import (
    NoAnswerError,
    NotSentError,
    ServerError,
    UnreadableAnswerError,
    from_dict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import timedelta

    from airflow_flowservice.api.auth import Auth
    from airflow_flowservice.api.http_session import HttpResponse, HttpSession

ROOT = "/data/foundation/flowservice"
EXPORT_ROOT = "/data/foundation/export"
MAX_POST_DELAY_S = 150.0
"""Seconds after which no POST begins. Another task waits longer for the flow run, and then creates it."""
_MAX_TOKENS = 3
# IMS has just issued this token, so the credential is valid; Flow Service may need some time to accept the token.
_FRESH_TOKEN_PAUSE_S = 1.0


class Transport:
    """Requests to Flow Service with one credential, in one organization and sandbox.

    :param http: requests to the platform's host.
    :param auth: source of tokens.
    :param headers: `x-api-key`, `x-gw-ims-org-id` and `x-sandbox-name`, sent with every request.
    :param pause: function that waits some seconds before a token that IMS has just issued is replaced.
    """

    def __init__(
        self, *, http: HttpSession, auth: Auth, headers: Mapping[str, str], pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._http = http
        self._auth = auth
        self._pause = pause
        self._headers = dict(headers)

    @property
    def clock_offset(self) -> timedelta | None:
        """Return the service's clock minus this machine's, from the last response; exact to about a second."""
        return self._http.clock_offset

    def get(self, path: str, query: str = "", *, within_s: float = math.inf, root: str = ROOT) -> HttpResponse:
        """Read a resource; repeat the request after connection errors, 429 and 5xx.

        :param path: quoted path below the root.
        :param query: quoted query without the question mark.
        :param within_s: limit in seconds for all attempts and their pauses, and for the token's request.
        :param root: path of the service; Flow Service's by default.
        """
        target = f"{root}{path}?{query}" if query else f"{root}{path}"

        def send(token: str, remaining_s: float) -> HttpResponse:
            secrets = (*self._auth.secrets, token)
            return self._http.send(
                "GET", target, headers=self._headers, auth=Bearer(token), secrets=secrets, within_s=remaining_s
            )

        return self._send_with_token(self._auth, send, within_s=within_s)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> HttpResponse:
        """Create a resource; repeat the request only if nothing was sent, and after 429, 401 and 403.

        It is not repeated after `MAX_POST_DELAY_S` seconds, which include the requests for tokens.

        :param path: quoted path below Flow Service's root.
        :raises NotSentError: no connection could be made, or no token could be fetched.
        :raises NoAnswerError: no complete response to this request arrived; never about the token's request.
        """
        headers, text = self._headers, None
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
            text = json.dumps(body, separators=(",", ":"))

        def send(token: str, remaining_s: float) -> HttpResponse:
            return self._http.send_once(
                ROOT + path,
                headers=headers,
                body=text,
                auth=Bearer(token),
                secrets=(*self._auth.secrets, token),
                begins_within_s=remaining_s,
            )

        return self._send_with_token(_AuthBeforePost(self._auth), send, within_s=MAX_POST_DELAY_S)

    def get_export(self, path: str) -> HttpResponse:
        """Read a resource of the Data Access API, as `get`.

        :param path: quoted path below the API's root, with its query.
        """
        return self.get(path, root=EXPORT_ROOT)

    def stream_export(self, path: str, *, within_s: float, max_bytes: int) -> HttpResponse:
        """Read a file of the Data Access API in pieces, as `HttpSession.stream`.

        :param path: quoted path below the API's root, with its query.
        """

        def send(token: str, _: float) -> HttpResponse:
            return self._http.stream(
                EXPORT_ROOT + path,
                headers={**self._headers, "Accept": "*/*"},
                auth=Bearer(token),
                secrets=(*self._auth.secrets, token),
                within_s=within_s,
                max_bytes=max_bytes,
            )

        return self._send_with_token(self._auth, send)

    def _send_with_token(
        self,
        auth: Auth | _AuthBeforePost,
        send: Callable[[str, float], HttpResponse],
        *,
        within_s: float = math.inf,
    ) -> HttpResponse:
        """Send a request; after a 401, which means that nothing was done, send it again with a new token.

        After a 403, send it again if the token is of another process, because it may lack a recent permission.

        :param send: sends the request with a token, within some seconds.
        """
        ends_at = time.monotonic() + within_s
        for renewed in range(_MAX_TOKENS):
            token = auth.token(within_s=ends_at - time.monotonic())
            response = send(token, ends_at - time.monotonic())
            # The page of a proxy says nothing about the token.
            lacks_permission = response.status == 403 and not response.is_html
            if lacks_permission and not renewed and auth.renew_shared(token, within_s=ends_at - time.monotonic()):
                continue
            if response.status != 401 or renewed == _MAX_TOKENS - 1:
                break
            if renewed:
                self._pause(_FRESH_TOKEN_PAUSE_S)
            remaining_s = ends_at - time.monotonic()
            if remaining_s <= 0 or not auth.renew(token, within_s=remaining_s):
                break
        return response


class _AuthBeforePost:
    """Source of tokens for a POST: if no token can be fetched, the POST was not sent."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def token(self, *, within_s: float) -> str:
        with _raise_as_not_sent("no token could be fetched, so nothing was sent"):
            return self._auth.token(within_s=within_s)

    def renew(self, rejected: str, *, within_s: float) -> bool:
        with _raise_as_not_sent("the token was refused and no other could be fetched, so nothing was created"):
            return self._auth.renew(rejected, within_s=within_s)

    def renew_shared(self, refused: str, *, within_s: float) -> bool:
        return self._auth.renew_shared(refused, within_s=within_s)


@contextmanager
def _raise_as_not_sent(problem: str) -> Iterator[None]:
    try:
        yield
    except (NoAnswerError, ServerError, UnreadableAnswerError) as error:
        fields = {**error.to_dict(), "error": NotSentError.__name__}
        fields["message"] = f"{problem}: {error.message}"
        raise from_dict(fields) from error
