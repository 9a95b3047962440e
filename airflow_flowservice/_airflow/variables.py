# SPDX-License-Identifier: Apache-2.0
"""Airflow Variables of a running task or a trigger, read and written by messages to Airflow's supervisor.

`airflow.sdk.Variable` is not used: for each read and write, it first queries every custom secrets backend of the
worker. A message goes to the API server only, which queries the backends that are configured there.

Messages block. In the triggerer, call these functions by `versions.in_thread`.
"""

from __future__ import annotations

from typing import Any, NoReturn

from airflow_flowservice.exceptions import LedgerUnavailableError

# The API server returns at most this number of keys in one response.
_KEYS_PAGE_SIZE = 10_000
_FORBIDDEN = 403
_DENIED_REMEDY = (
    "allow Airflow's tasks to read and write the Variables with the prefix flowservice. in the secrets backend; or "
    "use a database instead of Variables: set ledger_conn_id, and intent_store = none"
)


def read_variable(key: str) -> str | None:
    """Return the value of a Variable, or None.

    None does not prove that there is no Variable. The API server also reports this if it cannot read its database, or
    cannot decrypt the value: `Variable.get_variable_from_secrets` logs the error, and continues.

    :raises LedgerUnavailableError: Airflow does not respond, or denies access.
    """
    from airflow.sdk.execution_time.comms import GetVariable

    response = _send(GetVariable(key=key), key=key)
    error = getattr(response, "error", None)
    if error is not None and _text_of(error) == "VARIABLE_NOT_FOUND":
        return None
    _require_success(response, key=key)
    if not hasattr(response, "value"):
        _fail(key, f"unexpected response {response!r}", None)
    value: str | None = response.value
    return value


def write_variable(key: str, value: str, *, description: str) -> None:
    """Create or overwrite a Variable.

    :param description: stored without encryption.
    :raises LedgerUnavailableError: the Variable may have been written nevertheless, for instance if a response was
        lost.
    """
    from airflow.sdk.execution_time.comms import PutVariable

    _require_success(_send(PutVariable(key=key, value=value, description=description), key=key), key=key)


def delete_variable(key: str) -> None:
    """Delete a Variable; no error if there is none.

    :raises LedgerUnavailableError: Airflow does not respond, or denies access.
    """
    from airflow.sdk.execution_time.comms import DeleteVariable

    _require_success(_send(DeleteVariable(key=key), key=key), key=key)


def can_list_variables() -> bool:
    """Return whether a task can list the keys of Variables: from Airflow 3.3 on."""
    from airflow.sdk.execution_time import comms

    return hasattr(comms, "GetVariableKeys")


def variable_keys(prefix: str) -> list[str] | None:
    """Return the keys of the Variables in the database with a prefix, sorted; None before Airflow 3.3.

    In contrast to `read_variable`, a missing key proves that there was no Variable.

    :raises LedgerUnavailableError: Airflow does not respond, or denies access.
    """
    from airflow.sdk.execution_time import comms

    if not can_list_variables():
        return None
    keys: list[str] = []
    while True:
        request = comms.GetVariableKeys(prefix=prefix, limit=_KEYS_PAGE_SIZE, offset=len(keys))
        response = _send(request, key=prefix)
        _require_success(response, key=prefix)
        keys.extend(response.keys)
        if len(response.keys) < _KEYS_PAGE_SIZE:
            return keys


def is_denied(error: LedgerUnavailableError) -> bool:
    """Return whether Airflow denies the task the access to a Variable."""
    return bool(error.http_status == _FORBIDDEN)


def _send(request: Any, *, key: str) -> Any:
    from airflow.sdk.execution_time import task_runner

    try:
        return task_runner.SUPERVISOR_COMMS.send(request)
    except Exception as error:  # The kinds differ by version: a message that failed, a closed socket, a timeout.
        _fail(key, error, getattr(error, "error", None))


def _require_success(response: Any, *, key: str) -> None:
    if getattr(response, "error", None) is not None:
        _fail(key, response, response)


def _fail(key: str, reason: Any, response: Any) -> NoReturn:
    """Raise an error for a failed message.

    :param reason: exception or response.
    :param response: Airflow's `ErrorResponse`, if there is one.
    """
    kind = _text_of(getattr(response, "error", ""))
    denied = kind == "PERMISSION_DENIED" or type(reason).__name__ == "AirflowSecretsBackendAccessDenied"
    cause = reason if isinstance(reason, Exception) else None
    details = f"{kind}: {getattr(response, 'detail', None)}" if response is not None else str(reason) or repr(reason)
    raise LedgerUnavailableError(
        f"Airflow {'denies access to' if denied else 'cannot read or write'} the Variable {key} ({details})",
        http_status=_FORBIDDEN if denied else None,
        remedy=_DENIED_REMEDY if denied else None,
    ) from cause


def _text_of(value: Any) -> str:
    return str(getattr(value, "value", value))
