"""Read Airflow connections, and mask their secrets in Airflow's logs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import versions
from airflow_flowservice._airflow.versions import BaseHook
from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Connection

    from airflow_flowservice.api.connection_settings import ConnectionSettings


def get_connection(conn_id: str) -> Connection:
    """Return the connection.

    :raises ConfigurationError: there is no connection with this id.
    """
    with _connection_exists(conn_id):
        return BaseHook.get_connection(conn_id)


async def get_connection_async(conn_id: str) -> Connection:
    """Return the connection, without blocking the event loop.

    :raises ConfigurationError: there is no connection with this id.
    """
    with _connection_exists(conn_id):
        connection: Connection = await versions.get_connection_async(conn_id)
        return connection


def stored_connection(conn_id: str) -> Any:
    """Return the connection outside of tasks, from the environment, a secrets backend or the database.

    :raises ConfigurationError: there is no connection with this id, or it cannot be read; the message states which.
    """
    from airflow.models.connection import Connection as Stored

    stored: Any = Stored
    try:
        with _connection_exists(conn_id):
            return stored.get_connection_from_secrets(conn_id)
    except ConfigurationError as error:
        # Airflow also reports "not found" if it cannot read a backend, or cannot decrypt a password.
        _require_readable_backends(conn_id)
        raise error from error.__cause__


def _require_readable_backends(conn_id: str) -> None:
    """Read the connection from each secrets backend.

    :raises ConfigurationError: a backend cannot be read; the message names it.
    """
    from airflow.configuration import ensure_secrets_loaded

    backends: Any = ensure_secrets_loaded()
    for backend in backends:
        try:
            connection = backend.get_connection(conn_id=conn_id)
            if connection is not None:
                connection.get_uri()
        except Exception as error:
            # The database driver's messages contain no secrets; other messages may contain a part of a password.
            why = str(getattr(error, "orig", "")).strip().partition("\n")[0]
            raise ConfigurationError(
                f"the connection {conn_id!r} cannot be read by {type(backend).__name__} "
                f"({type(error).__name__}{f': {why}' if why else ''})",
                remedy=(
                    "run this with the same Airflow configuration as the scheduler: [core] fernet_key, [database] "
                    "sql_alchemy_conn, [secrets] backend"
                ),
            ) from error


@contextmanager
def _connection_exists(conn_id: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "AirflowNotFoundException" and "CONNECTION_NOT_FOUND" not in str(error):
            raise
        raise ConfigurationError(
            f"the connection {conn_id!r} does not exist",
            remedy=(
                f"create it in Airflow's UI (Admin, Connections, type 'Adobe Flow Service') or with "
                f"`airflow connections add {conn_id} --conn-type flowservice ...`, "
                "or set flowservice_conn_id to the id of an existing connection"
            ),
        ) from error


def parse_connection(connection: Any) -> ConnectionSettings:
    """Return the settings of a connection with all its errors; mask its secrets in Airflow's logs."""
    from airflow_flowservice.api.connection_settings import ConnectionSettings, extra_of

    for secret in (connection.password, extra_of(connection).get("access_token")):
        if secret:
            mask(str(secret))
    return ConnectionSettings.parse(connection)


def mask(secret: str) -> None:
    """Make Airflow replace a secret by `***` in all logs and rendered fields, also in its URL-encoded form."""
    from urllib.parse import quote, quote_plus

    for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
        versions.mask_secret(form)
