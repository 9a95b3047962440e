# SPDX-License-Identifier: Apache-2.0
"""Error diagnostics of batches, as in the Data Access API: files of failed rows, and files that failed.

A flow run that ended with failed records has a batch, and so has one with planned `row_errors` or `failed_files`. A
failed flow run has none by default, because it fails before a batch is created.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from airflow_flowservice.emulator.authentication import authorize
from airflow_flowservice.emulator.errors import EmulatedApiError
from airflow_flowservice.emulator.model import EmulatedRun
from airflow_flowservice.emulator.render import EXPORT_PATH
from airflow_flowservice.emulator.state import EmulatorState

ROWS_PER_FILE = 1000
_ROW_ERRORS = "row_errors"
_PAGE_LIMIT = 100
_CONTENT_OF_FAILED_FILE = "made up\n"


def diagnostic_routes(state: EmulatorState) -> APIRouter:
    """Create the routes below `/data/foundation/export`."""
    router = APIRouter(prefix=EXPORT_PATH)

    @router.get("/batches/{batch_id}/meta")
    async def meta(batch_id: str, request: Request) -> Response:
        authorize(state, request.headers)
        run = _run_of(state, batch_id)
        path = request.query_params.get("path", "")
        if path == _ROW_ERRORS and run.outcome.diagnostics and run.diagnosed_records:
            sizes = [(name, len(rows_of(run, name))) for name in _row_files(run)]
            names = [(name, f"meta?path={quote(f'{_ROW_ERRORS}/{name}', safe='')}", size) for name, size in sizes]
            return _listing(state, run, names)
        folder, _, name = path.partition("/")
        if folder != _ROW_ERRORS or not run.outcome.diagnostics or name not in _row_files(run):
            raise EmulatedApiError(404, "1101", f"Batch {batch_id} has no {path!r}.")
        return Response(rows_of(run, name), media_type="application/octet-stream")

    @router.get("/batches/{batch_id}/failed")
    async def failed(batch_id: str, request: Request) -> Response:
        authorize(state, request.headers)
        run = _run_of(state, batch_id)
        names = run.outcome.failed_files
        if path := request.query_params.get("path"):
            if path not in names:
                raise EmulatedApiError(404, "1101", f"Batch {batch_id} has no failed file {path!r}.")
            return Response(_CONTENT_OF_FAILED_FILE, media_type="application/octet-stream")
        size = len(_CONTENT_OF_FAILED_FILE)
        return _listing(state, run, [(name, f"failed?path={quote(name, safe='')}", size) for name in names])

    return router


def rows_of(run: EmulatedRun, name: str) -> bytes:
    """Return the JSON lines of one file of failed rows. Each source record has the time of its minute."""
    first = run.source_records[0] + _row_files(run).index(name) * ROWS_PER_FILE
    last = min(first + ROWS_PER_FILE, run.source_records[0] + run.diagnosed_records)
    lines = (json.dumps(_row(run, minute)) for minute in range(first, last))
    return "".join(f"{line}\n" for line in lines).encode()


def _row(run: EmulatedRun, minute: int) -> dict[str, Any]:
    errors = run.outcome.errors_of_rows
    number = minute - run.source_records[0]
    updated_at = datetime.fromtimestamp(minute * 60, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    return {"id": minute, "updated_at": updated_at, "amount": "n/a", "_errors": [errors[number % len(errors)]]}


def _row_files(run: EmulatedRun) -> list[str]:
    return [f"conversion_errors_{number}.json" for number in range(-(-run.diagnosed_records // ROWS_PER_FILE))]


def _run_of(state: EmulatorState, batch_id: str) -> EmulatedRun:
    for run in state.runs.values():
        if run.batch_id == batch_id and run.has_batch(state.now()):
            return run
    raise EmulatedApiError(404, "1101", f"There is no batch {batch_id!r}.")


def _listing(state: EmulatorState, run: EmulatedRun, names: list[tuple[str, str, int]]) -> Response:
    """Return a list of files with their links. Sizes are strings, as in Adobe's answers."""
    data = [
        {
            "name": name,
            "length": str(size),
            "_links": {"self": {"href": f"{state.url}{EXPORT_PATH}/batches/{run.batch_id}/{link}"}},
        }
        for name, link, size in names[:_PAGE_LIMIT]
    ]
    return JSONResponse({"data": data, "_page": {"limit": _PAGE_LIMIT, "count": len(data)}})
