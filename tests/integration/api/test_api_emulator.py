# SPDX-License-Identifier: Apache-2.0
"""Verify the client against the emulator, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    AuthenticationError,
    DataConnectionNotFoundError,
    DeltaColumnDiffersError,
    DeltaColumnMissingError,
    FlowNotFoundError,
    NotOnDemandError,
    RunNotFoundError,
    SandboxError,
    StartTimeInPastError,
    WindowRefusedError,
)
from airflow_flowservice.windows.window import IngestionWindow

emulator = pytest.importorskip("airflow_flowservice.emulator")

TABLE, FILES, HOURLY = (
    "3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
    "c9cef9cb-c934-4467-8ef9-cbc934546741",
    "2edc08ac-4df5-4fe6-936f-81a19ce92f5c",
)
DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def service_url() -> Iterator[str]:
    with emulator.running_emulator(emulator.Settings(queue_s=0.2, run_s=0.3)) as running:
        yield running.url


def client_of(url: str, **settings: Any) -> FlowServiceClient:
    return FlowServiceClient(
        **{
            "base_url": url,
            "ims_url": url,
            "client_id": "emulator-client",
            "client_secret": "emulator-secret",
            "org_id": "EMULATOR@AdobeOrg",
            **settings,
        }
    )


@pytest.fixture
def make(service_url: str) -> Any:
    return partial(client_of, service_url)


@pytest.fixture
def service(make: Any) -> FlowServiceClient:
    return make()


def window(days: int = 0, **changed: Any) -> dict[str, Any]:
    start = DAY + timedelta(days=days)
    soon = datetime.now(timezone.utc) + timedelta(seconds=1)
    return {
        "flow_id": FILES,
        "window": IngestionWindow(start, start + timedelta(days=1)),
        "start_time": soon,
        **changed,
    }


def empty_window() -> IngestionWindow:
    """Return an empty window, which the class itself does not allow, so that Flow Service refuses it."""
    empty = IngestionWindow(DAY, DAY + timedelta(days=1))
    object.__setattr__(empty, "end", DAY)
    return empty


def test_window_is_ingested(service):
    """A run is created, read until it ends, and has its window and metrics."""
    created = service.create_run(**window())

    deadline = time.monotonic() + 30
    while not (run := service.get_run(created.id)).status.ended and time.monotonic() < deadline:
        time.sleep(0.1)

    assert (run.status, run.flow_id, run.created_client) == (
        FlowRunStatus.SUCCESS,
        FILES,
        "emulator-client",
    )
    assert run.window == IngestionWindow(DAY, DAY + timedelta(days=1))
    assert run.input_records == run.output_records == 24 * 60


@pytest.mark.parametrize(("flow_id", "data"), [(FILES, "/made-up"), (TABLE, "made_up")], ids=["files", "table"])
def test_source_and_target_of_a_flow(service, flow_id, data):
    """The source has its data and its base connection; the target has its dataset."""
    flow = service.get_flow(flow_id)
    source = service.get_source_connection(flow.source_connection_ids[0])
    target = service.get_target_connection(flow.target_connection_ids[0])

    assert (flow.source_connection_ids[0], data) == (source.id, source.data)
    assert None not in (source.base_connection_id, source.connection_spec_id, source.name)
    assert (flow.target_connection_ids[0], "5f0000000000000000000001") == (target.id, target.dataset_id)


@pytest.mark.parametrize("read", ["get_source_connection", "get_target_connection"])
def test_missing_source_and_target(service, read):
    """The error has the status and code of the response."""
    with pytest.raises(DataConnectionNotFoundError) as refused:
        getattr(service, read)("none")
    assert (404, True) == (refused.value.http_status, "1101" in refused.value.code)


def test_flows(service):
    """The frequency of a flow shows whether it accepts on-demand runs."""
    assert {FILES: True, TABLE: True, HOURLY: False}.items() <= {
        flow.id: flow.one_time for flow in service.list_flows(limit=1)
    }.items()
    assert service.get_flow(TABLE).enabled


@pytest.mark.parametrize("epoch_format", ["string", "integer"])
def test_runs_are_listed_over_pages(make, epoch_format):
    """Filters and continuation tokens work together; the newest run is first."""
    client = make(epoch_format=epoch_format)
    made = [client.create_run(**window(days)).id for days in range(1, 6)]

    assert set(made) == {run.id for run in client.list_runs(ids=made, limit=2)}
    newest = [run.id for run in client.list_runs(flow_id=FILES, limit=3, max_pages=2)]
    assert len(newest) == 6
    assert set(made) <= set(newest)
    future = datetime.now(timezone.utc) + timedelta(hours=1)
    assert list(client.list_runs(flow_id=FILES, created_since=future)) == []


def test_delta_column_is_set_once(service):
    """The first run of a table-based flow names its delta column; a later run cannot change it."""
    with pytest.raises(DeltaColumnMissingError):
        service.create_run(**window(flow_id=TABLE))

    service.create_run(**window(flow_id=TABLE), delta_column="updated_at")
    assert service.get_flow(TABLE).delta_column.name == "updated_at"

    service.create_run(**window(1, flow_id=TABLE))
    with pytest.raises(DeltaColumnDiffersError):
        service.create_run(**window(2, flow_id=TABLE), delta_column="created_at")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"flow_id": "none"}, FlowNotFoundError),
        ({"flow_id": HOURLY}, NotOnDemandError),
        ({"window": empty_window()}, WindowRefusedError),
        ({"start_time": DAY}, StartTimeInPastError),
    ],
)
def test_refusals(service, changed, error):
    """Refusals have class, status, code, request id, flow and window."""
    with pytest.raises(error) as caught:
        service.create_run(**window(**changed))

    found = caught.value
    assert found.http_status in (400, 404)
    assert found.code
    assert found.request_id
    assert found.flow_id == changed.get("flow_id", FILES)
    assert found.window.startswith("2026-01-01T00:00:00Z/")


def test_unknown_run(service):
    """The error has the id of the run."""
    with pytest.raises(RunNotFoundError) as caught:
        service.get_run("none")

    assert caught.value.flow_run_id == "none"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"client_secret": "wrong"}, AuthenticationError),
        ({"client_secret": None, "access_token": "wrong"}, AuthenticationError),
        ({"org_id": "OTHER@AdobeOrg"}, AccessDeniedError),
        ({"sandbox": "none"}, SandboxError),
    ],
)
def test_wrong_connections(make, settings, error):
    """Secret, token, organization and sandbox have different errors."""
    with pytest.raises(error):
        next(make(**settings).list_flows(limit=1))


@pytest.mark.parametrize(
    ("answer_shape", "show_window", "error_shape", "window_known"),
    [("flat", "activity", "plain", True), ("flat", "none", "gateway", False), ("items", "params", "report", True)],
)
def test_every_response_format(answer_shape, show_window, error_shape, window_known):
    """In each of Adobe's documented formats, runs and refusals have the same meaning."""
    settings = emulator.Settings(
        answer_shape=answer_shape,
        show_window=show_window,
        error_shape=error_shape,
        queue_s=0,
        run_s=0,
        clock_offset_s=-3600,
        start_tolerance_s=2 * 3600,
    )
    with emulator.running_emulator(settings) as running, client_of(running.url) as client:
        started = datetime.now(timezone.utc) - timedelta(hours=1, minutes=5)
        run = client.get_run(client.create_run(**window(start_time=started)).id)
        with pytest.raises(NotOnDemandError) as refused:
            client.create_run(**window(flow_id=HOURLY))
        offset = client.clock_offset

    assert (run.window is not None) is window_known
    assert "1386" in refused.value.code
    assert abs(offset + timedelta(hours=1)) < timedelta(seconds=3)
