"""Requests to Flow Service: its headers, its paths, and new tokens after a 401.

Source of the headers: https://experienceleague.adobe.com/en/docs/experience-platform/landing/platform-apis/api-guide
"""

from __future__ import annotations

import json
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

    from airflow_flowservice.api._answer import Answer
    from airflow_flowservice.api._http import Http
    from airflow_flowservice.api.auth import Auth

ROOT = "/data/foundation/flowservice"
_TOKENS_AT_MOST = 3
# IMS has just given this token, so the credential is right, and Flow Service may need a moment to know of it.
_PAUSE_FOR_A_FRESH_TOKEN_S = 1.0


class Transport:
    """Flow Service over HTTP, as one credential in one organization and sandbox.

    :param http: requests to the platform's host.
    :param auth: where tokens come from.
    :param headers: `x-api-key`, `x-gw-ims-org-id` and `x-sandbox-name`, sent with every request.
    :param pause: waits some seconds before a token that IMS has just given is replaced.
    """

    def __init__(
        self, *, http: Http, auth: Auth, headers: Mapping[str, str], pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._http = http
        self._auth = auth
        self._pause = pause
        self._headers = dict(headers)

    @property
    def clock_offset(self) -> timedelta | None:
        """The service's clock minus this machine's, from the last answer; exact to about a second."""
        return self._http.clock_offset

    def get(self, path: str, query: str = "") -> Answer:
        """Read something; repeated on connection errors, 429 and 5xx.

        :param path: below Flow Service's root, quoted.
        :param query: quoted, without the question mark.
        """
        target = f"{ROOT}{path}?{query}" if query else f"{ROOT}{path}"

        def send(token: str) -> Answer:
            secrets = (*self._auth.secrets, token)
            return self._http.send("GET", target, headers=self._headers, auth=Bearer(token), secrets=secrets)

        return self._with_token(self._auth, send)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Create something; repeated only when nothing was sent, and on 429 and 401.

        :param path: below Flow Service's root, quoted.
        :raises NotSentError: no connection could be made, or no token could be had.
        :raises NoAnswerError: no whole answer came; speaks of this request, never of the token's.
        """
        headers, text = self._headers, None
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
            text = json.dumps(body, separators=(",", ":"))

        def send(token: str) -> Answer:
            secrets = (*self._auth.secrets, token)
            return self._http.send_once(ROOT + path, headers=headers, body=text, auth=Bearer(token), secrets=secrets)

        return self._with_token(_BeforeSending(self._auth), send)

    def _with_token(self, auth: Auth | _BeforeSending, send: Callable[[str], Answer]) -> Answer:
        """A 401 means that nothing was done: with a new token the request is made again."""
        for renewed in range(_TOKENS_AT_MOST):
            token = auth.token()
            answer = send(token)
            if answer.status != 401 or renewed == _TOKENS_AT_MOST - 1:
                break
            if renewed:
                self._pause(_PAUSE_FOR_A_FRESH_TOKEN_S)
            if not auth.renew(token):
                break
        return answer


class _BeforeSending:
    """Tells trouble with the token as what it is for a POST: nothing was sent."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def token(self) -> str:
        with _nothing_sent():
            return self._auth.token()

    def renew(self, rejected: str) -> bool:
        with _nothing_sent():
            return self._auth.renew(rejected)


@contextmanager
def _nothing_sent() -> Iterator[None]:
    try:
        yield
    except (NoAnswerError, ServerError, UnreadableAnswerError) as error:
        fields = {**error.to_dict(), "error": NotSentError.__name__}
        fields["message"] = f"no token could be had, so nothing was sent: {error.message}"
        raise from_dict(fields) from error
