# SPDX-License-Identifier: Apache-2.0
"""Route of the page that previews a fill: `GET data/fill`.

It changes nothing. The browser sends the listed requests to Airflow's public REST API, with the user's own login.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import AfterValidator

from airflow_flowservice._airflow import fill_actions, versions
from airflow_flowservice._airflow.backfill_commands import fill_command, step_json
from airflow_flowservice.coverage.cover import GAP_STATES, State
from airflow_flowservice.coverage.fill_plan import MARGIN, RESTATED_STATES, count_unknown
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.plain_text import canonical_id
from airflow_flowservice.plugins import flow_run_lookup, permissions, read_slots
from airflow_flowservice.plugins.coverage_reader import CoverageReader, RequestedRange
from airflow_flowservice.plugins.error_responses import PageRequestError, require_printable
from airflow_flowservice.windows.chunks import ChunkLength
from airflow_flowservice.windows.window import EPOCH, IngestionWindow, iso

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.database import Feed
    from airflow_flowservice.coverage.fill_plan import FillStep
    from airflow_flowservice.plugins.coverage_reader import CoverageResult

Purpose = Literal["fill", "retry", "restate"]
_STATES: dict[Purpose, frozenset[State]] = {
    "fill": GAP_STATES,
    "retry": frozenset({State.FAILED}),
    "restate": RESTATED_STATES,
}

Id = Annotated[str, Query(min_length=1, max_length=250)]
FlowId = Annotated[Id, AfterValidator(canonical_id)]

router = APIRouter(prefix="/data")


@router.get("/fill")
def read_fill(
    user: GetUserDep,
    session: SessionDep,
    flow_id: FlowId,
    dag_id: Id,
    start: Annotated[str, Query(alias="from", min_length=1, max_length=40)],
    end: Annotated[str, Query(alias="to", min_length=1, max_length=40)],
    purpose: Purpose = "fill",
    chunk: Annotated[str | None, Query(max_length=10)] = None,
    conn_id: Annotated[str | None, Query(max_length=250)] = None,
) -> JSONResponse:
    """Return the DAG runs of one DAG that would fill windows.

    `steps` are those of `step_json`, `dag_runs` their number. `unknown` is the number of windows with an unknown
    outcome, which are not filled; `unplaced` that of the flow runs without a known window. `paused` is true if the DAG
    is paused, so that its DAG runs stay queued. `refusal` is the reason why the user may not fill them, or null.
    `command` does the same on the command line; null if there is none.
    """
    now = versions.utc_now()
    within = _range(start, end, now=now)
    length = _chunk_of(chunk)
    reader, result, is_paused = _read(
        session, user=user, flow_id=flow_id, dag_id=dag_id, within=within, conn_id=conn_id, now=now
    )
    restate = purpose == "restate"
    with read_slots.occupied():
        steps = reader.fill_steps(
            result.coverage, dag_id=dag_id, within=within, states=_STATES[purpose], chunk=length, restate=restate
        )
    unknown = count_unknown(result.coverage, within=within)
    return JSONResponse(
        {
            **_plan_json(steps, now=now),
            "flow_id": flow_id,
            "dag_id": dag_id,
            "from": iso(within.start),
            "to": iso(within.end),
            "purpose": purpose,
            "unknown": 0 if restate else unknown,
            "unplaced": len(result.coverage.unplaced),
            "paused": is_paused,
            "refusal": permissions.fill_refusal(dag_id, user=user),
            "command": _command(dag_id, flow_id, within=within, chunk=length, purpose=purpose),
        }
    )


def _read(
    session: Session,
    *,
    user: Any,
    flow_id: str,
    dag_id: str,
    within: IngestionWindow,
    conn_id: str | None,
    now: datetime,
) -> tuple[CoverageReader, CoverageResult, bool]:
    """Return the reader, the coverage, and whether the DAG is paused.

    :raises PageRequestError: the user may not read the DAG or the connection, or the records cannot be read.
    """
    with read_slots.occupied():
        feeds = permissions.feeds_of_flow(session, user=user, flow_id=flow_id, dag_id=dag_id)
    if conn_id:
        require_printable(conn_id)
        permissions.require_connection(conn_id, user=user)
    with read_slots.occupied():
        is_paused = fill_actions.is_paused(session, dag_id)
        reader = _reader(session, flow_id=flow_id, feeds=feeds, within=within, now=now)
    session.close()  # releases the database connection while Flow Service is queried
    listed = flow_run_lookup.list_flow_runs(flow_id, conn_id=conn_id, since=reader.within.start) if conn_id else None
    with read_slots.occupied():
        result = reader.coverage(listed.runs if listed else ())
    if not result.fillable:
        raise PageRequestError(
            503, "The ledger cannot be read, so no window is known to be missing", remedy="see the API server's log"
        )
    return reader, result, is_paused


def _reader(
    session: Session, *, flow_id: str, feeds: Sequence[Feed], within: IngestionWindow, now: datetime
) -> CoverageReader:
    """Return the reader of a longer range, or of the range itself if the longer one has too many windows.

    The state of a window across an edge of the range depends on time outside of the range.
    """
    longer = RequestedRange(start=max(within.start - MARGIN, EPOCH), end=within.end + MARGIN)
    try:
        return CoverageReader(session, flow_id=flow_id, feeds=feeds, requested=longer, now=now)
    except PageRequestError:
        exact = RequestedRange(start=within.start, end=within.end)
        return CoverageReader(session, flow_id=flow_id, feeds=feeds, requested=exact, now=now)


def _plan_json(steps: list[FillStep], *, now: datetime) -> dict[str, Any]:
    return {
        "steps": [step_json(step, now=now) for step in steps],
        "dag_runs": sum(len(step.windows) for step in steps),
    }


def _command(
    dag_id: str, flow_id: str, *, within: IngestionWindow, chunk: ChunkLength | None, purpose: Purpose
) -> str | None:
    """Return the command that does the same; None for failed windows only."""
    if purpose == "retry":
        return None
    command = fill_command(program=versions.command_program(), dag_id=dag_id, flow_id=flow_id, within=within)
    options = [*([f"--chunk {chunk}"] if chunk else []), *(["--restate"] if purpose == "restate" else [])]
    return " ".join([command, *options])


def _range(start: str, end: str, *, now: datetime) -> IngestionWindow:
    requested = RequestedRange.parse(start, end, now=now)
    return IngestionWindow(requested.start or EPOCH, requested.end)


def _chunk_of(text: str | None) -> ChunkLength | None:
    try:
        return ChunkLength.parse(text) if text else None
    except WindowError as error:
        raise PageRequestError(400, error.message, remedy=error.remedy or "") from error
