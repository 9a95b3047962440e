# SPDX-License-Identifier: Apache-2.0
"""Requests to Flow Service: headers, paths, new tokens after a 401, and POSTs in two forms.

Source of the headers: https://experienceleague.adobe.com/en/docs/experience-platform/landing/platform-apis/api-guide

Adobe's pages write two parts of a POST in two forms: the type of times, and the name of the action that re-triggers a
run. If Flow Service refuses the first form, it created nothing, so the POST is sent again in the other form. This is
one decision of the caller: no other error causes a second POST, and a lost response never does.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.auth import Bearer
from airflow_flowservice.api.responses import Call, parse_created_run, parse_error_body, refuses_action, refuses_times
from airflow_flowservice.api.validation import validate_epoch_format
from airflow_flowservice.exceptions import (
    ApiError,
    AttemptOvertakenError,
    NoAnswerError,
    NotSentError,
    ServerError,
    UnreadableAnswerError,
    from_dict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping
    from datetime import timedelta

    from airflow_flowservice.api.auth import Auth
    from airflow_flowservice.api.http_session import HttpResponse, HttpSession
    from airflow_flowservice.api.models import CreatedRun

log = logging.getLogger(__name__)

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


# --- POSTs in two forms ---

EPOCH_TYPES = {"string": str, "integer": int}
"""Types of times in requests, by `epoch_format`: strings in Adobe's tutorial, integers in its OpenAPI file."""

RETRIGGER_ACTIONS = ("re-trigger", "RE_TRIGGER")
"""Names of the action: in Adobe's tutorial, and in its OpenAPI file."""

MAX_OTHER_FORM_DELAY_S = 60.0
"""Seconds after the first POST until which the second one is sent; later, another attempt may be running."""

_BOTH_REFUSED_REMEDY = (
    "check the window, start_time and delta_column: Flow Service refused times as strings and as integers, so "
    "epoch_format does not fix it"
)

# By connection, the type of times that Flow Service accepted last, for the clients of this process.
_accepted: dict[Hashable, str] = {}
_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class EpochForms:
    """Types of times that a client sends.

    :param epoch_format: `string`, `integer`, or `auto`: the type that Flow Service accepted last, else strings; if they
        are refused, the other type.
    :param connection: key of the connection; clients of this process with the same key share the accepted type.
    :param now: wall clock in seconds, which also advances while a machine is suspended.
    :raises ConfigurationError: `epoch_format` has another value.
    """

    epoch_format: str
    connection: Hashable
    now: Callable[[], float] = field(default=time.time)

    def __post_init__(self) -> None:
        validate_epoch_format(self.epoch_format)

    def create_run(self, send: Callable[[str], HttpResponse]) -> CreatedRun:
        """Return the created run.

        :param send: function that sends the POST with times of a type, `string` or `integer`.
        :raises ApiError: the POST was refused, or its outcome is unknown.
        :raises AttemptOvertakenError: the first POST was refused after a long delay; nothing was created.
        """
        first, other = self._in_order()
        began = self.now()
        response = send(first)
        if self.epoch_format != "auto":
            return parse_created_run(response, Call.CREATE_RUN)
        if refuses_times(response):
            require_short_delay(self.now() - began)
            first_response, response = response, send(other)
            if refuses_times(response):
                return _raise_both(first_response, response, other)
            first = other
        created = parse_created_run(response, Call.CREATE_RUN)
        self._remember(first)
        return created

    def _in_order(self) -> tuple[str, str]:
        first = self.epoch_format
        if first == "auto":
            with _lock:
                first = _accepted.get(self.connection, "string")
        return first, "integer" if first == "string" else "string"

    def _remember(self, accepted: str) -> None:
        with _lock:
            known = _accepted.get(self.connection, "string")
            _accepted[self.connection] = accepted
        if accepted != known:
            log.info(
                "Flow Service refused times as %ss and accepted %ss, so this process sends %ss from now on. "
                "To avoid the refused request, set epoch_format in the connection's extra to %r",
                known,
                accepted,
                accepted,
                accepted,
            )


def retrigger_run(send: Callable[[str], HttpResponse], *, now: Callable[[], float] = time.time) -> CreatedRun:
    """Return the new run of a re-trigger; only if the first name of the action is unknown, send the other one.

    :param send: function that sends the POST with a name of the action.
    :raises ApiError: the POST was refused, or its outcome is unknown.
    :raises AttemptOvertakenError: the first POST was refused after a long delay; nothing was created.
    """
    first, other = RETRIGGER_ACTIONS
    began = now()
    response = send(first)
    if refuses_action(response):
        require_short_delay(now() - began)
        response = send(other)
    return parse_created_run(response, Call.RETRIGGER_RUN)


def require_short_delay(seconds: float) -> None:
    """Return if a second POST can be sent.

    :param seconds: seconds since the caller decided to send the first one.
    :raises AttemptOvertakenError: another attempt may have replaced this one meanwhile.
    """
    # A clock that was set back also makes the time since the decision unknown.
    if not -MAX_OTHER_FORM_DELAY_S <= seconds <= MAX_OTHER_FORM_DELAY_S:
        raise AttemptOvertakenError(
            f"the request was refused after {seconds:.0f} s, so it was not sent again in another form; "
            "nothing was created"
        )


def _raise_both(first: HttpResponse, second: HttpResponse, other: str) -> CreatedRun:
    """Raise the error of the first response, with the message of the second one."""
    try:
        return parse_created_run(first, Call.CREATE_RUN)
    except ApiError as error:
        message = f"{error.message}; with times as {other}s: {parse_error_body(second).message}"
        raise type(error)(
            message,
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
            remedy=_BOTH_REFUSED_REMEDY,
        ) from error
