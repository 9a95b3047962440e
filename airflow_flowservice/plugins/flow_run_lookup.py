"""Flow Service itself, asked from Airflow's API server: within bounds, and with no secret in any answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from airflow_flowservice import _connections
from airflow_flowservice.exceptions import FlowServiceError
from airflow_flowservice.hooks import FlowServiceHook, client_of
from airflow_flowservice.plugins.error_responses import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow_flowservice.api.client import FlowServiceClient
    from airflow_flowservice.api.models import FlowRun

MOST_RUNS = 2000
SECONDS = 20.0
_SECONDS_OF_A_REQUEST = 8.0
_ATTEMPTS = 2
# A service that hangs must not take all threads that answer for Airflow.
_AT_A_TIME = BoundedSemaphore(2)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The flow runs that Flow Service has, newest first.

    :param whole: False if there were more than were read.
    """

    runs: tuple[FlowRun, ...]
    whole: bool


def runs_of(flow_id: str, *, conn_id: str, since: datetime) -> Answer:
    """The dataflow's newest flow runs, at most `MOST_RUNS`, in about `SECONDS`.

    :param since: leave out runs that were created earlier.
    :raises Problem: 503, it is being asked already; 502, it did not answer, with what to do.
    """
    if not _AT_A_TIME.acquire(blocking=False):
        raise Problem(503, "Flow Service is being asked for somebody else", remedy="try again in some seconds")
    try:
        return _read(_client(conn_id), flow_id=flow_id, since=since)
    except FlowServiceError as error:
        remedy, error.remedy = error.remedy, None
        raise Problem(502, f"Flow Service could not be asked: {error}", remedy=remedy) from error
    finally:
        _AT_A_TIME.release()


def _client(conn_id: str) -> FlowServiceClient:
    """A client that gives up early. Only a connection of our type: another one's secret would be sent to Adobe."""
    connection = _connections.get_connection(conn_id)
    if connection.conn_type != FlowServiceHook.conn_type:
        raise Problem(
            400,
            f"The connection {conn_id!r} is not of the type {FlowServiceHook.hook_name}",
            remedy="name the connection that the task has as flowservice_conn_id",
        )
    timeout_s = min(_number(connection.extra_dejson.get("timeout_s")), _SECONDS_OF_A_REQUEST)
    return client_of(connection, timeout_s=timeout_s, max_attempts=_ATTEMPTS)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return _SECONDS_OF_A_REQUEST


def _read(client: FlowServiceClient, *, flow_id: str, since: datetime) -> Answer:
    deadline = time.monotonic() + SECONDS
    runs: list[FlowRun] = []
    with client:
        for run in _newest(client, flow_id=flow_id, since=since):
            if len(runs) >= MOST_RUNS or time.monotonic() > deadline:
                return Answer(runs=tuple(runs), whole=False)
            runs.append(run)
    return Answer(runs=tuple(runs), whole=True)


def _newest(client: FlowServiceClient, *, flow_id: str, since: datetime) -> Iterator[FlowRun]:
    return client.list_runs(flow_id=flow_id, created_since=since, limit=100)
