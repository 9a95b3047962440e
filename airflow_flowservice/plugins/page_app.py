# SPDX-License-Identifier: Apache-2.0
"""ASGI application of the page and its data, below `/flowservice/` of Airflow's API server.

- `GET data/dataflows` returns the dataflows of the DAGs that the user may read.
- `GET data/fleet` returns a summary of each dataflow, see `json_responses.fleet_json`.
- `GET data/coverage?flow_id=&dag_id=&from=&to=&conn_id=` returns the states of a dataflow's windows, see
  `json_responses.coverage_json`. With `conn_id` it also queries Flow Service. `fill_refusals` has for each DAG the
  reason why the user may not fill its windows, or null.
- `GET data/fill` returns the DAG runs that would fill windows, see `fill_preview`.

Error responses are `{"error": text, "remedy": text or null}`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, FastAPI, HTTPException, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from airflow_flowservice._airflow import versions
from airflow_flowservice.plugins import (
    fill_preview,
    fleet_reading,
    flow_run_lookup,
    json_responses,
    permissions,
    read_slots,
)
from airflow_flowservice.plugins.coverage_reader import CoverageReader, RequestedRange
from airflow_flowservice.plugins.error_responses import PageRequestError, require_printable
from airflow_flowservice.plugins.security_headers import SecurityHeadersMiddleware

if TYPE_CHECKING:
    from starlette.requests import Request

_STATIC = Path(__file__).parent / "static"
_LOGIN_REMEDY = "log in to Airflow, then load this page again"

OptionalText = Annotated[str | None, Query(max_length=250)]

# FastAPI runs plain functions in threads, so the database and Flow Service do not block Airflow's event loop.
router = APIRouter(prefix="/data")


@router.get("/dataflows")
def read_dataflows(user: GetUserDep, session: SessionDep) -> JSONResponse:
    """Return the dataflows of the DAGs that the user may read."""
    return JSONResponse(json_responses.dataflows_json(permissions.readable_feeds(session, user=user)))


@router.get("/fleet")
async def read_all(user: GetUserDep) -> Response:
    """Return a summary of each dataflow with a DAG that the user may read, for the last year."""
    return Response(await fleet_reading.read_json(user), media_type=JSONResponse.media_type)


@router.get("/coverage")
def read_coverage(
    user: GetUserDep,
    session: SessionDep,
    flow_id: fill_preview.FlowId,
    dag_id: OptionalText = None,
    start: Annotated[str | None, Query(alias="from", max_length=40)] = None,
    end: Annotated[str | None, Query(alias="to", max_length=40)] = None,
    conn_id: OptionalText = None,
) -> JSONResponse:
    """Return the states of a dataflow's windows."""
    with read_slots.occupied():
        feeds = permissions.feeds_of_flow(session, user=user, flow_id=flow_id, dag_id=dag_id or None)
    if conn_id:
        require_printable(conn_id)
        permissions.require_connection(conn_id, user=user)
    now = versions.utc_now()
    requested = RequestedRange.parse(start, end, now=now)
    with read_slots.occupied():
        reader = CoverageReader(session, flow_id=flow_id, feeds=feeds, requested=requested, now=now)
    session.close()  # releases the database connection while Flow Service is queried
    listed = flow_run_lookup.list_flow_runs(flow_id, conn_id=conn_id, since=reader.within.start) if conn_id else None
    with read_slots.occupied():
        result = reader.coverage(listed.runs if listed else ())
        document = json_responses.coverage_json(result, flow_id=flow_id, now=now, listed=listed)
    refusals = {each: permissions.fill_refusal(each, user=user) for each in result.dag_ids}
    return JSONResponse({**document, "fill_refusals": refusals})


@cache
def application() -> SecurityHeadersMiddleware:
    """Return the ASGI application, which is created once per process."""
    app = FastAPI(title="Flow Service", openapi_url=None)
    app.include_router(router)
    app.include_router(fill_preview.router)
    app.add_exception_handler(PageRequestError, _handle_page_request_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(Exception, _handle_unexpected_error)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_STATIC))
    return SecurityHeadersMiddleware(app, data_path="/data/")


def _page() -> FileResponse:
    return FileResponse(_STATIC / "page.html")


def _handle_page_request_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PageRequestError)  # noqa: S101 the handler is registered only for this class
    return error.response()


def _handle_http_exception(_: Request, error: Exception) -> JSONResponse:
    """Convert an error of Airflow's auth manager: the request has no token, or an invalid one.

    Airflow's status for a token that was revoked is 403, as for a missing permission. Only a new login helps.
    """
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code not in (401, 403):
        return PageRequestError(error.status_code, str(error.detail), remedy="repeat the request later").response()
    return PageRequestError(401, str(error.detail), remedy=_LOGIN_REMEDY).response()


def _handle_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    names = sorted({str(each["loc"][-1]) for each in error.errors()})
    return PageRequestError(
        400,
        f"A parameter is missing, empty or too long: {', '.join(names)}",
        remedy="give flow_id, and optionally dag_id, from, to (ISO 8601 with an offset) and conn_id",
    ).response()


def _handle_unexpected_error(_: Request, error: Exception) -> JSONResponse:
    """Return status 500 with the error's class only; its text may contain data that the user may not see."""
    name = type(error).__name__
    return PageRequestError(500, f"The page's server failed ({name})", remedy="look at the API server's log").response()
