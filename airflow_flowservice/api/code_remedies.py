# SPDX-License-Identifier: Apache-2.0
"""Instructions for Adobe's error codes whose class is too general for one.

Source: https://experienceleague.adobe.com/en/docs/experience-platform/sources/errors/flow-service-errors and, for
the gateway's codes, https://experienceleague.adobe.com/en/docs/experience-platform/landing/troubleshooting
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_flowservice.exceptions import AccessDeniedError, FlowNotFoundError, OrganizationError, RunRefusedError

if TYPE_CHECKING:
    from airflow_flowservice.exceptions import ApiError

TIMES_REMEDY = (
    "check the window, start_time and delta_column; if Adobe's message is about the type of a time, set epoch_format "
    "in the connection's extra to 'integer' or 'string'"
)
ACTIVE_RUN_REMEDY = (
    "wait until the active flow run of the dataflow has ended; a retry is safe. If it occurs often, raise retry_delay, "
    "or lower max_active_runs of the DAG"
)

_API_KEY_REMEDY = (
    "check login (client id) of the connection, which is sent as API key: it must be the client id of the credential, "
    "and the credential's project in Adobe Developer Console must have the Experience Platform API"
)
_NO_INTERVAL_REMEDY = "remove interval and backfill from the dataflow's schedule: frequency 'once' allows neither"
_POST_REMEDIES = {
    1361: _NO_INTERVAL_REMEDY,
    1364: _NO_INTERVAL_REMEDY,
    1366: "create another dataflow: a schedule can be changed before its start time only",
    1369: (
        "remove deltaColumn from the dataflow's Copy transformation, and set delta_column: the first flow run of a "
        "one-time dataflow sets it"
    ),
    1384: TIMES_REMEDY,
    1403: "create another dataflow, scheduled one-time: the frequency can become 'once' before the start time only",
}
_GATEWAY_REMEDIES = {
    403000: _API_KEY_REMEDY,
    403003: _API_KEY_REMEDY,
    403025: OrganizationError.default_remedy,
}
_ACCESS_LABEL_REMEDY = (
    f"{FlowNotFoundError.default_remedy}; if both are right, ask the Adobe administrator whether the credential's role "
    "lacks an access label of the dataflow"
)


def remedy_of_code(kind: type[ApiError], *, status: int, number: int | None, is_post: bool) -> str | None:
    """Return the instruction for a response; None if the one of its class applies.

    :param kind: class of the error, which the HTTP status decides first.
    :param number: number of Adobe's code.
    :param is_post: True if the request creates a flow run; elsewhere, the same code can have another meaning.
    """
    if kind is FlowNotFoundError and (status, number) == (404, 1439):
        return _ACCESS_LABEL_REMEDY
    if kind is AccessDeniedError:
        return _GATEWAY_REMEDIES.get(number or 0)
    return _POST_REMEDIES.get(number or 0) if kind is RunRefusedError and is_post else None
