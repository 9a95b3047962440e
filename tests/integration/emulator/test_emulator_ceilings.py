# SPDX-License-Identifier: Apache-2.0
"""Tests of the ceilings of flow runs in flight, of a flow and of the sandbox."""

from __future__ import annotations

import pytest

from airflow_flowservice.emulator import Settings
from airflow_flowservice.emulator.settings import FILE_FLOW_ID, TABLE_FLOW_ID


def test_ceiling_of_a_flow_refuses_further_runs(client_with):
    """The runs of another flow do not count, and a run that has ended makes room."""
    with client_with(max_flow_runs=2) as client:
        statuses = [client.create(flow).status_code for flow in (*[TABLE_FLOW_ID] * 3, FILE_FLOW_ID)]
        assert [200, 200, 429, 200] == statuses
        client.clock.advance(31)
        assert 200 == client.create().status_code
        ledger = client.emulator.ledger()
    assert ({"flow": 1, "sandbox": 0}, 3, 2) == (
        ledger["refused"],
        ledger["most_active"],
        ledger["flows"][TABLE_FLOW_ID]["most_active"],
    )


def test_ceiling_of_the_sandbox_counts_all_flows(client_with):
    """The error has the format of the gateway, and nothing is created."""
    with client_with(max_sandbox_runs=2) as client:
        assert [200, 200] == [client.create(flow).status_code for flow in (TABLE_FLOW_ID, FILE_FLOW_ID)]
        refused = client.create(FILE_FLOW_ID)
        assert (429, "429050") == (refused.status_code, refused.json()["error_code"])
        ledger = client.emulator.ledger()
    assert ({"flow": 0, "sandbox": 1}, 1) == (ledger["refused"], len(ledger["flows"][FILE_FLOW_ID]["runs"]))


def test_ceiling_also_refuses_to_re_trigger(client_with):
    with client_with(max_flow_runs=1) as client:
        client.emulator.plan_outcome(status="failed", times=1)
        failed = client.created()
        client.clock.advance(31)
        client.created()
        assert 429 == client.retrigger(failed).status_code
        client.clock.advance(31)
        assert 200 == client.retrigger(failed).status_code


def test_without_a_ceiling_nothing_is_refused(client):
    assert {200} == {client.create().status_code for _ in range(20)}
    ledger = client.emulator.ledger()
    assert ({"flow": 0, "sandbox": 0}, 20) == (ledger["refused"], ledger["most_active"])


@pytest.mark.parametrize("name", ["max_flow_runs", "max_sandbox_runs"])
def test_ceiling_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Settings(**{name: 0})
