"""Flow Service asked from the API server: over real HTTP, within bounds, and with no secret in any answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.emulator import running_emulator
from airflow_flowservice.plugins import flow_run_lookup
from tests.integration.plugins.conftest import FLOW, RANGE, day, window

COVERAGE = "/flowservice/data/coverage"
SECRET = "very-secret-indeed"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Any]:
    """With a flow run for the fourth day, which no task made."""
    with running_emulator() as running:
        start, end = window(3)
        with _client(running.url) as client:
            client.create_run(flow_id=FLOW, window_start=start, window_end=end, start_time=datetime.now(timezone.utc))
        yield running


def _client(url: str) -> FlowServiceClient:
    known = {"client_id": "emulator-client", "client_secret": "emulator-secret", "org_id": "EMULATOR@AdobeOrg"}
    return FlowServiceClient(base_url=url, ims_url=url, **known)


@pytest.fixture
def ask(as_user: Callable[..., Any], emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask for the coverage with a connection to the emulator, of which a part may be another."""

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
        asked = {"flow_id": FLOW, "dag_id": "page_seen", "conn_id": conn_id, **RANGE}
        return as_user("op").get(COVERAGE, params=asked)

    return get


def test_runs_that_no_task_made_are_seen(ask: Callable[..., Any]) -> None:
    """The fourth day is not missing any more."""
    answer = ask().json()
    assert {"runs": 1, "whole": True} == answer["service"]
    at = answer["spans"]["start"].index(day(3).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert answer["states"][answer["spans"]["state"][at]] in ("running", "outside")
    assert [True] == [answer["runs"]["outside"][number] for number in answer["spans"]["runs"][at]]


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
def test_what_is_wrong_is_told_with_what_to_do(ask: Callable[..., Any], fields: dict[str, Any], words: str) -> None:
    """And without the secret."""
    answer = ask(**fields)
    assert 502 == answer.status_code
    assert words in answer.json()["error"] + answer.json()["remedy"]
    assert answer.json()["remedy"]
    assert SECRET not in answer.text
    assert "emulator-secret" not in answer.text


def test_a_connection_of_another_type_is_not_used(ask: Callable[..., Any], emulator: Any) -> None:
    """Its secret would be sent to Adobe, or to whatever its extra names."""
    before = emulator.ledger()["requests"]
    answer = ask(conn_type="http", password=SECRET)
    assert 400 == answer.status_code
    assert "not of the type" in answer.json()["error"]
    assert SECRET not in answer.text
    assert before == emulator.ledger()["requests"]


def test_a_connection_that_is_not_there(ask: Callable[..., Any]) -> None:
    """Is told as such to somebody who may read connections."""
    answer = ask("none_such")
    assert 502 == answer.status_code
    assert "none_such" in answer.json()["error"]


def test_only_some_runs_are_read(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And the answer says that there are more."""
    monkeypatch.setattr(flow_run_lookup, "MOST_RUNS", 0)
    assert {"runs": 0, "whole": False} == ask().json()["service"]


def test_a_slow_service_is_left_in_time(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two runs, whatever is still to come."""
    monkeypatch.setattr(flow_run_lookup, "SECONDS", -1.0)
    assert {"runs": 0, "whole": False} == ask().json()["service"]


def test_requests_are_given_up_early(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the connection allows a worker."""
    seen = []
    monkeypatch.setattr(flow_run_lookup, "client_of", lambda _, **options: seen.append(options) or _refuse())
    ask(extra={"timeout_s": 600, "max_attempts": 20})
    assert [(8.0, 2)] == [(options["timeout_s"], options["max_attempts"]) for options in seen]


def _refuse() -> Any:
    raise flow_run_lookup.FlowServiceError("enough")


def test_not_all_threads_wait_for_the_service(ask: Callable[..., Any]) -> None:
    """The third user at a time is told so at once."""
    with flow_run_lookup._AT_A_TIME, flow_run_lookup._AT_A_TIME:
        answer = ask()
    assert 503 == answer.status_code
    assert "again" in answer.json()["remedy"]
    assert 200 == ask().status_code
