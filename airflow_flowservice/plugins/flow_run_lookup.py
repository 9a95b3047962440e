# SPDX-License-Identifier: Apache-2.0
"""List a dataflow's flow runs from Airflow's API server, within limits and without secrets in error texts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import connections
from airflow_flowservice.exceptions import FlowServiceError, NoAnswerError, NotSentError
from airflow_flowservice.hooks import FlowServiceHook, client_of
from airflow_flowservice.plugins.error_responses import PageRequestError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_flowservice.api.client import FlowServiceClient
    from airflow_flowservice.api.models import FlowRun

MAX_RUNS = 2000
MAX_LISTING_S = 20.0
_MAX_REQUEST_S = 8.0
_MAX_ATTEMPTS = 2
# If Flow Service hangs, its requests must not occupy all threads of the API server.
_QUERY_SLOTS = BoundedSemaphore(2)


@dataclass(frozen=True, kw_only=True)
class ListedRuns:
    """Flow runs that Flow Service returned, newest first.

    :param complete: False if the listing stopped at a limit.
    """

    runs: tuple[FlowRun, ...]
    complete: bool


def list_flow_runs(flow_id: str, *, conn_id: str, since: datetime) -> ListedRuns:
    """Return the dataflow's newest flow runs, at most `MAX_RUNS`, within `MAX_LISTING_S` seconds.

    :param since: omit runs that were created earlier.
    :raises PageRequestError: 503, other users' requests occupy all slots; 502, Flow Service cannot be queried;
        400, the connection has another type. The error has a remedy.
    """
    if not _QUERY_SLOTS.acquire(blocking=False):
        raise PageRequestError(
            503, "Flow Service is busy with other users' requests", remedy="try again in a few seconds"
        )
    try:
        return _read_runs(_client(conn_id), flow_id=flow_id, since=since)
    except FlowServiceError as error:
        remedy, error.remedy = error.remedy, None
        raise PageRequestError(502, f"Flow Service cannot be queried: {error}", remedy=remedy) from error
    finally:
        _QUERY_SLOTS.release()


def _client(conn_id: str) -> FlowServiceClient:
    """Return a client with short timeouts and few attempts."""
    connection = connections.get_connection(conn_id)
    # The client sends the connection's secret to Adobe, so a connection of another type must not be used.
    if connection.conn_type != FlowServiceHook.conn_type:
        raise PageRequestError(
            400,
            f"The connection {conn_id!r} is not of the type {FlowServiceHook.hook_name}",
            remedy="name the connection that the task uses as flowservice_conn_id",
        )
    timeout_s = min(_parse_timeout_s(connection.extra_dejson.get("timeout_s")), _MAX_REQUEST_S)
    return client_of(connection, timeout_s=timeout_s, max_attempts=_MAX_ATTEMPTS)


def _parse_timeout_s(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return _MAX_REQUEST_S


def _read_runs(client: FlowServiceClient, *, flow_id: str, since: datetime) -> ListedRuns:
    """Return the runs of all pages, or those that arrived before the time was used up.

    :raises FlowServiceError: the first page did not arrive, or a page could not be read although time was left.
    """
    deadline = time.monotonic() + MAX_LISTING_S
    runs: list[FlowRun] = []
    with client:
        listed = client.list_runs(flow_id=flow_id, created_since=since, limit=100, within_s=MAX_LISTING_S)
        try:
            for run in listed:
                if len(runs) >= MAX_RUNS or time.monotonic() > deadline:
                    return ListedRuns(runs=tuple(runs), complete=False)
                runs.append(run)
        except (NoAnswerError, NotSentError):
            if not runs or time.monotonic() < deadline:
                raise
            return ListedRuns(runs=tuple(runs), complete=False)
    return ListedRuns(runs=tuple(runs), complete=True)
