# SPDX-License-Identifier: Apache-2.0
"""POSTs that Adobe's pages write in two forms: the type of times, and the name of the action that re-triggers a run.

If Flow Service refuses the first form, it created nothing, so the POST is sent again in the other form. This is one
decision of the caller: no other error causes a second POST, and a lost response never does.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_flowservice.api.error_body import parse_error_body
from airflow_flowservice.api.responses import Call, parse_created_run, refuses_action, refuses_times
from airflow_flowservice.api.validation import validate_epoch_format
from airflow_flowservice.exceptions import ApiError, AttemptOvertakenError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from airflow_flowservice.api.http_session import HttpResponse
    from airflow_flowservice.api.models import CreatedRun

log = logging.getLogger(__name__)

EPOCH_TYPES = {"string": str, "integer": int}
"""Types of times in requests, by `epoch_format`: strings in Adobe's tutorial, integers in its OpenAPI file."""

RETRIGGER_ACTIONS = ("re-trigger", "RE_TRIGGER")
"""Names of the action: in Adobe's tutorial, and in its OpenAPI file."""

MAX_DELAY_S = 60.0
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
    if not -MAX_DELAY_S <= seconds <= MAX_DELAY_S:
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
