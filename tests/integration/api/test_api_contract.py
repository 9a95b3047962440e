# SPDX-License-Identifier: Apache-2.0
"""Verify every method of the client against the contract, with both types of times and both forms of responses."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests
from contract import ENDPOINTS, Recorder, endpoint_of, response_errors

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.emulator import Emulator, Settings, running_emulator
from airflow_flowservice.windows.window import IngestionWindow

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("answer_shape", ["items", "flat"])
@pytest.mark.parametrize(("epoch_format", "kind"), [("string", "str"), ("integer", "int")])
def test_every_request_is_in_the_contract(contract: Recorder, epoch_format: str, kind: str, answer_shape: str) -> None:
    """The fixture `contract` fails this test if a request violates the contract."""
    settings = Settings(epoch_format=epoch_format, answer_shape=answer_shape, queue_s=0, run_s=0)
    with running_emulator(settings) as running:
        with client_of(running.url, epoch_format=epoch_format) as client:
            running.plan_outcome(status="failed")
            created = client.create_run(
                flow_id=FLOW,
                window=IngestionWindow(DAY, DAY + timedelta(days=1)),
                start_time=datetime.now(timezone.utc),
                delta_column={"name": "updated", "timezone": "UTC"},
            )
            running.state.end_runs(FLOW, count=None)
            flow = client.get_flow(FLOW)
            client.retrigger_run(created.id)
            assert client.list_batches(batches_of_success(running, client))
            client.get_run(created.id)
            source = client.get_source_connection(flow.source_connection_ids[0])
            client.test_connection(str(source.base_connection_id))
            client.get_target_connection(flow.target_connection_ids[0])
            client.get_flow_spec(str(flow.flow_spec_id))
            assert list(client.list_flows(properties=["state==enabled"], limit=1))
            assert list(client.list_runs(flow_id=FLOW, ids=[created.id], created_since=DAY, limit=1))
            headers = client.auth_headers()
        for path in (f"flows/{FLOW}", "flows", f"runs/{created.id}", "runs"):
            assert [] == emulated_response_errors(running.url, path, headers)
    later = {"read failed records"}
    assert set(ENDPOINTS) - later == set(contract.seen) - later
    assert {kind} == contract.times


def batches_of_success(running: Emulator, client: FlowServiceClient) -> tuple[str, ...]:
    """Return the batches of a new flow run that succeeds."""
    created = client.create_run(
        flow_id=FLOW,
        window=IngestionWindow(DAY + timedelta(days=1), DAY + timedelta(days=2)),
        start_time=datetime.now(timezone.utc),
    )
    running.state.end_runs(FLOW, count=None)
    return client.get_run(created.id).batch_ids


def client_of(url: str, **settings: Any) -> FlowServiceClient:
    names = {"client_id": "emulator-client", "client_secret": "emulator-secret", "org_id": "EMULATOR@AdobeOrg"}
    return FlowServiceClient(**{"base_url": url, "ims_url": url, **names, **settings})


def emulated_response_errors(url: str, path: str, headers: dict[str, str]) -> list[str]:
    """Return how a response of the emulator violates the contract."""
    target = f"/data/foundation/flowservice/{path}"
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(url + target, headers=headers, timeout=10)
    return response_errors(str(endpoint_of("GET", target)), response.json())
