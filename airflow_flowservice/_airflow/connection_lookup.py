# SPDX-License-Identifier: Apache-2.0
"""Repeat the look-up of a connection that Airflow reports as missing, to find out whether a secrets backend failed.

Airflow tries its secrets backends one after the other, and logs their errors at level DEBUG at most. From Airflow 3.1
on, the API server is one of them. If all fail, Airflow reports that the connection is not defined.
"""

from __future__ import annotations

from typing import Any

from airflow_flowservice.exceptions import ConfigurationError, NotSentError

_API_SERVER = "ExecutionAPISecretsBackend"
_BACKEND_REMEDY = (
    "check [secrets] backend and backend_kwargs of the workers and the triggerer, and whether they reach the backend; "
    "a retry is safe"
)
_API_REMEDY = "check Airflow's API server and its log; a retry is safe"
_VALUE_REMEDY = (
    "store the connection in the secrets backend as a URI, or as a JSON object with conn_type, login, password and "
    "extra; all values are texts, and extra can be an object"
)


def finds(conn_id: str) -> bool:
    """Return whether a secrets backend has the connection.

    :raises NotSentError: a backend failed, so it is unknown whether there is such a connection.
    :raises ConfigurationError: a backend returned a connection that Airflow cannot use.
    """
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    for backend in ensure_secrets_backend_loaded():
        name = type(backend).__name__
        if name == _API_SERVER:
            if _api_server_has(conn_id):
                return True
            continue
        # Messages of backends can contain a part of a secret, so errors show only the class.
        try:
            connection: Any = backend.get_connection(conn_id=conn_id)
        except Exception as error:
            raise NotSentError(
                f"the connection {conn_id!r} cannot be looked up: the secrets backend {name} failed "
                f"({type(error).__name__})",
                remedy=_BACKEND_REMEDY,
            ) from None
        if connection:
            _require_usable(connection, conn_id=conn_id, backend=name)
            return True
    return False


def _require_usable(connection: Any, *, conn_id: str, backend: str) -> None:
    """Return if Airflow can convert a connection to a URI, which it does with each connection of a backend."""
    try:
        connection.get_uri()
    except Exception as error:
        raise ConfigurationError(
            f"Airflow cannot use the connection {conn_id!r} that the secrets backend {backend} returns "
            f"({type(error).__name__})",
            remedy=_VALUE_REMEDY,
        ) from None


def _api_server_has(conn_id: str) -> bool:
    """Return whether the API server has the connection.

    :raises NotSentError: it does not respond, or responds with an error.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetConnection

    try:
        response = task_runner.SUPERVISOR_COMMS.send(GetConnection(conn_id=conn_id))
    except Exception as error:
        raise _api_error(conn_id, type(error).__name__) from None
    kind = getattr(response, "error", None)
    if kind is None:
        return True
    text = str(getattr(kind, "value", kind))
    if text == "CONNECTION_NOT_FOUND":
        return False
    raise _api_error(conn_id, text)


def _api_error(conn_id: str, reason: str) -> NotSentError:
    return NotSentError(
        f"the connection {conn_id!r} cannot be looked up: Airflow's API server failed ({reason})", remedy=_API_REMEDY
    )
