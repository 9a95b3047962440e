"""The page and its data, below `/flowservice/` of Airflow's API server.

- `GET data/dataflows`: the dataflows that are fed by DAGs which the user may read.
- `GET data/coverage?flow_id=&dag_id=&from=&to=&conn_id=`: what became of a dataflow's time, see `json_responses.coverage`.
  With `conn_id` Flow Service itself is asked too.

Errors are `{"error": text, "remedy": text or null}`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, FastAPI, HTTPException, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from airflow_flowservice import _airflow
from airflow_flowservice.plugins import flow_run_lookup, json_responses, permissions
from airflow_flowservice.plugins.coverage_reader import Range, Reading
from airflow_flowservice.plugins.error_responses import Problem
from airflow_flowservice.plugins.security_headers import SafeAnswers

if TYPE_CHECKING:
    from starlette.requests import Request

_STATIC = Path(__file__).parent / "static"
_LOG_IN = {401: "log in to Airflow, then load this page again"}

Text = Annotated[str, Query(min_length=1, max_length=250)]
OptionalText = Annotated[str | None, Query(max_length=250)]

# Plain functions, which run in threads: Airflow's event loop goes on while the database or Flow Service is asked.
router = APIRouter(prefix="/data")


@router.get("/dataflows")
def read_dataflows(user: GetUserDep, session: SessionDep) -> JSONResponse:
    """The dataflows that are fed by DAGs which the user may read."""
    return JSONResponse(json_responses.dataflows(permissions.readable_feeds(session, user=user)))


@router.get("/coverage")
def read_coverage(
    user: GetUserDep,
    session: SessionDep,
    flow_id: Text,
    dag_id: OptionalText = None,
    start: Annotated[str | None, Query(alias="from", max_length=40)] = None,
    end: Annotated[str | None, Query(alias="to", max_length=40)] = None,
    conn_id: OptionalText = None,
) -> JSONResponse:
    """What became of a dataflow's time."""
    feeds = [
        feed
        for feed in permissions.readable_feeds(session, user=user, dag_id=dag_id or None)
        if feed.flow_id == flow_id
    ]
    if not feeds:
        raise Problem(404, "No task that you may see has fed this dataflow", remedy="choose one that is listed")
    if conn_id:
        permissions.require_connection(conn_id, user=user)
    now = _airflow.utc_now()
    reading = Reading(session, flow_id=flow_id, feeds=feeds, asked=Range.parse(start, end, now=now), now=now)
    session.close()  # its connection is not held while Flow Service is asked
    asked = flow_run_lookup.runs_of(flow_id, conn_id=conn_id, since=reading.within.start) if conn_id else None
    found = reading.coverage(asked.runs if asked else ())
    return JSONResponse(json_responses.coverage(found, flow_id=flow_id, now=now, service=asked))


@cache
def application() -> SafeAnswers:
    """The ASGI application, made once."""
    app = FastAPI(title="Flow Service", openapi_url=None)
    app.include_router(router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _refusal)
    app.add_exception_handler(RequestValidationError, _bad_parameters)
    app.add_exception_handler(Exception, _failure)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_STATIC))
    return SafeAnswers(app, data="/data/")


def _page() -> FileResponse:
    return FileResponse(_STATIC / "page.html")


def _problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)  # noqa: S101 registered for it alone
    return error.response()


def _refusal(_: Request, error: Exception) -> JSONResponse:
    """Airflow's own: nobody is logged in, or the token is no good."""
    assert isinstance(error, HTTPException)  # noqa: S101
    return Problem(error.status_code, str(error.detail), remedy=_LOG_IN.get(error.status_code)).response()


def _bad_parameters(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    named = sorted({str(each["loc"][-1]) for each in error.errors()})
    return Problem(
        400,
        f"A parameter is missing, empty or too long: {', '.join(named)}",
        remedy="give flow_id, and if wanted dag_id, from, to (ISO 8601 with an offset) and conn_id",
    ).response()


def _failure(_: Request, error: Exception) -> JSONResponse:
    """What went wrong stands in the API server's log; it may hold what the user may not see."""
    name = type(error).__name__
    return Problem(500, f"The page's server failed ({name})", remedy="look at the API server's log").response()
