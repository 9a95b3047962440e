"""Who may come in, and what everybody else is told."""

from __future__ import annotations

import uuid
from email.utils import parsedate_to_datetime

import pytest


def test_a_token_is_given_for_the_right_secret(client):
    """IMS answers a bearer token and its lifetime in seconds."""
    answer = client.ask_token()

    assert 200 == answer.status_code
    assert {"access_token", "token_type", "expires_in"} == set(answer.json())
    assert ("bearer", 86399) == (answer.json()["token_type"], answer.json()["expires_in"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"client_secret": "wrong"}, (401, "invalid_client")),
        ({"client_id": "stranger"}, (401, "invalid_client")),
        ({"grant_type": None}, (400, "invalid_request")),
        ({"grant_type": "jwt_bearer"}, (400, "unsupported_grant_type")),
    ],
)
def test_ims_refuses_with_a_reason(client, changes, expected):
    """A wrong secret is told from a wrong grant."""
    answer = client.ask_token(**changes)

    assert expected == (answer.status_code, answer.json()["error"])
    assert answer.json()["error_description"]


def test_an_unknown_scope_is_fine(client):
    """Scopes are not checked."""
    assert 200 == client.ask_token(scope="whatever").status_code


def test_credentials_in_the_query_are_refused(client):
    """Query strings are logged, so no secret may travel there."""
    answer = client.session.post(
        f"{client.emulator.url}/ims/token/v3?client_secret=emulator-secret", data={"grant_type": "x"}
    )

    assert (400, "invalid_request") == (answer.status_code, answer.json()["error"])


def test_credentials_as_json_are_refused(client):
    """IMS takes a form."""
    answer = client.session.post(f"{client.emulator.url}/ims/token/v3", json={"client_id": "emulator-client"})

    assert (400, "invalid_request") == (answer.status_code, answer.json()["error"])


def test_a_token_expires(client):
    """After its lifetime a token is not valid any more."""
    client.clock.forward(86_399)

    answer = client.get("/flows")

    assert (401, "401013") == (answer.status_code, answer.json()["error_code"])


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
    """Token, key, organization and sandbox are told apart by status and code."""
    client.session.headers[header] = value

    answer = client.get("/runs")

    body = answer.json()
    code = body["error_code"] if "error_code" in body else body["error-chain"][0]["errorCode"]
    assert expected == (answer.status_code, code)


def test_a_reader_reads_but_may_not_create(client):
    """A token without the permission is refused with 1427 where it would create a run."""
    run_id = client.created()
    reader = client.log_in("emulator-reader")

    assert 200 == reader.get("/flows").status_code
    for answer in (reader.create(), reader.retrigger(run_id)):
        assert (403, "1427-403") == (answer.status_code, answer.json()["error-chain"][0]["errorCode"])


def test_every_answer_has_a_request_id_and_the_emulators_date(client):
    """Also refusals carry what Adobe's support asks for, and the service's clock."""
    answers = [client.ask_token(), client.get("/flows"), client.get("/flows/none"), client.create("none")]

    assert 4 == len({uuid.UUID(answer.headers["x-request-id"]) for answer in answers})
    for answer in answers:
        assert client.clock.now == parsedate_to_datetime(answer.headers["Date"]).timestamp()


def test_the_emulators_clock_may_be_ahead(client_with):
    """`clock_offset_s` moves the Date header, and with it what counts as the past."""
    with client_with(clock_offset_s=300) as client:
        answer = client.create()

        assert client.clock.now + 300 == parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert "1360-400" == answer.json()["error-chain"][0]["errorCode"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("report", {"type", "title", "status", "report", "error-chain"}),
        ("plain", {"code", "message"}),
        ("gateway", {"error_code", "message"}),
    ],
)
def test_errors_have_the_shape_that_is_set(client_with, shape, expected):
    """Flow Service's errors come in three shapes."""
    with client_with(error_shape=shape) as client:
        assert expected == set(client.create("none").json())


def test_an_unknown_route_is_a_flow_service_error(client):
    """There is no HTML and no other framework's 404."""
    answer = client.get("/flows/../connections/x/y/z")

    assert (404, "1101-404") == (answer.status_code, answer.json()["error-chain"][0]["errorCode"])
