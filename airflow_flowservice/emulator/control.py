"""`/_emulator`: plan what happens, and read the truth afterwards. Needs no token and is not counted.

=======================================  =====================================================================
`GET    /_emulator/ledger`               every flow's runs, what they ingested, what arrived twice
`GET    /_emulator/ledger?flow_id=F`     also `expected`, `missing`, `duplicated`, `runs` of that flow, over
                                         `from` and `to` (ISO 8601, UTC unless they say otherwise, or epoch
                                         seconds; left out: all that the flow's runs' windows span)
`POST GET DELETE /_emulator/faults`      see `faults.py`
`POST GET DELETE /_emulator/outcomes`    see `outcomes.py`
`POST   /_emulator/flows`                add a flow, or change one by its id
`POST   /_emulator/end`                  `flow_id`'s runs that go on end now, as planned; with `count` only the
                                         oldest so many
`POST   /_emulator/reset`                back to birth: born flows, no runs, plans or counts; tokens stay
=======================================  =====================================================================

What is malformed is answered with 400 and `{"error": "..."}`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from airflow_flowservice.emulator.ledger_json import ledger_json
from airflow_flowservice.emulator.model import EmulatedFlow, FlowKind
from airflow_flowservice.emulator.state import EmulatorState

_FLOW_FIELDS = frozenset({"id", "name", "kind", "frequency", "state", "delta_column", "dataset_id"})


def control_routes(state: EmulatorState) -> APIRouter:
    """The routes under `/_emulator`."""
    router = APIRouter(prefix="/_emulator")

    @router.get("/ledger")
    async def ledger(request: Request) -> Response:
        try:
            return JSONResponse(ledger_json(state, request.query_params))
        except ValueError as error:
            return _malformed(error)

    @router.post("/flows")
    async def flows(request: Request) -> Response:
        try:
            flow = put_flow(state, await _fields(request))
        except ValueError as error:
            return _malformed(error)
        return JSONResponse(state.read_flow(flow), status_code=201)

    @router.post("/end")
    async def end(request: Request) -> Response:
        try:
            return JSONResponse({"ended": end_runs(state, await _fields(request))})
        except ValueError as error:
            return _malformed(error)

    @router.post("/reset")
    async def reset() -> Response:
        state.reset()
        return JSONResponse({"reset": True})

    _fault_routes(router, state)
    _outcome_routes(router, state)
    return router


def _fault_routes(router: APIRouter, state: EmulatorState) -> None:
    @router.post("/faults")
    async def plan(request: Request) -> Response:
        try:
            planned = state.faults.add(await _fields(request), now=state.now())
        except ValueError as error:
            return _malformed(error)
        return JSONResponse(planned.as_json(), status_code=201)

    @router.get("/faults")
    async def planned() -> Response:
        return JSONResponse({"faults": state.faults.as_json()})

    @router.delete("/faults")
    async def clear() -> Response:
        state.faults.clear()
        return JSONResponse({"faults": []})


def _outcome_routes(router: APIRouter, state: EmulatorState) -> None:
    @router.post("/outcomes")
    async def plan(request: Request) -> Response:
        try:
            state.outcomes.add(await _fields(request))
        except (ValueError, TypeError, AttributeError) as error:
            return _malformed(error)
        return JSONResponse({"outcomes": state.outcomes.as_json()}, status_code=201)

    @router.get("/outcomes")
    async def planned() -> Response:
        return JSONResponse({"outcomes": state.outcomes.as_json()})

    @router.delete("/outcomes")
    async def clear() -> Response:
        state.outcomes.clear()
        return JSONResponse({"outcomes": []})


def put_flow(state: EmulatorState, values: Mapping[str, Any]) -> EmulatedFlow:
    """Add a flow, or change the one whose id is given.

    Raises:
        ValueError: for an unknown field or kind.
    """
    unknown = set(values) - _FLOW_FIELDS
    if unknown:
        raise ValueError(f"a flow has no {', '.join(sorted(unknown))}")
    if values.get("kind", "table") not in get_args(FlowKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(FlowKind))}: {values['kind']!r}")
    flow_id = str(values.get("id") or uuid.uuid4())
    known = state.flows.get(flow_id) or EmulatedFlow(
        id=flow_id, name=f"Flow {flow_id[:8]}", kind="table", created_at=state.now()
    )
    changes = {name: value for name, value in values.items() if name != "id"}
    if isinstance(changes.get("delta_column"), str):
        changes["delta_column"] = {"name": changes["delta_column"]}
    state.flows[flow_id] = replace(known, **changes)
    return state.flows[flow_id]


def end_runs(state: EmulatorState, values: Mapping[str, Any]) -> int:
    """End runs of a flow that go on; how many.

    Raises:
        ValueError: for an unknown field or flow, or a count that is none.
    """
    unknown = set(values) - {"flow_id", "count"}
    if unknown:
        raise ValueError(f"ending runs takes no {', '.join(sorted(unknown))}")
    flow_id, count = values.get("flow_id"), values.get("count")
    if flow_id not in state.flows:
        raise ValueError(f"there is no flow {flow_id!r}")
    if count is not None and (type(count) is not int or count < 1):
        raise ValueError(f"count must be a positive integer: {count!r}")
    return state.end_runs(flow_id, count=count)


async def _fields(request: Request) -> dict[str, Any]:
    try:
        values = json.loads(await request.body())
    except ValueError:
        raise ValueError("the body is not JSON") from None
    if not isinstance(values, dict):
        raise ValueError("the body must be a JSON object")
    return values


def _malformed(error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)
