# SPDX-License-Identifier: Apache-2.0
"""Tests of the creation of flow runs."""

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


def code_of(response):
    return response.status_code, response.json()["error-chain"][0]["errorCode"]


def test_creation_responds_with_items(client):
    """By default, a creation gets status 200 and a list of one item, as in Adobe's tutorial."""
    response = client.create()

    assert 200 == response.status_code
    assert [{"id", "etag"}] == [set(item) for item in response.json()["items"]]


def test_creation_responds_with_flat_object(client_with):
    """With `flat`, a creation gets status 201 and one object, as in Adobe's OpenAPI file."""
    with client_with(answer_shape="flat") as client:
        response = client.create()

        assert (201, {"id", "etag"}) == (response.status_code, set(response.json()))


def test_trailing_slash_is_accepted(client):
    """Adobe's tutorial has `POST /runs/`, and its sample has `POST /runs`."""
    body = {"flowId": FILE_FLOW_ID, "params": {"startTime": NOW, "windowStartTime": 0, "windowEndTime": 60}}

    assert 200 == client.request("POST", "/runs/", json=body).status_code
    assert 1 == client.emulator.ledger()["requests"]["POST /runs"]


@pytest.mark.parametrize("kind", [str, int])
def test_epoch_seconds_may_be_strings_or_integers(client, kind):
    """The emulator accepts both types, because Adobe's sources differ, and shows the original type."""
    run_id = client.created(startTime=kind(NOW), windowStartTime=kind(0), windowEndTime=kind(60))

    assert kind(60) == client.run(run_id)["params"]["windowEndTime"]


@pytest.mark.parametrize(("epoch_format", "refused"), [("string", 60), ("integer", "60")])
def test_epoch_format_setting(client_with, epoch_format, refused):
    """`epoch_format` restricts the accepted JSON type."""
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
def test_each_rule_has_an_error_code(client, flow_id, changes, expected):
    """A creation that violates a rule gets status 400 with the rule's code and records nothing."""
    assert (400, f"{expected}-400") == code_of(client.create(flow_id, **changes))
    assert [] == client.get("/runs").json()["items"]


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b'{"flowId": ', b"{}"])
def test_invalid_body_is_rejected(client, body):
    """Every invalid body gets a Flow Service error."""
    response = client.request("POST", "/runs", data=body, headers={"Content-Type": "application/json"})

    assert code_of(response) in [(400, "1384-400"), (400, "1446-400")]


def test_missing_content_type_is_rejected(client):
    """A JSON body requires a JSON content type."""
    assert 415 == client.request("POST", "/runs", data=b"{}").status_code


@pytest.mark.parametrize("params", [None, {}, [], "now"])
def test_params_are_required(client, params):
    """Missing, empty or malformed params get error 1384."""
    response = client.request("POST", "/runs", json={"flowId": TABLE_FLOW_ID, "params": params})

    assert (400, "1384-400") == code_of(response)


def test_first_run_sets_delta_column(client):
    """The delta column becomes part of the flow's Copy transformation. Later runs can omit it."""
    assert {} == delta_column(client)

    client.create(deltaColumn={"name": "updated_at", "timezone": "UTC"})

    assert {"name": "updated_at", "timezone": "UTC"} == delta_column(client)
    assert 200 == client.create(deltaColumn=None).status_code
    assert 200 == client.create(deltaColumn={"name": "updated_at"}).status_code


def test_different_delta_column_is_rejected(client):
    """A delta column that differs from the flow's gets error 1382."""
    client.create()

    assert (400, "1382-400") == code_of(client.create(deltaColumn={"name": "created_at"}))


def test_rejected_run_sets_no_delta_column(client):
    """Only a recorded run changes the flow."""
    client.create(windowEndTime=0)

    assert {} == delta_column(client)


def test_file_based_flow_ignores_delta_column(client):
    """A file-based flow neither requires nor stores a delta column."""
    assert 200 == client.create(FILE_FLOW_ID).status_code
    assert {} == delta_column(client, FILE_FLOW_ID)


def test_streaming_flow_rejects_on_demand_runs(client):
    """A streaming source gets error 1385."""
    flow_id = client.emulator.add_flow(kind="streaming")

    assert (400, "1385-400") == code_of(client.create(flow_id))


def test_start_time_tolerance(client):
    """By default, `startTime` may be up to 60 seconds in the past."""
    assert 200 == client.create(startTime=NOW - 60).status_code


def test_settings_reject_invalid_values():
    """An invalid setting raises an error and does not fall back to the default."""
    from airflow_flowservice.emulator import Settings

    with pytest.raises(ValueError, match="answer_shape must be one of items, flat"):
        Settings(answer_shape="list")
    with pytest.raises(ValueError, match="run_s must not be negative"):
        Settings(run_s=-1)


def test_default_clock_is_system_clock():
    from airflow_flowservice.emulator import Settings
    from airflow_flowservice.emulator.state import EmulatorState

    before = time.time()

    assert before <= EmulatorState(Settings()).now() <= time.time()


def delta_column(client, flow_id=TABLE_FLOW_ID):
    flow = client.get(f"/flows/{flow_id}").json()["items"][0]
    copy = next(t for t in flow["transformations"] if t["name"] == "Copy")
    return copy["params"].get("deltaColumn", {})


def flow_state(client, flow_id):
    [flow] = client.request("GET", f"/flows/{flow_id}").json()["items"]
    return flow["state"]


def test_first_run_of_a_table_based_flow_updates_it(client_with):
    """With `update_s`, the flow is `updating` for this time, and refuses runs. Later runs do not update it."""
    with client_with(update_s=30.0) as client:
        client.created()
        assert "updating" == flow_state(client, TABLE_FLOW_ID)
        assert 400 <= client.create().status_code < 500
        client.clock.advance(29)
        assert "updating" == flow_state(client, TABLE_FLOW_ID)
        client.clock.advance(1)
        assert "enabled" == flow_state(client, TABLE_FLOW_ID)
        client.created()
        assert "enabled" == flow_state(client, TABLE_FLOW_ID)


def test_file_based_flow_is_not_updated(client_with):
    """Neither is a table-based flow without `update_s`."""
    with client_with(update_s=30.0) as client:
        assert 200 == client.create(FILE_FLOW_ID, deltaColumn=None).status_code
        assert "enabled" == flow_state(client, FILE_FLOW_ID)
    with client_with() as client:
        client.created()
        assert "enabled" == flow_state(client, TABLE_FLOW_ID)
