"""What a run may be created with."""

from __future__ import annotations

import time

import pytest

from airflow_flowservice.emulator.settings import (
    DISABLED_FLOW_ID,
    FILE_FLOW_ID,
    HOURLY_FLOW_ID,
    TABLE_FLOW_ID,
)

NOW = 1_750_000_020


def code_of(answer):
    return answer.status_code, answer.json()["error-chain"][0]["errorCode"]


def test_a_created_run_is_answered_as_items(client):
    """By default with 200 and a list of one, as in Adobe's tutorial."""
    answer = client.create()

    assert 200 == answer.status_code
    assert [{"id", "etag"}] == [set(item) for item in answer.json()["items"]]


def test_a_created_run_is_answered_flat(client_with):
    """Or with 201 and the run itself, as in Adobe's OpenAPI file."""
    with client_with(answer_shape="flat") as client:
        answer = client.create()

        assert (201, {"id", "etag"}) == (answer.status_code, set(answer.json()))


def test_a_trailing_slash_is_fine(client):
    """The tutorial says `POST /runs/`, its sample `POST /runs`."""
    body = {"flowId": FILE_FLOW_ID, "params": {"startTime": NOW, "windowStartTime": 0, "windowEndTime": 60}}

    assert 200 == client.ask("POST", "/runs/", json=body).status_code
    assert 1 == client.emulator.ledger()["requests"]["POST /runs"]


@pytest.mark.parametrize("kind", [str, int])
def test_epoch_seconds_may_be_text_or_numbers(client, kind):
    """Adobe's sources disagree, so both are taken, and shown as they came."""
    run_id = client.created(startTime=kind(NOW), windowStartTime=kind(0), windowEndTime=kind(60))

    assert kind(60) == client.run(run_id)["params"]["windowEndTime"]


@pytest.mark.parametrize(("epoch_format", "refused"), [("string", 60), ("integer", "60")])
def test_one_type_of_epoch_seconds_may_be_demanded(client_with, epoch_format, refused):
    """`epoch_format` makes the emulator strict."""
    with client_with(epoch_format=epoch_format) as client:
        kind = str if epoch_format == "string" else int
        times = {"startTime": kind(NOW), "windowStartTime": kind(0)}

        assert 200 == client.create(**times, windowEndTime=kind(60)).status_code
        assert (400, "1384-400") == code_of(client.create(**times, windowEndTime=refused))


@pytest.mark.parametrize(
    ("flow_id", "changes", "expected"),
    [
        (TABLE_FLOW_ID, {"startTime": NOW - 61}, "1360"),
        (DISABLED_FLOW_ID, {}, "1380"),
        (TABLE_FLOW_ID, {"windowEndTime": 0}, "1381"),
        (TABLE_FLOW_ID, {"windowStartTime": 7200}, "1381"),
        (TABLE_FLOW_ID, {"deltaColumn": None}, "1383"),
        (TABLE_FLOW_ID, {"windowEndTime": None}, "1384"),
        (TABLE_FLOW_ID, {"windowEndTime": "soon"}, "1384"),
        (TABLE_FLOW_ID, {"windowEndTime": 3600.5}, "1384"),
        (TABLE_FLOW_ID, {"windowEndTime": True}, "1384"),
        (TABLE_FLOW_ID, {"windowEndTime": -1}, "1384"),
        (TABLE_FLOW_ID, {"windowEndTime": NOW * 1000}, "1384"),
        (TABLE_FLOW_ID, {"windowEndTime": "16515859567"}, "1384"),
        (TABLE_FLOW_ID, {"windowEndTime": "9" * 5000}, "1384"),
        (TABLE_FLOW_ID, {"deltaColumn": "updated_at"}, "1384"),
        (TABLE_FLOW_ID, {"deltaColumn": {"name": ""}}, "1384"),
        (HOURLY_FLOW_ID, {}, "1386"),
        ("11111111-1111-1111-1111-111111111111", {}, "1430"),
        ("", {}, "1446"),
        (None, {}, "1446"),
    ],
)
def test_each_rule_has_its_code(client, flow_id, changes, expected):
    """A creation that breaks a rule is refused with 400, that rule's code, and records nothing."""
    assert (400, f"{expected}-400") == code_of(client.create(flow_id, **changes))
    assert [] == client.get("/runs").json()["items"]


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b'{"flowId": ', b"{}"])
def test_an_unusable_body_is_refused(client, body):
    """Whatever it is, the answer is a Flow Service error."""
    answer = client.ask("POST", "/runs", data=body, headers={"Content-Type": "application/json"})

    assert code_of(answer) in [(400, "1384-400"), (400, "1446-400")]


def test_a_body_without_its_content_type_is_refused(client):
    """JSON has to say that it is JSON."""
    assert 415 == client.ask("POST", "/runs", data=b"{}").status_code


@pytest.mark.parametrize("params", [None, {}, [], "now"])
def test_params_must_be_there(client, params):
    """Missing, empty or odd params are 1384."""
    answer = client.ask("POST", "/runs", json={"flowId": TABLE_FLOW_ID, "params": params})

    assert (400, "1384-400") == code_of(answer)


def test_the_first_run_sets_the_delta_column(client):
    """After it the flow's Copy transformation has it, and later runs need not repeat it."""
    assert {} == delta_column(client)

    client.create(deltaColumn={"name": "updated_at", "timezone": "UTC"})

    assert {"name": "updated_at", "timezone": "UTC"} == delta_column(client)
    assert 200 == client.create(deltaColumn=None).status_code
    assert 200 == client.create(deltaColumn={"name": "updated_at"}).status_code


def test_another_delta_column_is_refused(client):
    """1382 when it differs from the flow's."""
    client.create()

    assert (400, "1382-400") == code_of(client.create(deltaColumn={"name": "born_at"}))


def test_a_refused_run_sets_no_delta_column(client):
    """Only a run that was recorded patches the flow."""
    client.create(windowEndTime=0)

    assert {} == delta_column(client)


def test_a_file_based_flow_ignores_a_delta_column(client):
    """It neither needs nor keeps one."""
    assert 200 == client.create(FILE_FLOW_ID).status_code
    assert {} == delta_column(client, FILE_FLOW_ID)


def test_a_streaming_flow_knows_no_on_demand_runs(client):
    """1385 for a connector that is not a batch source."""
    flow_id = client.emulator.add_flow(kind="streaming")

    assert (400, "1385-400") == code_of(client.create(flow_id))


def test_a_start_time_a_little_in_the_past_is_tolerated(client):
    """Sixty seconds, unless set otherwise."""
    assert 200 == client.create(startTime=NOW - 60).status_code


def test_settings_refuse_what_they_do_not_know():
    """A misspelt word is an error, not a default."""
    from airflow_flowservice.emulator import Settings

    with pytest.raises(ValueError, match="answer_shape must be one of items, flat"):
        Settings(answer_shape="list")
    with pytest.raises(ValueError, match="run_s must not be negative"):
        Settings(run_s=-1)


def test_the_default_clock_is_this_machines():
    """Without a clock of the test's own, now is now."""
    from airflow_flowservice.emulator import Settings
    from airflow_flowservice.emulator.state import EmulatorState

    before = time.time()

    assert before <= EmulatorState(Settings()).now() <= time.time()


def delta_column(client, flow_id=TABLE_FLOW_ID):
    flow = client.get(f"/flows/{flow_id}").json()["items"][0]
    copy = next(t for t in flow["transformations"] if t["name"] == "Copy")
    return copy["params"].get("deltaColumn", {})
