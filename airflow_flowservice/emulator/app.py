# SPDX-License-Identifier: Apache-2.0
"""HTTP routes of the emulated IMS and Flow Service."""

from __future__ import annotations

import json
from typing import Any, get_args

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from airflow_flowservice.emulator.authentication import authorize, grant_token, require_creator
from airflow_flowservice.emulator.control import control_routes
from airflow_flowservice.emulator.creation_rules import check_creation
from airflow_flowservice.emulator.diagnostics import diagnostic_routes
from airflow_flowservice.emulator.errors import EmulatedApiError, EmulatedImsError, ForeignOriginError
from airflow_flowservice.emulator.fault_injection import (
    BASE_PATH,
    CATALOG_PATH,
    REQUEST_FAULTS_KEY,
    TOKEN_PATH,
    FaultInjectionMiddleware,
)
from airflow_flowservice.emulator.faults import RequestFaults
from airflow_flowservice.emulator.model import EmulatedRun
from airflow_flowservice.emulator.query import parse_query
from airflow_flowservice.emulator.render import SPECS, source_json, spec_json, target_json
from airflow_flowservice.emulator.settings import RetriggerAction, ShowWindow
from airflow_flowservice.emulator.state import EmulatorState, ListPage

_ACTIONS = frozenset(get_args(RetriggerAction)) - {"any"}


def create_app(state: EmulatorState) -> FaultInjectionMiddleware:
    """Create the ASGI application that serves one state.

    uvicorn must call it directly, because connection faults use the connection of uvicorn's request cycle.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(_ims_routes(state))
    app.include_router(_run_read_routes(state), prefix=BASE_PATH)
    app.include_router(_run_creation_routes(state), prefix=BASE_PATH)
    app.include_router(_flow_routes(state), prefix=BASE_PATH)
    app.include_router(_catalog_routes(state), prefix=CATALOG_PATH)
    app.include_router(diagnostic_routes(state))
    app.include_router(control_routes(state))
    app.include_router(_unknown_routes(state))

    async def handle_error(_: Request, error: Exception) -> Response:
        if isinstance(error, (EmulatedImsError, ForeignOriginError)):
            return JSONResponse(error.body(), status_code=error.status)
        assert isinstance(error, EmulatedApiError)
        return JSONResponse(error.body(state.settings.error_shape), status_code=error.status)

    app.add_exception_handler(EmulatedApiError, handle_error)
    app.add_exception_handler(EmulatedImsError, handle_error)
    app.add_exception_handler(ForeignOriginError, handle_error)
    return FaultInjectionMiddleware(app, state)


def _ims_routes(state: EmulatorState) -> APIRouter:
    router = APIRouter()

    @router.post(TOKEN_PATH)
    async def token(request: Request) -> Response:
        granted = grant_token(
            state,
            content_type=request.headers.get("content-type", ""),
            query=request.url.query,
            body=await request.body(),
        )
        return JSONResponse(granted)

    return router


def _run_creation_routes(state: EmulatorState) -> APIRouter:
    router = APIRouter()

    @router.post("/runs")
    @router.post("/runs/")
    async def create(request: Request) -> Response:
        client_id = authorize(state, request.headers)
        require_creator(state, client_id)
        creation = check_creation(
            await _json_body(request), flows=state.flows, settings=state.settings, now=state.now()
        )
        state.require_room(creation.flow.id)
        run = state.add_run(creation, client_id=client_id, delay_s=_request_faults(request).delay_s)
        if state.settings.answer_shape == "flat":
            return JSONResponse(_created(run), status_code=201)
        return JSONResponse({"items": [_created(run)]})

    @router.post("/runs/{run_id}/action")
    async def act(run_id: str, request: Request) -> Response:
        client_id = authorize(state, request.headers)
        require_creator(state, client_id)
        op = request.query_params.get("op")
        if op not in _ACTIONS or state.settings.retrigger_action not in ("any", op):
            raise EmulatedApiError(400, "1401", f"The run action {op!r} is not supported.")
        run = state.retrigger(run_id, client_id=client_id, delay_s=_request_faults(request).delay_s)
        return JSONResponse(_created(run))

    return router


def _run_read_routes(state: EmulatorState) -> APIRouter:
    router = APIRouter()

    @router.get("/runs")
    @router.get("/runs/")
    async def list_runs(request: Request) -> Response:
        authorize(state, request.headers)
        query = parse_query(request.url.query)
        if _request_faults(request).ignore_id_filter:
            query = query.without(*(f for f in query.filters if f.field == "id"))
        return _list(state.list_runs(query, show_window=show_window_for(request)), count=query.count)

    @router.get("/runs/{run_id}")
    async def read(run_id: str, request: Request) -> Response:
        authorize(state, request.headers)
        return _one(state.read_run(run_id, show_window=show_window_for(request)))

    def show_window_for(request: Request) -> ShowWindow:
        return "none" if _request_faults(request).hide_windows else state.settings.show_window

    return router


def _flow_routes(state: EmulatorState) -> APIRouter:
    router = APIRouter()

    @router.get("/flows")
    async def list_flows(request: Request) -> Response:
        authorize(state, request.headers)
        query = parse_query(request.url.query)
        return _list(state.list_flows(query), count=query.count)

    @router.get("/flows/{flow_id}")
    async def flow(flow_id: str, request: Request) -> Response:
        authorize(state, request.headers)
        return _one(state.read_flow(state.flow(flow_id)))

    @router.get("/flowSpecs/{spec_id}")
    async def spec(spec_id: str, request: Request) -> Response:
        authorize(state, request.headers)
        return _first(spec_json(kind) for kind, (known, _) in SPECS.items() if known == spec_id)

    @router.get("/targetConnections/{target_id}")
    async def target(target_id: str, request: Request) -> Response:
        authorize(state, request.headers)
        return _first(target_json(f) for f in state.flows.values() if f.related_id("target") == target_id)

    @router.get("/sourceConnections/{source_id}")
    async def source(source_id: str, request: Request) -> Response:
        authorize(state, request.headers)
        return _first(source_json(f) for f in state.flows.values() if f.related_id("source") == source_id)

    @router.get("/connections/{connection_id}/test")
    async def test_connection(connection_id: str, request: Request) -> Response:
        authorize(state, request.headers)
        return _first({"result": f.source_works} for f in state.flows.values() if f.related_id("base") == connection_id)

    return router


def _catalog_routes(state: EmulatorState) -> APIRouter:
    router = APIRouter()

    @router.get("/batches/{batch_ids}")
    async def batches(batch_ids: str, request: Request) -> Response:
        authorize(state, request.headers)
        return JSONResponse(state.read_batches(batch_ids.split(",")))

    return router


def _unknown_routes(state: EmulatorState) -> APIRouter:
    router = APIRouter()

    @router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def unknown(path: str, request: Request) -> Response:
        if f"/{path}".startswith((BASE_PATH, CATALOG_PATH)):
            authorize(state, request.headers)
        raise EmulatedApiError(404, "1101", f"There is no route {request.method} /{path}.")

    return router


def _request_faults(request: Request) -> RequestFaults:
    faults = request.scope[REQUEST_FAULTS_KEY]
    assert isinstance(faults, RequestFaults)
    return faults


async def _json_body(request: Request) -> Any:
    if "json" not in request.headers.get("content-type", ""):
        raise EmulatedApiError(415, "1384", "The Content-Type must be application/json.")
    try:
        return json.loads(await request.body())
    except ValueError:
        raise EmulatedApiError(400, "1384", "The body is not JSON.") from None


def _created(run: EmulatedRun) -> dict[str, str]:
    return {"id": run.id, "etag": run.etag}


def _one(item: dict[str, Any]) -> Response:
    return JSONResponse({"items": [item]})


def _first(items: Any) -> Response:
    for item in items:
        return _one(item)
    raise EmulatedApiError(404, "1101", "There is no such resource.")


def _list(page: ListPage, *, count: bool) -> Response:
    links = {"next": {"href": page.next_href}} if page.next_href else {}
    body: dict[str, Any] = {"items": page.items, "_links": links}
    if count:
        body["count"] = page.total
    return JSONResponse(body)
