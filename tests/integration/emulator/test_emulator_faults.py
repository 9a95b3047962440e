# SPDX-License-Identifier: Apache-2.0
"""Tests of each planned fault over HTTP."""

from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime

import pytest
import requests

from airflow_flowservice.emulator.faults import FaultPlan
from airflow_flowservice.emulator.settings import TABLE_FLOW_ID


def count_runs(client):
    return len(client.emulator.ledger()["flows"][TABLE_FLOW_ID]["runs"])


def test_refuse_records_nothing(client):
    """`refuse` sends the planned status and headers, and records no run."""
    client.emulator.plan_fault(kind="POST /runs", action="refuse", status=429, headers={"Retry-After": "2"}, times=1)
    response = client.create()

    assert (429, "2", "429050") == (
        response.status_code,
        response.headers["Retry-After"],
        response.json()["error_code"],
    )
    assert 0 == count_runs(client)
    assert 200 == client.create().status_code


def test_refuse_with_flow_service_code(client):
    """The planned code and message appear in the configured error format."""
    client.emulator.plan_fault(kind="POST /runs", action="refuse", status=400, code="1360", message="late")
    body = client.create().json()

    assert ("1360-400", "late") == (body["error-chain"][0]["errorCode"], body["title"])


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("<html>Sign in</html>", "text/html", b"<html>Sign in</html>"),
        ("", "text/plain", b""),
        (None, "text/plain", b""),
        ([1], "application/json", b"[1]"),
        ("not json", "text/plain", b"not json"),
    ],
)
def test_answer_sends_any_body(client, body, content_type, expected):
    """`answer` sends a planned body, such as HTML, an empty body or unexpected JSON, and records no run."""
    client.emulator.plan_fault(kind="POST /runs", action="answer", body=body)
    response = client.create()

    assert (200, content_type, expected) == (
        response.status_code,
        response.headers["Content-Type"],
        response.content,
    )
    assert 0 == count_runs(client)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_record_and_status(client, status):
    """The client receives a 5xx status, but the run is created."""
    client.emulator.plan_fault(action="record_and_status", status=status)

    assert status == client.create().status_code
    assert 1 == count_runs(client)


@pytest.mark.parametrize(("action", "runs"), [("close", 0), ("record_and_close", 1)])
def test_close_without_response(client, action, runs):
    """The connection closes before or after the run is recorded."""
    client.emulator.plan_fault(kind="POST /runs", action=action, nth=1)

    with pytest.raises(requests.ConnectionError):
        client.create()
    assert runs == count_runs(client)
    assert 200 == client.create().status_code


@pytest.mark.parametrize(("action", "runs"), [("hang", 0), ("record_and_hang", 1)])
def test_hang_sends_no_response(client, action, runs):
    """The client gets no response until its timeout."""
    client.emulator.plan_fault(kind="POST /runs", action=action)

    with pytest.raises(requests.ReadTimeout):
        client.create(timeout=(30, 0.2))
    assert runs == count_runs(client)


def test_hang_closes_connection_after_seconds(client):
    """A client without a timeout does not wait forever."""
    client.emulator.plan_fault(kind="GET /runs", action="hang", seconds=0.1)

    with pytest.raises(requests.ConnectionError):
        client.get("/runs")


@pytest.mark.parametrize(("action", "runs"), [("half_body", 0), ("record_and_half_body", 1)])
def test_half_body_of_creation(client, action, runs):
    """The client receives half of the body, then the connection closes."""
    client.emulator.plan_fault(kind="POST /runs", action=action)

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.create()
    assert runs == count_runs(client)


def test_half_body_of_list(client):
    """The client receives half of the list, then the connection closes."""
    client.create()
    client.emulator.plan_fault(kind="GET /runs", action="half_body")

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.get("/runs")


def test_record_late(client):
    """The run is created after the client's timeout, so an immediate search does not find it."""
    # A machine that pauses for some seconds still counts the runs before.
    client.emulator.plan_fault(action="record_late", seconds=4)
    with pytest.raises(requests.ReadTimeout):
        client.create(timeout=(30, 0.1))
    before = count_runs(client)
    deadline = time.monotonic() + 60
    while not count_runs(client) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert (0, 1) == (before, count_runs(client))


def test_slow_response(client):
    """The response is late and otherwise regular."""
    client.emulator.plan_fault(kind="POST /runs", action="slow", seconds=0.2)
    began = time.monotonic()
    response = client.create()

    assert (200, 1) == (response.status_code, count_runs(client))
    assert time.monotonic() - began >= 0.2


def test_expire_tokens(client):
    """The affected request already gets status 401. A new token is valid."""
    client.emulator.plan_fault(kind="GET /runs", action="expire_tokens", nth=2)

    assert [200, 401] == [client.get("/runs").status_code for _ in range(2)]
    assert 200 == client.log_in().get("/runs").status_code


def test_delay_runs(client):
    """A delayed run is hidden in lists and by its id until the delay is over."""
    client.emulator.plan_fault(action="delay_runs", seconds=60)
    run_id = client.created()

    def shown():
        return client.get(f"/runs/{run_id}").status_code, len(client.get("/runs").json()["items"])

    before = shown()
    client.clock.advance(60)
    assert ((404, 0), (200, 1)) == (before, shown())


def test_hide_windows(client):
    """No response contains a window while the fault is planned."""
    run_id = client.created()
    client.emulator.plan_fault(action="hide_windows")
    hidden = client.run(run_id)
    client.emulator.clear_faults()

    assert (False, True) == ("params" in hidden, "params" in client.run(run_id))


def test_ignore_id_filter(client):
    """The list also contains runs with other ids."""
    wanted, other = client.created(), client.created()
    client.emulator.plan_fault(action="ignore_id_filter")
    listed = client.get("/runs", property=[f"id=={wanted}", f"flowId=={TABLE_FLOW_ID}"]).json()["items"]

    assert [wanted, other] == [run["id"] for run in listed]


def test_ims_faults_need_token_route(client):
    """The kind `*` does not include IMS. A fault of IMS needs the kind of the token route."""
    client.emulator.plan_fault(kind="*", action="refuse")
    assert 200 == client.request_token().status_code

    client.emulator.plan_fault(kind="POST /ims/token/v3", action="refuse")
    assert 503 == client.request_token().status_code


def test_for_seconds(client):
    """`for_seconds` limits a fault to a time after planning."""
    client.emulator.plan_fault(action="refuse", status=429, for_seconds=60)
    during = [client.get(path).status_code for path in ("/runs", "/flows")]
    client.clock.advance(61)

    assert [429, 429, 200] == [*during, client.get("/runs").status_code]


def test_times_and_nth(client):
    """`times` selects the next n requests and `nth` the n-th request of a kind."""
    client.emulator.plan_fault(kind="GET /runs", action="refuse", times=2)
    client.emulator.plan_fault(kind="GET /flows", action="refuse", nth=2)

    assert [503, 503, 200] == [client.get("/runs").status_code for _ in range(3)]
    assert [200, 503, 200] == [client.get("/flows").status_code for _ in range(3)]


def test_share_is_reproducible_by_seed():
    """The same seed selects the same requests. Other seeds and other faults select different requests."""

    def selected(seed, actions=("close",)):
        plan = FaultPlan()
        for action in actions:
            plan.add({"kind": "POST /runs", "action": action, "share": 0.2, "seed": seed}, now=0)
        return [plan.faults_for("POST /runs", now=0).response_fault for _ in range(500)]

    once, again, other = selected(1), selected(1), selected(2)
    assert once == again
    assert once != other
    assert 60 < sum(fault is not None for fault in once) < 140
    both = {fault.action for fault in selected(1, ("close", "hang")) if fault}
    assert {"close", "hang"} == both


def test_faults_are_listed_with_counters(client):
    """A test can assert that its fault affected a request."""
    client.emulator.plan_fault(kind="GET /runs", action="refuse", nth=2)
    for _ in range(3):
        client.get("/runs")
    [fault] = client.emulator.faults()

    assert ("refuse", 3, 1) == (fault["action"], fault["seen"], fault["struck"])
    client.emulator.clear_faults()
    assert [] == client.emulator.faults()


def test_fault_responses_have_date_and_request_id(client):
    client.emulator.plan_fault(action="refuse")
    response = client.get("/runs")

    assert client.clock.now == parsedate_to_datetime(response.headers["Date"]).timestamp()
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "explode"},
        {"action": "close", "colour": "red"},
        {"action": "close", "nth": 0},
        {"action": "close", "share": 2},
        {"action": "refuse", "status": 99},
        {"action": "hang", "seconds": -1},
        {"action": "refuse", "headers": "x"},
        {},
    ],
)
def test_malformed_fault_is_rejected(client, fields):
    """A wrong field or value raises an error that names it."""
    with pytest.raises(ValueError, match=r"action|colour|nth|share|status|seconds|headers"):
        client.emulator.plan_fault(**fields)


@pytest.mark.parametrize("action", ["hang", "record_and_hang", "record_late", "slow"])
def test_emulator_stops_while_client_waits(client_with, action):
    """Stopping does not wait for open connections."""
    failed: list[Exception] = []

    def hang(client):
        try:
            client.create()
        except requests.ConnectionError as error:
            failed.append(error)

    with client_with() as client:
        client.emulator.plan_fault(kind="POST /runs", action=action, seconds=60)
        thread = threading.Thread(target=hang, args=(client,))
        thread.start()
        while not client.emulator.ledger()["requests"].get("POST /runs"):
            time.sleep(0.01)
        began = time.monotonic()
    thread.join(30)

    assert time.monotonic() - began < 30
    assert 1 == len(failed)
