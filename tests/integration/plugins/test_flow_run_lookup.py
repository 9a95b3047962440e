# SPDX-License-Identifier: Apache-2.0
"""Queries of Flow Service from the API server: over real HTTP, within limits, and without secrets in responses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from raw_server import RawServer

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.emulator import running_emulator
from airflow_flowservice.plugins import flow_run_lookup
from airflow_flowservice.windows.window import IngestionWindow
from tests.integration.plugins.conftest import FLOW, RANGE, day, window

COVERAGE = "/flowservice/data/coverage"
SECRET = "very-secret-indeed"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Any]:
    """Start an emulator with a flow run for the fourth day that no task created."""
    with running_emulator() as running:
        start, end = window(3)
        with _client(running.url) as client:
            client.create_run(flow_id=FLOW, window=IngestionWindow(start, end), start_time=datetime.now(timezone.utc))
        yield running


def _client(url: str) -> FlowServiceClient:
    credentials = {"client_id": "emulator-client", "client_secret": "emulator-secret", "org_id": "EMULATOR@AdobeOrg"}
    return FlowServiceClient(base_url=url, ims_url=url, **credentials)


@pytest.fixture
def request_coverage(as_user: Callable[..., Any], emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that requests the coverage with a connection to the emulator, changed by its arguments."""

    def get(conn_id: str = "page", *, extra: dict[str, Any] | None = None, **fields: Any) -> Any:
        connection = {
            "conn_type": "flowservice",
            "host": emulator.url,
            "login": "emulator-client",
            "password": "emulator-secret",
            "extra": {"org_id": "EMULATOR@AdobeOrg", "ims_url": emulator.url, **(extra or {})},
            **fields,
        }
        monkeypatch.setenv("AIRFLOW_CONN_PAGE", json.dumps(connection))
        parameters = {"flow_id": FLOW, "dag_id": "page_seen", "conn_id": conn_id, **RANGE}
        return as_user("op").get(COVERAGE, params=parameters)

    return get


def test_runs_created_outside_airflow_are_included(request_coverage: Callable[..., Any]) -> None:
    """Flow Service has a run for the fourth day, so the day is no longer missing."""
    response = request_coverage().json()
    assert {"runs": 1, "whole": True} == response["service"]
    index = response["spans"]["start"].index(day(3).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert response["states"][response["spans"]["state"][index]] in ("running", "outside")
    assert [True] == [response["runs"]["outside"][number] for number in response["spans"]["runs"][index]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"password": SECRET}, "client secret"),
        ({"extra": {"org_id": "OTHER@AdobeOrg"}}, "org"),
        ({"host": "http://127.0.0.1:9"}, "host"),
        ({"extra": {"org_id": ""}}, "org_id"),
        ({"extra": {"timeout_s": "soon"}}, "timeout_s"),
    ],
)
def test_error_response_has_cause_and_remedy(
    request_coverage: Callable[..., Any], fields: dict[str, Any], words: str
) -> None:
    """The response contains no secret."""
    response = request_coverage(**fields)
    assert 502 == response.status_code
    assert words in response.json()["error"] + response.json()["remedy"]
    assert response.json()["remedy"]
    assert SECRET not in response.text
    assert "emulator-secret" not in response.text


def test_connection_of_another_type_is_not_used(request_coverage: Callable[..., Any], emulator: Any) -> None:
    """The client would send the connection's secret to Adobe or to the host in its extra."""
    before = emulator.ledger()["requests"]
    response = request_coverage(conn_type="http", password=SECRET)
    assert 400 == response.status_code
    assert "not of the type" in response.json()["error"]
    assert SECRET not in response.text
    assert before == emulator.ledger()["requests"]


def test_missing_connection_is_reported(request_coverage: Callable[..., Any]) -> None:
    response = request_coverage("none_such")
    assert 502 == response.status_code
    assert "none_such" in response.json()["error"]


def test_number_of_listed_runs_is_limited(
    request_coverage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response states that the list is incomplete."""
    monkeypatch.setattr(flow_run_lookup, "MAX_RUNS", 0)
    assert {"runs": 0, "whole": False} == request_coverage().json()["service"]


def test_duration_of_listing_is_limited(request_coverage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the deadline, the listing stops after the current run."""
    times = iter([0.0, 2 * flow_run_lookup.MAX_LISTING_S])
    monkeypatch.setattr(flow_run_lookup, "time", SimpleNamespace(monotonic=lambda: next(times)))
    assert {"runs": 0, "whole": False} == request_coverage().json()["service"]


def _page(number: int) -> bytes:
    body = json.dumps(
        {
            "items": [{"id": f"run-{number}", "flowId": FLOW}],
            "_links": {"next": {"href": f"/runs?continuationToken=t{number + 1}"}},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.slow
@pytest.mark.parametrize(("pages", "status"), [(0, 502), (2, 200)], ids=["no page", "two pages"])
def test_slow_server_does_not_extend_the_listing(
    request_coverage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, pages: int, status: int
) -> None:
    """A server that sends a page one byte at a time occupies a slot until the deadline; earlier pages are shown."""
    monkeypatch.setattr(flow_run_lookup, "MAX_LISTING_S", 5.0)
    numbers = count()

    def script(_: bytes) -> Iterator[bytes | float]:
        if (number := next(numbers)) < pages:
            yield _page(number)
            return
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
        for _ in range(600):
            yield 0.1
            yield b" "

    with RawServer(script, time_limit=120) as raw:
        extra = {"access_token": "ready", "ims_url": raw.url}
        began = time.monotonic()
        response = request_coverage(host=raw.url, password=None, extra=extra)
        # Without the deadline, the attempts of the last request take 24 seconds.
        assert time.monotonic() - began < 20
    assert status == response.status_code
    if pages:
        assert {"runs": pages, "whole": False} == response.json()["service"]


def test_requests_have_short_timeouts(request_coverage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger limits of the connection apply only to workers."""
    seen = []
    monkeypatch.setattr(flow_run_lookup, "client_of", lambda _, **options: seen.append(options) or _refuse())
    request_coverage(extra={"timeout_s": 600, "max_attempts": 20})
    assert [(8.0, 2)] == [(options["timeout_s"], options["max_attempts"]) for options in seen]


def _refuse() -> Any:
    raise flow_run_lookup.FlowServiceError("enough")


@pytest.mark.slow
def test_third_concurrent_query_is_refused(request_coverage: Callable[..., Any]) -> None:
    """While two queries run, the next one fails immediately, so the API server keeps free threads."""
    with flow_run_lookup._QUERY_SLOTS, flow_run_lookup._QUERY_SLOTS:
        response = request_coverage()
    assert 503 == response.status_code
    assert "again" in response.json()["remedy"]
    assert 200 == request_coverage().status_code
