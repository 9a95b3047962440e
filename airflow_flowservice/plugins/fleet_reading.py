# SPDX-License-Identifier: Apache-2.0
"""Read the summary of all dataflows for the page; requests at the same time share the readings."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session
from fastapi.responses import JSONResponse

from airflow_flowservice._airflow import fleet_reader, versions
from airflow_flowservice.plugins import json_responses, permissions, read_slots
from airflow_flowservice.plugins.shared_readings import SharedReadings

if TYPE_CHECKING:
    from collections.abc import Collection

log = logging.getLogger(__name__)

_YEAR = timedelta(days=366)
_open_session = partial(create_session, scoped=False)

ingesting: SharedReadings[frozenset[str]] = SharedReadings()
"""DAGs that ingest, for all users: their ids are only shown to users who may read them."""

summaries: SharedReadings[bytes] = SharedReadings()
"""JSON of the summaries, by the DAGs that a user may read."""

# Few, so that many requests do not occupy the database connections of Airflow.
_permission_threads = ThreadPoolExecutor(2, thread_name_prefix="flowservice-permissions")


async def read_json(user: Any) -> bytes:
    """Return the JSON of `json_responses.fleet_json` for the last year, for the DAGs that the user may read.

    :raises PageRequestError: 403, the user may not read the XComs of any DAG; 503, too many readings run.
    """
    dag_ids = await ingesting.get((), _read_ingesting)
    # As in FastAPI's own threads, an auth manager sees the context of the request.
    check = partial(copy_context().run, partial(_read_permissions, dag_ids, user=user))
    readable = await asyncio.get_running_loop().run_in_executor(_permission_threads, check)
    return await summaries.get(readable, partial(_read_summaries, readable))


def _read_ingesting() -> frozenset[str]:
    with _open_session() as session:
        return permissions.ingesting_dag_ids(session)


def _read_permissions(dag_ids: Collection[str], *, user: Any) -> frozenset[str]:
    with _open_session() as session:
        return permissions.readable_dag_ids(session, dag_ids, user=user)


def _read_summaries(dag_ids: Collection[str]) -> bytes:
    now = versions.utc_now()
    with read_slots.occupied(), _open_session() as session:
        fleet = fleet_reader.read_fleet(
            session, now=now, since=now - _YEAR, dag_ids=dag_ids, open_session=_open_session
        )
    if fleet.error is not None:
        log.warning("The ledger cannot be read: %s", fleet.error)
    for warning in fleet.warnings:
        log.warning("A connection that no task uses, or its ledger, cannot be read: %s", warning)
    return bytes(JSONResponse(json_responses.fleet_json(fleet)).body)
