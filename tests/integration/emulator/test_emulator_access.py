# SPDX-License-Identifier: Apache-2.0
"""Tests of IMS tokens and of the headers of Flow Service requests."""

from __future__ import annotations

import uuid
from email.utils import parsedate_to_datetime

import pytest


def test_ims_issues_token_for_valid_secret(client):
    """IMS responds with a bearer token and its lifetime in seconds."""
    response = client.request_token()

    assert 200 == response.status_code
    assert {"access_token", "token_type", "expires_in"} == set(response.json())
    assert ("bearer", 86399) == (response.json()["token_type"], response.json()["expires_in"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"client_secret": "wrong"}, (401, "invalid_client")),
        ({"client_id": "stranger"}, (401, "invalid_client")),
        ({"grant_type": None}, (400, "invalid_request")),
        ({"grant_type": "jwt_bearer"}, (400, "unsupported_grant_type")),
    ],
)
def test_ims_reports_cause_of_error(client, changes, expected):
    """Wrong credentials and a wrong grant type have different errors."""
    response = client.request_token(**changes)

    assert expected == (response.status_code, response.json()["error"])
    assert response.json()["error_description"]


def test_unknown_scope_is_accepted(client):
    """IMS does not check scopes."""
    assert 200 == client.request_token(scope="unknown").status_code


def test_credentials_in_query_string_are_rejected(client):
    """Query strings are logged, so they must not contain secrets."""
    response = client.session.post(
        f"{client.emulator.url}/ims/token/v3?client_secret=emulator-secret", data={"grant_type": "x"}
    )

    assert (400, "invalid_request") == (response.status_code, response.json()["error"])


def test_credentials_as_json_are_rejected(client):
    """IMS accepts only a form body."""
    response = client.session.post(f"{client.emulator.url}/ims/token/v3", json={"client_id": "emulator-client"})

    assert (400, "invalid_request") == (response.status_code, response.json()["error"])


def test_token_expires(client):
    """A token is invalid after its lifetime."""
    client.clock.advance(86_399)

    response = client.get("/flows")

    assert (401, "401013") == (response.status_code, response.json()["error_code"])


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("Authorization", None, (401, "403010")),
        ("Authorization", "Bearer stale", (401, "401013")),
        ("Authorization", "Basic abc", (401, "401013")),
        ("x-api-key", None, (403, "403000")),
        ("x-api-key", "stranger", (403, "403000")),
        ("x-gw-ims-org-id", None, (400, "400003")),
        ("x-gw-ims-org-id", "OTHER@AdobeOrg", (401, "2000-401")),
        ("x-sandbox-name", None, (400, "2105-400")),
        ("x-sandbox-name", "dev", (404, "2100-404")),
    ],
)
def test_each_header_is_checked(client, header, value, expected):
    """Errors of token, API key, organization and sandbox have different statuses and codes."""
    client.session.headers[header] = value

    response = client.get("/runs")

    body = response.json()
    code = body["error_code"] if "error_code" in body else body["error-chain"][0]["errorCode"]
    assert expected == (response.status_code, code)


def test_reader_cannot_create_runs(client):
    """A read-only client gets error 1427 for a creation and for a re-trigger."""
    run_id = client.created()
    reader = client.log_in("emulator-reader")

    assert 200 == reader.get("/flows").status_code
    for response in (reader.create(), reader.retrigger(run_id)):
        assert (403, "1427-403") == (response.status_code, response.json()["error-chain"][0]["errorCode"])


def test_every_response_has_request_id_and_date(client):
    """Error responses also have a request id and the date of the emulator's clock."""
    responses = [client.request_token(), client.get("/flows"), client.get("/flows/none"), client.create("none")]

    assert 4 == len({uuid.UUID(response.headers["x-request-id"]) for response in responses})
    for response in responses:
        assert client.clock.now == parsedate_to_datetime(response.headers["Date"]).timestamp()


def test_clock_offset_moves_date_and_start_time_check(client_with):
    """`clock_offset_s` changes the Date header and the check of `startTime`."""
    with client_with(clock_offset_s=300) as client:
        response = client.create()

        assert client.clock.now + 300 == parsedate_to_datetime(response.headers["Date"]).timestamp()
        assert "1360-400" == response.json()["error-chain"][0]["errorCode"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("report", {"type", "title", "status", "report", "error-chain"}),
        ("plain", {"code", "message"}),
        ("gateway", {"error_code", "message"}),
    ],
)
def test_error_shape_setting(client_with, shape, expected):
    """Flow Service's errors have one of three formats."""
    with client_with(error_shape=shape) as client:
        assert expected == set(client.create("none").json())


def test_unknown_route_is_flow_service_error(client):
    """A request to an unknown route gets a JSON error of Flow Service."""
    response = client.get("/flows/../connections/x/y/z")

    assert (404, "1101-404") == (response.status_code, response.json()["error-chain"][0]["errorCode"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Origin": "http://127.0.0.1:9000"}, 200),
        ({"Host": "attacker.example"}, 403),
        ({"Host": "127.0.0.1.attacker.example"}, 403),
        ({"Host": "attacker.example@127.0.0.1"}, 403),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1@attacker.example"}, 403),
        ({"Origin": "http://localhost", "Host": "rebound.example"}, 403),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "ledger"), ("GET", "faults"), ("POST", "reset"), ("DELETE", "outcomes")]
)
def test_control_routes_refuse_other_hosts(client, method, path, headers, status):
    """A web page in a browser on this machine cannot use them, also not by a rebound host name."""
    response = client.session.request(method, f"{client.emulator.url}/_emulator/{path}", headers=headers)
    assert status == response.status_code
    if status == 403:
        assert "must name this machine" in response.json()["error"]
