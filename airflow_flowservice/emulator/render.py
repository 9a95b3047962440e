# SPDX-License-Identifier: Apache-2.0
"""JSON of flows, flow runs and related resources, in Flow Service's response format."""

from __future__ import annotations

from typing import Any

from airflow_flowservice.emulator.instants import epoch_ms
from airflow_flowservice.emulator.model import EmulatedFlow, EmulatedRun, FlowKind
from airflow_flowservice.emulator.settings import Settings, ShowWindow

SPECS: dict[FlowKind, tuple[str, str]] = {
    "table": ("14518937-270c-4525-bdec-c2ba7cce3860", "CRMToAEP"),
    "file": ("9753525b-82c7-4dce-8a9b-5ccfce2b9876", "CloudStorageToAEP"),
    "streaming": ("d69717ba-71b4-4313-b654-49f9cf126d7a", "StreamToAEP"),
}
"""Id and name of the flow specification of each kind, as in Adobe's public samples."""

EXPORT_PATH = "/data/foundation/export"
"""Path of the Data Access API."""

_DATA_LAKE_SPEC = {"id": "c604ff05-7f1a-43c0-8e18-33bf874cb11c", "version": "1.0"}
_SOURCE_SPEC = {"id": "cfc0fee1-7dc0-40ef-b73e-d8b134c436f5", "version": "1.0"}
# The top-level `state` of Adobe's API description of 2021.
_STATES = {"success": "succeeded", "completed": "succeeded"}
_INPUT_BYTES, _OUTPUT_BYTES = 120, 84


def run_json(
    run: EmulatedRun, *, settings: Settings, show_window: ShowWindow, now: float, url: str = ""
) -> dict[str, Any]:
    """Return a flow run as Flow Service shows it at `now` (epoch seconds).

    `url` is the base URL of the server, for the address of the failed records.
    """
    document: dict[str, Any] = {
        "id": run.id,
        "flowId": run.flow_id,
        "createdAt": epoch_ms(run.created_at),
        "updatedAt": epoch_ms(run.updated_at(now)),
        "createdBy": run.client_id,
        "updatedBy": run.client_id,
        "createdClient": run.client_id,
        "updatedClient": run.client_id,
        "sandboxName": settings.sandbox,
        "imsOrgId": settings.org_id,
        "etag": run.etag,
        "metrics": _metrics(run, now),
        "activities": _activities(run, show_window, now, url),
    }
    if run.outcome.status_place == "state" and run.phase(now) != "scheduled":
        document["state"] = _STATES.get(run.status(now).lower(), run.status(now))
    if show_window == "params":
        document["params"] = run.params
    if run.parent_id:
        document["parentFlowRunId"] = run.parent_id
    if run.child_ids:
        document["childFlowRunIds"] = list(run.child_ids)
    return document


def _metrics(run: EmulatedRun, now: float) -> dict[str, Any]:
    """Return the metrics: only the status of a scheduled run, and record counts of -1 for a run in progress."""
    phase = run.phase(now)
    is_hidden = run.outcome.status_place == "state" or (run.outcome.status_place != "metrics" and phase == "ended")
    status: dict[str, Any] = {} if is_hidden else {"status": run.status(now)}
    if phase == "scheduled":
        return {"statusSummary": status}
    duration = {"startedAtUTC": epoch_ms(run.starts_at)}
    if phase == "running":
        counts = {"inputRecordCount": -1, "outputRecordCount": -1}
        return {"durationSummary": duration, "recordSummary": counts, "statusSummary": status}
    duration["completedAtUTC"] = epoch_ms(run.ends_at)
    if run.outcome.errors:
        status["errors"] = list(run.outcome.errors)
    if run.outcome.extension_errors:
        status["extensions"] = {"errors": list(run.outcome.extension_errors)}
    return {"durationSummary": duration, **_counts(run), "statusSummary": status}


def _counts(run: EmulatedRun) -> dict[str, Any]:
    first, end = run.source_records
    total, failed = end - first, run.failed_records
    records: dict[str, Any] = {"inputRecordCount": total, "failedRecordCount": failed}
    sizes = {"inputBytes": total * _INPUT_BYTES}
    files = {"inputFileCount": -(-total // 60)}
    # As in Adobe's samples, a success without records has no output counts.
    if total:
        records |= {"outputRecordCount": total - failed, "createdRecordCount": total - failed}
        sizes["outputBytes"] = (total - failed) * _OUTPUT_BYTES
        files["outputFileCount"] = int(total > failed)
    if failed and not run.outcome.failed:
        records["failedInfo"] = [{"code": "DCVS-1000-400", "message": "A value was rejected.", "count": failed}]
    if run.outcome.unknown_counts:
        records = {"inputRecordCount": -1, "outputRecordCount": -1, "failedRecordCount": -1}
    records = {name: value for name, value in {**records, **run.outcome.record_summary}.items() if value is not None}
    return {"recordSummary": records, "sizeSummary": sizes, "fileSummary": files}


def _activities(run: EmulatedRun, show_window: ShowWindow, now: float, url: str) -> list[dict[str, Any]]:
    if run.phase(now) == "scheduled":
        return []
    duration: dict[str, Any] = {"startedAtUTC": epoch_ms(run.starts_at)}
    if run.phase(now) == "ended":
        duration["completedAtUTC"] = epoch_ms(run.ends_at)
    if show_window == "activity":
        duration["extensions"] = {
            "windowStart": epoch_ms(run.window_start),
            "windowEnd": epoch_ms(run.window_end),
        }
    has_ended = run.phase(now) == "ended"
    status: dict[str, Any] = {"status": run.status(now)}
    if has_ended and run.outcome.status_place == "nowhere":
        status = {}
    if has_ended and run.outcome.error_detail:
        status["extensions"] = {"errorDetail": run.outcome.error_detail}
    copy = {
        "id": "copyActivity",
        "name": "Copy Activity",
        "updatedAtUTC": epoch_ms(run.updated_at(now)),
        "durationSummary": duration,
        "statusSummary": status,
    }
    return [copy, _promotion(run, now, url)] if run.has_batch(now) else [copy]


def _promotion(run: EmulatedRun, now: float, url: str) -> dict[str, Any]:
    """Return the activity that writes the batch to the data lake, with the address of the failed records."""
    status: dict[str, Any] = {} if run.outcome.status_place == "nowhere" else {"status": run.status(now)}
    if run.outcome.manifest and run.outcome.diagnostics and run.diagnosed_records:
        address = f"{url}{EXPORT_PATH}/batches/{run.batch_id}/meta?path=row_errors"
        status["extensions"] = {"manifest": {"failedRecords": address}}
    return {
        "id": "promotionActivity",
        "name": "Promotion Activity",
        "updatedAtUTC": epoch_ms(run.updated_at(now)),
        "durationSummary": {"startedAtUTC": epoch_ms(run.ends_at), "completedAtUTC": epoch_ms(run.ends_at)},
        "statusSummary": status,
        "targetInfo": [{"reference": {"type": "batch", "ids": [run.batch_id]}}],
    }


def batch_json(run: EmulatedRun, *, dataset_id: str, now: float) -> dict[str, Any]:
    """Return the batch of a run as the catalogue shows it at `now` (epoch seconds)."""
    first, end = run.source_records
    has_ended = now >= run.batch_ends_at
    document: dict[str, Any] = {
        "status": run.batch_status(now),
        "created": epoch_ms(run.ends_at),
        "updated": epoch_ms(run.batch_ends_at if has_ended else run.ends_at),
        "relatedObjects": [{"type": "dataSet", "id": dataset_id}],
        "tags": {"acp_enableErrorDiagnostics": run.outcome.diagnostics, "acp_partialIngestionPercent": 5},
        "errors": list(run.outcome.batch_errors) if has_ended else [],
    }
    if has_ended:
        counts = {"inputRecordCount": end - first, "failedRecordCount": run.failed_records}
        document["metrics"] = counts | {"outputRecordCount": end - first - run.failed_records}
    return document


def flow_json(flow: EmulatedFlow, last_run: EmulatedRun | None, *, settings: Settings, now: float) -> dict[str, Any]:
    """Return a flow as Flow Service shows it at `now` (epoch seconds)."""
    source_id, target_id = flow.related_id("source"), flow.related_id("target")
    spec_id, _ = SPECS[flow.kind]
    document: dict[str, Any] = {
        "id": flow.id,
        "name": flow.name,
        "createdAt": epoch_ms(flow.created_at),
        "updatedAt": epoch_ms(flow.created_at),
        "createdClient": "exc_app",
        "sandboxName": settings.sandbox,
        "imsOrgId": settings.org_id,
        "state": flow.state_at(now),
        "etag": f'"{flow.id[:8]}-0000-0200-0000-000000000000"',
        "flowSpec": {"id": spec_id, "version": "1.0"},
        "sourceConnectionIds": [source_id],
        "targetConnectionIds": [target_id],
        "scheduleParams": _schedule(flow),
        "transformations": _transformations(flow),
        "runs": f"/runs?property=flowId=={flow.id}",
        "inheritedAttributes": {
            "sourceConnections": [{"id": source_id, "connectionSpec": _SOURCE_SPEC}],
            "targetConnections": [{"id": target_id, "connectionSpec": _DATA_LAKE_SPEC}],
        },
    }
    if last_run is not None:
        document["lastRunDetails"] = _last_run(last_run, now)
    return document


def _schedule(flow: EmulatedFlow) -> dict[str, Any]:
    start = {"startTime": int(flow.created_at), "frequency": flow.frequency}
    return start if flow.frequency == "once" else {**start, "interval": 1, "backfill": True}


def _transformations(flow: EmulatedFlow) -> list[dict[str, Any]]:
    copy: dict[str, Any] = {"mode": "append"}
    if flow.delta_column:
        copy["deltaColumn"] = flow.delta_column
    return [
        {"name": "Copy", "params": copy},
        {"name": "Mapping", "params": {"mappingId": flow.related_id("mapping"), "mappingVersion": 0}},
    ]


def _last_run(run: EmulatedRun, now: float) -> dict[str, Any]:
    details: dict[str, Any] = {"id": run.id, "state": run.status(now)}
    if run.phase(now) != "scheduled":
        details["startedAtUTC"] = epoch_ms(run.starts_at)
    if run.phase(now) == "ended":
        details["completedAtUTC"] = epoch_ms(run.ends_at)
    return details


def spec_json(kind: FlowKind) -> dict[str, Any]:
    """Return a flow specification. `runSpec.spec.required` has `deltaColumn` only for table-based flows."""
    spec_id, name = SPECS[kind]
    document: dict[str, Any] = {"id": spec_id, "name": name, "version": "1.0"}
    if kind == "streaming":
        return document
    times = ["startTime", "windowStartTime", "windowEndTime"]
    properties: dict[str, Any] = {time: {"type": "integer"} for time in times}
    required = list(times)
    if kind == "table":
        required.append("deltaColumn")
        properties["deltaColumn"] = {"type": "object", "properties": {"name": {"type": "string"}}}
    run_spec = {"name": "ProviderParams", "type": "JsonSchema"}
    return document | {"runSpec": {**run_spec, "spec": {"properties": properties, "required": required}}}


def target_json(flow: EmulatedFlow) -> dict[str, Any]:
    """Return the target connection of a flow. `params.dataSetId` is the target dataset."""
    return {
        "id": flow.related_id("target"),
        "name": f"{flow.name}: target",
        "connectionSpec": _DATA_LAKE_SPEC,
        "params": {"dataSetId": flow.dataset_id},
    }


def source_json(flow: EmulatedFlow) -> dict[str, Any]:
    """Return the source connection of a flow."""
    params = {"path": "/made-up"} if flow.kind == "file" else {"tableName": "made_up"}
    return {
        "id": flow.related_id("source"),
        "name": f"{flow.name}: source",
        "baseConnectionId": flow.related_id("base"),
        "connectionSpec": _SOURCE_SPEC,
        "params": params,
    }
