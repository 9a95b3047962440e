# SPDX-License-Identifier: Apache-2.0
"""Arbitrary JSON as a hostile service may send it, with names that the parsers read."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from airflow_flowservice.api.http_session import HttpResponse
from airflow_flowservice.api.models import Flow, FlowRun, FlowSpec, SourceConnection, TargetConnection
from airflow_flowservice.api.responses import Call

KEYS = [
    "id",
    "flowId",
    "name",
    "state",
    "status",
    "metrics",
    "statusSummary",
    "errors",
    "code",
    "message",
    "params",
    "activities",
    "extensions",
    "targetInfo",
    "reference",
    "ids",
    "etag",
    "scheduleParams",
    "frequency",
    "flowSpec",
    "transformations",
    "deltaColumn",
    "sourceConnectionIds",
    "items",
    "_links",
    "next",
    "href",
    "parentFlowRunId",
    "createdClient",
    "recordSummary",
    "inputRecordCount",
    "tableName",
    "dataSetId",
    "baseConnectionId",
    "error",
    "error_description",
    "report",
    "error-chain",
    "type",
    "runSpec",
    "spec",
    "required",
    "access_token",
    "expires_in",
]
TEXT = st.text(st.characters()) | st.sampled_from(
    ["a\0b", "\ud83d", "\udc00\ud83d", "one\nERROR two", "\x1b[2J", "x" * 12_000, "?continuationToken=\ud800", "failed"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | TEXT, inner, max_size=6),
    max_leaves=15,
)


def run_with(message: str) -> dict[str, Any]:
    """Return a flow run that has the text at every place."""
    errors = {"errors": [{"code": message, "message": message}]}
    return {
        "id": message,
        "flowId": message,
        "etag": message,
        "metrics": {"statusSummary": {"status": message, **errors}},
        "activities": [{"statusSummary": {"extensions": errors}, "targetInfo": [{"reference": {"ids": [message]}}]}],
    }


def flow_with(message: str) -> dict[str, Any]:
    """Return a dataflow that has the text at every place."""
    return {
        "id": message,
        "name": message,
        "state": message,
        "scheduleParams": {"frequency": message},
        "sourceConnectionIds": [message],
        "transformations": [{"name": "Copy", "params": {"deltaColumn": {"name": message, "timezone": message}}}],
        message: {message: [message, float("nan")]},
    }


OBJECTS = JSON | TEXT.map(run_with) | TEXT.map(flow_with) | st.fixed_dictionaries({"id": TEXT, "errors": JSON})
PARSERS = [
    (Call.GET_RUN, FlowRun.parse),
    (Call.GET_FLOW, Flow.parse),
    (Call.GET_FLOW_SPEC, FlowSpec.parse),
    (Call.GET_SOURCE, SourceConnection.parse),
    (Call.GET_TARGET, TargetConnection.parse),
]


def received(value: Any, status: int = 200, **headers: str) -> HttpResponse:
    """Return the response that has this JSON."""
    return HttpResponse(status=status, body=json.dumps(value).encode(), headers=headers)
