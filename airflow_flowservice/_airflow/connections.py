# SPDX-License-Identifier: Apache-2.0
"""Read Airflow connections, and mask their secrets in Airflow's logs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import versions
from airflow_flowservice._airflow.task_context import rendered_id
from airflow_flowservice._airflow.versions import BaseHook
from airflow_flowservice.exceptions import ConfigurationError, FlowServiceError, NotSentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Connection

    from airflow_flowservice.api.connection_settings import ConnectionSettings

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


def get_connection(conn_id: str) -> Connection:
    """Return the connection.

    :raises ConfigurationError: there is no connection with this id, or its environment variable cannot be parsed.
    :raises NotSentError: a secrets backend or Airflow's API server failed, so it is unknown whether there is one.
    """
    rendered_id(conn_id, name="flowservice_conn_id", source="the id of a connection")
    try:
        return _require_type(BaseHook.get_connection(conn_id))
    except Exception as error:
        if not _is_missing(error):
            raise
        return _find_again(conn_id, error)


async def get_connection_async(conn_id: str) -> Connection:
    """Return the connection, without blocking the event loop.

    :raises FlowServiceError: as `get_connection`.
    """
    rendered_id(conn_id, name="flowservice_conn_id", source="the id of a connection")
    try:
        connection: Connection = await versions.connection_of_base_hook(conn_id)
        return _require_type(connection)
    except Exception as error:
        if not _is_missing(error):
            raise
        found: Connection = await versions.in_thread(_find_again, conn_id, error)
        return found


def _find_again(conn_id: str, error: Exception) -> Connection:
    """Return a connection that Airflow did not find, if a second look-up finds it.

    Airflow also reports a connection as missing if a secrets backend or the API server fails.

    :raises FlowServiceError: as `get_connection`.
    """
    if (problem := _variable_error(conn_id)) is not None:
        raise problem from error
    try:
        is_found = _is_in_a_backend(conn_id)
    except FlowServiceError as failure:
        raise failure from error
    if is_found:
        with _connection_exists(conn_id):
            return _require_type(BaseHook.get_connection(conn_id))
    raise _missing_error(conn_id) from error


def _is_in_a_backend(conn_id: str) -> bool:
    """Return whether a secrets backend has the connection.

    Airflow tries its secrets backends one after the other, and logs their errors at level DEBUG at most. From Airflow
    3.1 on, the API server is one of them. If all fail, Airflow reports that the connection is not defined.

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


def stored_connection(conn_id: str) -> Any:
    """Return the connection outside of tasks, from the environment, a secrets backend or the database.

    :raises ConfigurationError: there is no connection with this id, or it cannot be read; the message states which.
    """
    from airflow.models.connection import Connection as Stored

    stored: Any = Stored
    try:
        with _connection_exists(conn_id):
            return _require_type(stored.get_connection_from_secrets(conn_id))
    except ConfigurationError as error:
        # Airflow also reports "not found" if it cannot read a backend, or cannot decrypt a password.
        if _variable_error(conn_id) is None:
            _require_readable_backends(conn_id)
        raise error from error.__cause__


def find_stored_connection(conn_id: str) -> Any | None:
    """Return the connection outside of tasks, or None if it does not exist.

    :raises ConfigurationError: it cannot be read; the message states why.
    """
    try:
        return stored_connection(conn_id)
    except ConfigurationError as error:
        if error.message == _missing_error(conn_id).message:
            return None
        raise


def _require_readable_backends(conn_id: str) -> None:
    """Read the connection from each secrets backend.

    :raises ConfigurationError: a backend cannot be read; the message names it.
    """
    from airflow.configuration import ensure_secrets_loaded

    backends: Any = ensure_secrets_loaded()
    for backend in backends:
        name = type(backend).__name__
        try:
            connection = backend.get_connection(conn_id=conn_id)
            if connection is not None:
                connection.get_uri()
        except Exception as error:
            # The database driver's messages contain no secrets; other messages may contain a part of a password.
            why = str(getattr(error, "orig", "")).strip().partition("\n")[0]
            settings = (
                "[core] fernet_key, [database] sql_alchemy_conn"
                if name == "MetastoreBackend"
                else "[secrets] backend and backend_kwargs; and check the connection that is stored there"
            )
            raise ConfigurationError(
                f"the connection {conn_id!r} cannot be read by {name} "
                f"({type(error).__name__}{f': {why}' if why else ''})",
                remedy=f"run this with the same Airflow configuration as the scheduler: {settings}",
            ) from error


@contextmanager
def _connection_exists(conn_id: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_missing(error):
            raise
        raise (_variable_error(conn_id) or _missing_error(conn_id)) from error


def _is_missing(error: Exception) -> bool:
    return type(error).__name__ == "AirflowNotFoundException" or "CONNECTION_NOT_FOUND" in str(error)


def _missing_error(conn_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"the connection {conn_id!r} does not exist",
        remedy=(
            f"create it in Airflow's UI (Admin, Connections, type 'Adobe Flow Service') or with "
            f"`airflow connections add {conn_id} --conn-type flowservice ...`, "
            "or set flowservice_conn_id to the id of an existing connection"
        ),
    )


def _variable_error(conn_id: str) -> ConfigurationError | None:
    """Return the error of a connection's environment variable, which Airflow skipped; None if it is not set."""
    from airflow_flowservice.checks.connection_variable import cause_of

    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    value = os.environ.get(variable)
    if not value:
        return None
    cause = cause_of(value) or "cannot be parsed by Airflow"
    return ConfigurationError(
        f"the connection {conn_id!r} cannot be read: the environment variable {variable} {cause}",
        remedy=(
            f"correct {variable} where this runs; the format with the fewest quoting rules is a JSON object with "
            "conn_type, login, password and extra"
        ),
    )


def _require_type(connection: Connection) -> Connection:
    """Return the connection.

    :raises ConfigurationError: it has no type, because Airflow parsed an environment variable that is no URI as one; or
        a field is not text, which Airflow 3.0 accepts.
    """
    fields = (connection.host, connection.schema, connection.login, connection.password)
    if connection.conn_type and all(isinstance(value, str | None) for value in fields):
        return connection
    variable = os.environ.get(f"AIRFLOW_CONN_{connection.conn_id.upper()}", "").strip()
    is_object_without_type = variable.startswith("{") and not connection.conn_type
    error = None if is_object_without_type else _variable_error(connection.conn_id)
    if error is not None:
        raise error
    return connection


def parse_connection(connection: Any, *, is_masked: bool = False) -> ConnectionSettings:
    """Return the settings of a connection with all its errors; mask its secrets in Airflow's logs.

    :param is_masked: Airflow has looked the connection up, and has masked the password as it is stored.
    """
    from airflow_flowservice.api.connection_settings import ConnectionSettings

    settings = ConnectionSettings.parse(connection)
    known = connection.password if is_masked else None
    for secret in settings.secrets:
        # Airflow masks the password as it is stored, so not without the line break at its end.
        for form in {secret, secret.strip()} - {""}:
            if form == known:
                _mask_all(_url_forms(form) - {form})
            else:
                mask(form)
    return settings


def mask(secret: str) -> None:
    """Make Airflow replace a secret by `***` in all logs and rendered fields, also in its URL-encoded form."""
    _mask_all({secret} | _url_forms(secret))


def _url_forms(secret: str) -> set[str]:
    from urllib.parse import quote, quote_plus

    return {quote(secret, safe=""), quote_plus(secret)}


def _mask_all(forms: set[str]) -> None:
    """Mask each form, with a message to Airflow's supervisor for each."""
    for form in forms:
        versions.mask_secret(form)
