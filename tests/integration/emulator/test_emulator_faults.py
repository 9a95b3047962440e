"""Each planned fault, over real HTTP."""

from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime

import pytest
import requests

from airflow_flowservice.emulator.faults import FaultPlan
from airflow_flowservice.emulator.settings import TABLE_FLOW_ID


def recorded(client):
    return len(client.emulator.ledger()["flows"][TABLE_FLOW_ID]["runs"])


def test_a_refusal_comes_before_anything_is_recorded(client):
    """With any status, body and headers."""
    client.emulator.plan_fault(kind="POST /runs", action="refuse", status=429, headers={"Retry-After": "2"}, times=1)
    answer = client.create()

    assert (429, "2", "429050") == (
        answer.status_code,
        answer.headers["Retry-After"],
        answer.json()["error_code"],
    )
    assert 0 == recorded(client)
    assert 200 == client.create().status_code


def test_a_refusal_may_have_a_code_of_flow_service(client):
    """In the shape that is set."""
    client.emulator.plan_fault(kind="POST /runs", action="refuse", status=400, code="1360", message="late")
    body = client.create().json()

    assert ("1360-400", "late") == (body["error-chain"][0]["errorCode"], body["title"])


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("<html>Who are you?</html>", "text/html", b"<html>Who are you?</html>"),
        ("", "text/plain", b""),
        (None, "text/plain", b""),
        ([1], "application/json", b"[1]"),
        ("not json", "text/plain", b"not json"),
    ],
)
def test_any_answer_can_be_given(client, body, content_type, expected):
    """A proxy's HTML, an empty 200, odd JSON; the request is not recorded."""
    client.emulator.plan_fault(kind="POST /runs", action="answer", body=body)
    answer = client.create()

    assert (200, content_type, expected) == (
        answer.status_code,
        answer.headers["Content-Type"],
        answer.content,
    )
    assert 0 == recorded(client)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_run_may_be_recorded_behind_an_error(client, status):
    """The client sees a 5xx, the run exists."""
    client.emulator.plan_fault(action="record_and_status", status=status)

    assert status == client.create().status_code
    assert 1 == recorded(client)


@pytest.mark.parametrize(("action", "runs"), [("close", 0), ("record_and_close", 1)])
def test_the_connection_may_close_without_an_answer(client, action, runs):
    """Before or after the run was recorded."""
    client.emulator.plan_fault(kind="POST /runs", action=action, nth=1)

    with pytest.raises(requests.ConnectionError):
        client.create()
    assert runs == recorded(client)
    assert 200 == client.create().status_code


@pytest.mark.parametrize(("action", "runs"), [("hang", 0), ("record_and_hang", 1)])
def test_there_may_be_no_answer_at_all(client, action, runs):
    """Until the client gives up."""
    client.emulator.plan_fault(kind="POST /runs", action=action)

    with pytest.raises(requests.ReadTimeout):
        client.create(timeout=0.2)
    assert runs == recorded(client)


def test_a_hanging_connection_closes_after_its_seconds(client):
    """So that a test without a timeout ends."""
    client.emulator.plan_fault(kind="GET /runs", action="hang", seconds=0.1)

    with pytest.raises(requests.ConnectionError):
        client.get("/runs")


@pytest.mark.parametrize(("action", "runs"), [("half_body", 0), ("record_and_half_body", 1)])
def test_an_answer_may_break_off(client, action, runs):
    """Half a body arrives, then the connection closes."""
    client.emulator.plan_fault(kind="POST /runs", action=action)

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.create()
    assert runs == recorded(client)


def test_a_list_may_break_off(client):
    """Half of the true answer."""
    client.create()
    client.emulator.plan_fault(kind="GET /runs", action="half_body")

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.get("/runs")


def test_a_run_may_be_recorded_after_the_client_gave_up(client):
    """The worst case for anyone who looks at once."""
    client.emulator.plan_fault(action="record_late", seconds=0.3)
    with pytest.raises(requests.ReadTimeout):
        client.create(timeout=0.1)
    before = recorded(client)
    deadline = time.monotonic() + 5
    while not recorded(client) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert (0, 1) == (before, recorded(client))


def test_an_answer_may_be_slow(client):
    """It is right all the same."""
    client.emulator.plan_fault(kind="POST /runs", action="slow", seconds=0.2)
    began = time.monotonic()
    answer = client.create()

    assert (200, 1) == (answer.status_code, recorded(client))
    assert time.monotonic() - began >= 0.2


def test_all_tokens_may_expire(client):
    """The request that it strikes is refused already; a new token works."""
    client.emulator.plan_fault(kind="GET /runs", action="expire_tokens", nth=2)

    assert [200, 401] == [client.get("/runs").status_code for _ in range(2)]
    assert 200 == client.log_in().get("/runs").status_code


def test_new_runs_may_show_late(client):
    """Neither in lists nor by id, for so many seconds."""
    client.emulator.plan_fault(action="delay_runs", seconds=60)
    run_id = client.created()

    def shown():
        return client.get(f"/runs/{run_id}").status_code, len(client.get("/runs").json()["items"])

    before = shown()
    client.clock.forward(60)
    assert ((404, 0), (200, 1)) == (before, shown())


def test_windows_may_be_hidden(client):
    """While the fault is planned no answer shows a window."""
    run_id = client.created()
    client.emulator.plan_fault(action="hide_windows")
    hidden = client.run(run_id)
    client.emulator.clear_faults()

    assert (False, True) == ("params" in hidden, "params" in client.run(run_id))


def test_the_id_filter_may_be_ignored(client):
    """The list then has runs that nobody asked for."""
    wanted, other = client.created(), client.created()
    client.emulator.plan_fault(action="ignore_id_filter")
    listed = client.get("/runs", property=[f"id=={wanted}", f"flowId=={TABLE_FLOW_ID}"]).json()["items"]

    assert [wanted, other] == [run["id"] for run in listed]


def test_ims_may_be_down(client):
    """The token's own kind; `*` leaves IMS alone."""
    client.emulator.plan_fault(kind="*", action="refuse")
    assert 200 == client.ask_token().status_code

    client.emulator.plan_fault(kind="POST /ims/token/v3", action="refuse")
    assert 503 == client.ask_token().status_code


def test_a_fault_may_last_for_a_while(client):
    """`for_seconds` counts from the planning."""
    client.emulator.plan_fault(action="refuse", status=429, for_seconds=60)
    during = [client.get(path).status_code for path in ("/runs", "/flows")]
    client.clock.forward(61)

    assert [429, 429, 200] == [*during, client.get("/runs").status_code]


def test_the_next_n_or_the_nth_are_struck(client):
    """And only those of the kind."""
    client.emulator.plan_fault(kind="GET /runs", action="refuse", times=2)
    client.emulator.plan_fault(kind="GET /flows", action="refuse", nth=2)

    assert [503, 503, 200] == [client.get("/runs").status_code for _ in range(3)]
    assert [200, 503, 200] == [client.get("/flows").status_code for _ in range(3)]


def test_a_share_is_the_same_for_the_same_seed():
    """And different for another seed, or another fault with the same seed."""

    def struck(seed, actions=("close",)):
        plan = FaultPlan()
        for action in actions:
            plan.add({"kind": "POST /runs", "action": action, "share": 0.2, "seed": seed}, now=0)
        return [plan.faults_for("POST /runs", now=0).response_fault for _ in range(500)]

    once, again, other = struck(1), struck(1), struck(2)
    assert once == again
    assert once != other
    assert 60 < sum(fault is not None for fault in once) < 140
    both = {fault.action for fault in struck(1, ("close", "hang")) if fault}
    assert {"close", "hang"} == both


def test_planned_faults_are_listed_with_their_strikes(client):
    """So that a test can assert that its fault really happened."""
    client.emulator.plan_fault(kind="GET /runs", action="refuse", nth=2)
    for _ in range(3):
        client.get("/runs")
    [fault] = client.emulator.faults()

    assert ("refuse", 3, 1) == (fault["action"], fault["seen"], fault["struck"])
    client.emulator.clear_faults()
    assert [] == client.emulator.faults()


def test_broken_requests_carry_the_emulators_date_too(client):
    """A planned refusal is stamped like any answer."""
    client.emulator.plan_fault(action="refuse")
    answer = client.get("/runs")

    assert client.clock.now == parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert answer.headers["x-request-id"]


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
def test_a_malformed_fault_is_an_error(client, fields):
    """A typo in a test is told to its author."""
    with pytest.raises(ValueError, match=r"action|colour|nth|share|status|seconds|headers"):
        client.emulator.plan_fault(**fields)


@pytest.mark.parametrize("action", ["hang", "record_and_hang", "record_late", "slow"])
def test_an_emulator_stops_while_a_client_hangs(client_with, action):
    """Its end does not wait for anyone."""
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
    thread.join(5)

    assert time.monotonic() - began < 5
    assert 1 == len(failed)
