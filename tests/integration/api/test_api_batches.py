# SPDX-License-Identifier: Apache-2.0
"""Batches in the emulator's catalogue, whose status changes over time, and the test of a source's connection."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.emulator.settings import FILE_FLOW_ID
from airflow_flowservice.exceptions import BatchNotFoundError
from airflow_flowservice.windows.window import IngestionWindow

CATALOG = "/data/foundation/catalog/batches"


class Manual:
    """Clock that the test moves."""

    now = 1_750_000_020.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Manual:
    return Manual()


@pytest.fixture
def service(clock: Manual) -> Any:
    """Return an emulator whose batches take a minute."""
    with running_emulator(Settings(queue_s=0, run_s=10, batch_s=60), clock=clock) as emulator:
        yield emulator


@pytest.fixture
def client(service: Any) -> Any:
    """Return a client of the package for the emulator."""
    settings = service.settings
    with FlowServiceClient(
        base_url=service.url,
        ims_url=service.url,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        org_id=settings.org_id,
        max_attempts=1,
    ) as made:
        yield made


@pytest.fixture
def create(client: Any, clock: Manual) -> Any:
    """Return a function that creates a run of an hour, and returns its id."""

    def make() -> str:
        now = datetime.fromtimestamp(clock.now, tz=timezone.utc)
        window = IngestionWindow(now - timedelta(hours=1), now)
        created: str = client.create_run(flow_id=FILE_FLOW_ID, window=window, start_time=now).id
        return created

    return make


def word(client: Any, batch_id: str) -> str:
    [batch] = client.list_batches([batch_id])
    return str(batch.status_word)


def test_batch_succeeds_some_time_after_its_run(service: Any, client: Any, clock: Manual, create: Any) -> None:
    """The records are ingested when the batch has succeeded."""
    run_id = create()
    assert () == client.get_run(run_id).batch_ids
    clock.now += 30
    [batch_id] = client.get_run(run_id).batch_ids
    assert ("staging", 0) == (word(client, batch_id), service.ledger(FILE_FLOW_ID)["ingested"])
    clock.now += 60
    assert ("success", 60) == (word(client, batch_id), service.ledger(FILE_FLOW_ID)["ingested"])


def test_failed_batch_ingests_nothing(service: Any, client: Any, clock: Manual, create: Any) -> None:
    service.plan_outcome(batch_status="aborted", batch_in_progress_status="stalled", batch_hidden_s=5)
    run_id = create()
    clock.now += 13
    [batch_id] = client.get_run(run_id).batch_ids
    with pytest.raises(BatchNotFoundError):
        client.list_batches([batch_id])
    clock.now += 10
    assert "stalled" == word(client, batch_id)
    clock.now += 60
    assert ("aborted", 0) == (word(client, batch_id), service.ledger(FILE_FLOW_ID)["ingested"])


def test_list_omits_unknown_batches(client: Any, clock: Manual, create: Any) -> None:
    first, second = create(), create()
    clock.now += 100
    ids = [batch_id for run_id in (first, second) for batch_id in client.get_run(run_id).batch_ids]
    assert sorted(ids) == sorted(batch.id for batch in client.list_batches([*ids, "unknown"]))


@pytest.mark.parametrize("outcome", [{"status": "failed"}, {"status": "success", "records": 0}])
def test_run_without_records_has_no_batch(
    outcome: dict[str, Any], service: Any, client: Any, clock: Manual, create: Any
) -> None:
    service.plan_outcome(**outcome)
    run_id = create()
    clock.now += 100
    assert () == client.get_run(run_id).batch_ids


@pytest.mark.parametrize("works", [True, False])
def test_connection_test(works: bool, service: Any, client: Any) -> None:
    """The base connection belongs to the dataflow's source connection."""
    service.add_flow(id=FILE_FLOW_ID, source_works=works)
    [source_id] = client.get_flow(FILE_FLOW_ID).source_connection_ids
    base_id = client.get_source_connection(source_id).base_connection_id
    assert works is client.test_connection(base_id).result
    assert 1 == service.ledger()["requests"]["GET /connections/{id}/test"]


def test_catalogue_requires_a_token(service: Any) -> None:
    session = requests.Session()
    session.trust_env = False
    assert 401 == session.get(f"{service.url}{CATALOG}/x", headers={"x-api-key": "x"}).status_code
