# SPDX-License-Identifier: Apache-2.0
"""Texts of the HTTP libraries: log messages and exceptions, which can contain parts of a response.

`BadStatusLine` and `InvalidChunkLength` contain a line of the response, and urllib3 logs them before a repetition. It
also logs invalid headers. While a request runs, this module removes the request's secrets from both.
"""

from __future__ import annotations

import logging
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from airflow_flowservice.api.redaction import MESSAGE_LENGTH, excerpt
from airflow_flowservice.exceptions import FlowServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

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
