# SPDX-License-Identifier: Apache-2.0
"""Tests of flow runs that no client of the emulator creates."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_flowservice.emulator.settings import HOURLY_FLOW_ID, TABLE_FLOW_ID

WINDOW = {"window_start": "2026-01-09T00:00:00Z", "window_end": datetime(2026, 1, 9, 1, tzinfo=timezone.utc)}


def test_scheduled_run_has_the_client_of_the_service(client):
    """A scheduled dataflow gets flow runs, which end as those of clients do, and are in the ledger."""
    run_id = client.emulator.add_run(flow_id=HOURLY_FLOW_ID, **WINDOW)
    assert ("acp_foundation_connectors", "scheduled") == (client.run(run_id)["createdClient"], client.status(run_id))
    client.clock.advance(31)
    assert "success" == client.status(run_id)
    assert 60 == client.emulator.ledger(HOURLY_FLOW_ID)["ingested"]


def test_run_of_another_client_is_listed_later(client):
    """The creator and the delay can be set."""
    run_id = client.emulator.add_run(flow_id=TABLE_FLOW_ID, client_id="exc_app", delay_s=60, **WINDOW)
    assert [] == client.get("/runs").json()["items"]
    client.clock.advance(61)
    assert [(run_id, "exc_app")] == [(run["id"], run["createdClient"]) for run in client.get("/runs").json()["items"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow_id": "none"}, "There is no flow 'none'"),
        ({"window_end": "2026-01-08"}, "window_end must be after window_start"),
        ({"window_start": "soon"}, "Not an ISO 8601 date"),
        ({"delay_s": -1}, "delay_s must be a number of seconds"),
        ({"window": "x"}, "has no field window"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_run_is_refused(client, change, message):
    """Nothing is added."""
    with pytest.raises(ValueError, match=message):
        client.emulator.add_run(**{"flow_id": TABLE_FLOW_ID, **WINDOW, **change})
    assert [] == client.get("/runs").json()["items"]
