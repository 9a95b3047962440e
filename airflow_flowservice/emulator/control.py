# SPDX-License-Identifier: Apache-2.0
"""Control routes under `/_emulator`: plan faults and outcomes, and read the ledger.

These routes need no token and are not counted in the ledger.

=======================================  =====================================================================
`GET    /_emulator/ledger`               runs of every flow, with ingested and duplicated records; `most_active` is the
                                         largest number of flow runs in flight, and `refused` counts the requests
                                         that a ceiling refused
`GET    /_emulator/ledger?flow_id=F`     also `expected`, `missing`, `duplicated` and `runs` of that flow in the
                                         range from `from` to `to`. Both are ISO 8601 (default time zone UTC)
                                         or epoch seconds. Default: the span of the windows of all its runs.
`POST GET DELETE /_emulator/faults`      see `faults.py`
`POST GET DELETE /_emulator/outcomes`    see `outcomes.py`
`POST   /_emulator/flows`                add a flow, or change the flow with the given id
`POST   /_emulator/runs`                 add a flow run of `flow_id` that Adobe's schedule made, with `window_start`
                                         and `window_end`; `client_id` names another creator. It is listed after
                                         `delay_s` seconds (0)
`POST   /_emulator/end`                  end the active runs of `flow_id` now, with their planned outcome;
                                         with `count`, end only the oldest `count` runs
`POST   /_emulator/reset`                restore the initial flows; delete runs, plans and counts; keep tokens
=======================================  =====================================================================

A malformed request gets a response with status 400 and the body `{"error": "..."}`. A request with a foreign `Host` or
`Origin` gets status 403. Otherwise, a web page in a browser on this machine could send requests to loopback.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from airflow_flowservice.emulator.creation_rules import Creation
from airflow_flowservice.emulator.errors import ForeignOriginError
from airflow_flowservice.emulator.instants import to_epoch_s
from airflow_flowservice.emulator.ledger_json import ledger_json
from airflow_flowservice.emulator.model import EmulatedFlow, FlowKind
from airflow_flowservice.emulator.state import EmulatorState

_FLOW_FIELDS = frozenset(
    {
        "id",
        "name",
        "kind",
        "frequency",
        "state",
        "state_s",
        "next_state",
        "delta_column",
        "dataset_id",
        "source_works",
    }
)

SCHEDULE_CLIENT_ID = "acp_foundation_connectors"
"""`createdClient` of the flow runs that Flow Service itself creates."""

_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def control_routes(state: EmulatorState) -> APIRouter:
    """Create the routes under `/_emulator`."""
    router = APIRouter(prefix="/_emulator", dependencies=[Depends(_require_local)])

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

    @router.post("/reset")
    async def reset() -> Response:
        state.reset()
        return JSONResponse({"reset": True})

    _run_routes(router, state)
    _fault_routes(router, state)
    _outcome_routes(router, state)
    return router


def _run_routes(router: APIRouter, state: EmulatorState) -> None:
    @router.post("/runs")
    async def runs(request: Request) -> Response:
        try:
            return JSONResponse({"id": add_run(state, await _fields(request))}, status_code=201)
        except ValueError as error:
            return _malformed(error)

    @router.post("/end")
    async def end(request: Request) -> Response:
        try:
            return JSONResponse({"ended": end_runs(state, await _fields(request))})
        except ValueError as error:
            return _malformed(error)


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
    """Add a flow, or change the flow that has the given id.

    Raises:
        ValueError: for an unknown field or kind.
    """
    unknown = set(values) - _FLOW_FIELDS
    if unknown:
        raise ValueError(f"A flow has no field {', '.join(sorted(unknown))}.")
    if values.get("kind", "table") not in get_args(FlowKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(FlowKind))}, not {values['kind']!r}.")
    flow_id = str(values.get("id") or uuid.uuid4())
    known = state.flows.get(flow_id) or EmulatedFlow(
        id=flow_id, name=f"Flow {flow_id[:8]}", kind="table", created_at=state.now()
    )
    changes = {name: value for name, value in values.items() if name != "id"}
    if isinstance(changes.get("delta_column"), str):
        changes["delta_column"] = {"name": changes["delta_column"]}
    if "state" in changes:
        # A state without `state_s` does not pass.
        changes = {"state_until": None, "next_state": "enabled", **changes}
    if (seconds := changes.pop("state_s", None)) is not None:
        changes["state_until"] = state.now() + _seconds(seconds)
    state.flows[flow_id] = replace(known, **changes)
    return state.flows[flow_id]


def _seconds(value: Any, name: str = "state_s") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}.")
    return float(value)


def add_run(state: EmulatorState, values: Mapping[str, Any]) -> str:
    """Add a flow run that no request of a client creates, and return its id. The flow may have any schedule.

    Raises:
        ValueError: for an unknown field, an unknown flow or an invalid window.
    """
    unknown = set(values) - {"flow_id", "window_start", "window_end", "client_id", "delay_s"}
    if unknown:
        raise ValueError(f"POST /_emulator/runs has no field {', '.join(sorted(unknown))}.")
    if (flow := state.flows.get(str(values.get("flow_id")))) is None:
        raise ValueError(f"There is no flow {values.get('flow_id')!r}.")
    start, end = (to_epoch_s(values.get(name, "")) for name in ("window_start", "window_end"))
    if end <= start:
        raise ValueError("window_end must be after window_start.")
    now = int(state.now())
    creation = Creation(
        flow=flow,
        params={"startTime": now, "windowStartTime": start, "windowEndTime": end},
        start_time=now,
        window_start=start,
        window_end=end,
        delta_column=flow.delta_column,
    )
    client_id = str(values.get("client_id", SCHEDULE_CLIENT_ID))
    return state.add_run(creation, client_id=client_id, delay_s=_seconds(values.get("delay_s", 0), "delay_s")).id


def end_runs(state: EmulatorState, values: Mapping[str, Any]) -> int:
    """End active runs of a flow and return their number.

    Raises:
        ValueError: for an unknown field, an unknown flow or an invalid count.
    """
    unknown = set(values) - {"flow_id", "count"}
    if unknown:
        raise ValueError(f"POST /_emulator/end has no field {', '.join(sorted(unknown))}.")
    flow_id, count = values.get("flow_id"), values.get("count")
    if flow_id not in state.flows:
        raise ValueError(f"There is no flow {flow_id!r}.")
    if count is not None and (type(count) is not int or count < 1):
        raise ValueError(f"count must be a positive integer, not {count!r}.")
    return state.end_runs(flow_id, count=count)


async def _fields(request: Request) -> dict[str, Any]:
    try:
        values = json.loads(await request.body())
    except ValueError:
        raise ValueError("The body is not JSON.") from None
    if not isinstance(values, dict):
        raise ValueError("The body must be a JSON object.")
    return values


def _require_local(request: Request) -> None:
    """Raise an error if a web page of another host may have sent the request, also by a rebound host name.

    Raises:
        ForeignOriginError: for a foreign or missing host, or a foreign origin.
    """
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not _is_local(f"http://{hosts[0]}"):
        raise ForeignOriginError("Host")
    if any(not _is_local(origin) for origin in request.headers.getlist("origin")):
        raise ForeignOriginError("Origin")


def _is_local(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and "@" not in parts.netloc and parts.hostname in _LOCAL_HOSTS
    except ValueError:
        return False


def _malformed(error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)
