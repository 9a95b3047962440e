# SPDX-License-Identifier: Apache-2.0
"""The contract with Adobe accepts both forms of a request, and refuses all other forms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from contract import Recorder, endpoint_of, request_errors, response_errors

ROOT = "/data/foundation/flowservice"
HEADERS = {
    "authorization": "Bearer t",
    "x-api-key": "c",
    "x-gw-ims-org-id": "o",
    "x-sandbox-name": "prod",
    "content-type": "application/json",
}
STRINGS = {"startTime": "1767225600", "windowStartTime": "0", "windowEndTime": "1767225600"}
INTEGERS = {name: int(value) for name, value in STRINGS.items()}


def creation(**params: Any) -> bytes:
    return json.dumps({"flowId": "f-1", "params": params}).encode()


@pytest.mark.parametrize("times", [STRINGS, INTEGERS], ids=["strings", "integers"])
@pytest.mark.parametrize("column", [{}, {"deltaColumn": {"name": "updated", "timezone": "UTC"}}])
def test_both_types_of_times_are_in_the_contract(times: dict[str, Any], column: dict[str, Any]) -> None:
    """Adobe's tutorial has strings, its OpenAPI file integers."""
    assert [] == request_errors("POST", f"{ROOT}/runs", HEADERS, creation(**times, **column))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {**STRINGS, "startTime": 1767225600},
        {**STRINGS, "startTime": "1767225600000"},
        {**STRINGS, "startTime": "2026-01-01"},
        {**INTEGERS, "startTime": 1.5},
        {**INTEGERS, "startTime": True},
        {**INTEGERS, "status": "active"},
        {**INTEGERS, "deltaColumn": "updated"},
        {"startTime": 1, "windowStartTime": 2},
    ],
)
def test_other_params_violate_the_contract(params: dict[str, Any]) -> None:
    """Times of two types, milliseconds, missing and unknown params are refused."""
    assert request_errors("POST", f"{ROOT}/runs", HEADERS, creation(**params))


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/runs?limit=1&count=true"),
        ("GET", "/runs?limit=0"),
        ("GET", "/runs?limit=1&limit=2"),
        ("GET", "/runs?property=flowId"),
        ("GET", "/runs/a/b"),
        ("GET", "/runs/r-1?limit=1"),
        ("DELETE", "/runs/r-1"),
        ("PUT", "/runs/r-1"),
        ("POST", "/runs/r-1/action?op=cancel"),
        ("POST", "/runs/r-1/action"),
    ],
)
def test_other_requests_violate_the_contract(method: str, target: str) -> None:
    """The contract has only documented requests."""
    assert request_errors(method, ROOT + target, HEADERS, b"")


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "x-gw-ims-org-id", "x-sandbox-name"])
def test_each_header_is_required(name: str) -> None:
    """Adobe requires credential, organization and sandbox in each request."""
    headers = {key: value for key, value in HEADERS.items() if key != name}
    assert request_errors("GET", f"{ROOT}/flows/f-1", headers, b"")
    assert [] == request_errors("GET", f"{ROOT}/flows/f-1", HEADERS, b"")


def test_a_token_is_requested_in_the_body() -> None:
    """Query strings are logged, so they contain no secret."""
    form = b"grant_type=client_credentials&client_id=c&client_secret=s&scope=openid"
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert [] == request_errors("POST", "/ims/token/v3", kind, form)
    assert request_errors("POST", f"/ims/token/v3?{form.decode()}", kind, b"")


def test_both_responses_to_a_creation_are_in_the_contract() -> None:
    """Adobe's tutorial has a list of one, its OpenAPI file the object."""
    assert [] == response_errors("create a run", {"items": [{"id": "r-1", "etag": "e"}]})
    assert [] == response_errors("create a run", {"id": "r-1", "etag": "e"})
    for value in ({"items": []}, {"items": [{"id": "a"}, {"id": "b"}]}, {"etag": "e"}, []):
        assert response_errors("create a run", value)


def test_requests_of_other_clients_are_ignored() -> None:
    """Tests of the emulator send invalid requests on purpose."""
    recorder = Recorder()
    recorder.check("GET", "/nowhere", {"user-agent": "python-requests"}, b"")
    assert [] == recorder.violations
    recorder.check("GET", "/nowhere", {"user-agent": "airflow-flowservice/0.1"}, b"")
    assert ["GET /nowhere is not in the contract"] == recorder.violations
    assert endpoint_of("GET", "/nowhere") is None
