# SPDX-License-Identifier: Apache-2.0
"""Responses of the page's data endpoints."""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from airflow_flowservice.plugins import page_app, read_slots
from tests.integration.plugins.conftest import FLOW, HOSTILE, RANGE

COVERAGE = "/flowservice/data/coverage"


def states_of(response: dict[str, Any]) -> list[str]:
    """Return the states of the windows, in order of time."""
    return [response["states"][number] for number in response["spans"]["state"]]


@pytest.fixture
def request_coverage(viewer: Any) -> Any:
    """Return a function that requests the coverage of the dataflow for one DAG."""

    def get(**parameters: Any) -> Any:
        return viewer.get(COVERAGE, params={"flow_id": FLOW, "dag_id": "page_seen", **RANGE, **parameters})

    return get


def test_dataflows_are_listed_with_their_tasks(viewer: Any) -> None:
    found = {each["flow_id"]: each["tasks"] for each in viewer.get("/flowservice/data/dataflows").json()["dataflows"]}
    assert ["page_hidden", "page_seen"] == [task["dag_id"] for task in found[FLOW]]
    assert [{"dag_id": "page_hostile", "task_id": "ingest"}] == found[HOSTILE]


def test_each_window_has_its_state(request_coverage: Any) -> None:
    """Windows without a DAG run are derived from the schedule."""
    response = request_coverage().json()
    assert ["ingested", "failed", "twice", *["missing"] * 7] == states_of(response)
    assert ("2026-01-01T00:00:00Z", "2026-01-11T00:00:00Z") == (response["from"], response["to"])
    assert "2026-01-02T00:00:00Z" == response["spans"]["end"][0] == response["spans"]["start"][1]
    assert {"windows": 7, "seconds": 7 * 86_400} == response["totals"]["missing"]
    assert response["whole"] is False


def test_range_after_the_last_dag_run(request_coverage: Any) -> None:
    """Windows are expected by the schedule, also without a task instance in the range."""
    response = request_coverage(**{"from": "2026-01-08T00:00:00Z"}).json()
    assert (["missing"] * 3, False) == (states_of(response), response["whole"])


def test_columns_reference_dag_runs_and_flow_runs(request_coverage: Any) -> None:
    """Each DAG run and each flow run occurs once and is referenced by its index."""
    response = request_coverage().json()
    duplicates = response["spans"]["tasks"][2]
    assert ["manual", "scheduled"] == sorted(response["tasks"]["dag_run_id"][n].partition("__")[0] for n in duplicates)
    assert ["success", "success"] == [response["runs"]["status"][n] for n in response["spans"]["runs"][2]]
    assert [3] == [response["runs"]["failed_records"][n] for n in response["spans"]["runs"][0]]
    derived = response["runs"]["failed_records_derived"]
    assert [[True], [False], [False, False]] == [[derived[n] for n in runs] for runs in response["spans"]["runs"][:3]]
    assert [[]] * 7 == response["spans"]["tasks"][3:]


def test_commands_fill_missing_windows(request_coverage: Any) -> None:
    """Each command names its DAG."""
    commands = request_coverage().json()["commands"]
    assert {"page_seen"} == {each["dag_id"] for each in commands}
    assert "--from-date 2026-01-05T00:00:00+00:00 --to-date 2026-01-11T00:00:00+00:00" in commands[1]["command"]
    assert commands[1]["request"].startswith('POST /api/v2/backfills {"dag_id": "page_seen", ')


def test_no_task_would_run_again(request_coverage: Any) -> None:
    """Each DAG run has only one task, so no command runs a succeeded task again."""
    assert [] == request_coverage().json()["again"]


def test_default_range_starts_at_first_known_window(request_coverage: Any) -> None:
    """The default range ends now. Time before the first window is not reported as missing."""
    response = request_coverage(**{"from": None, "to": None}).json()
    assert ("2026-01-01T00:00:00Z", response["now"]) == (response["from"], response["to"])
    assert "ingested" == states_of(response)[0]


def test_unknown_dataflow_is_not_found(request_coverage: Any) -> None:
    response = request_coverage(flow_id="unknown")
    assert (404, "choose one that is listed") == (response.status_code, response.json()["remedy"])


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"from": "yesterday"}, "not a valid time"),
        ({"from": "2026-01-01"}, "no time zone"),
        ({"to": "2026-01-01T00:00:00"}, "no time zone"),
        ({"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "reversed"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "empty"),
        ({"from": "1999-01-01T00:00:00Z"}, "longer than 20 years"),
        ({"from": None, "to": "1970-01-01T00:00:00Z"}, "empty"),
        ({"to": "9" * 41}, "parameter"),
        ({"flow_id": "x" * 251}, "parameter"),
        ({"flow_id": None}, "parameter"),
    ],
)
def test_invalid_parameters_are_refused_with_remedy(
    request_coverage: Any, parameters: dict[str, Any], words: str
) -> None:
    response = request_coverage(**parameters)
    assert 400 == response.status_code
    assert words in response.json()["error"]
    assert response.json()["remedy"]


def test_range_with_too_many_windows_is_refused(request_coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy names the maximum range. A default range is shortened instead."""
    monkeypatch.setattr("airflow_flowservice.plugins.coverage_reader.MAX_WINDOWS", 5)
    response = request_coverage()
    assert 400 == response.status_code
    assert "5 days at most" in response.json()["remedy"]
    assert 5 == len(states_of(request_coverage(**{"from": None}).json()))


def test_hostile_ids_stay_text(viewer: Any) -> None:
    """Ids that look like HTML are returned unchanged, with the content type of JSON."""
    response = viewer.get(COVERAGE, params={"flow_id": HOSTILE, **RANGE})
    assert "application/json" == response.headers["content-type"]
    assert HOSTILE in response.json()["tasks"]["dag_run_id"]
    assert "<script>alert(2)</script>" in json.dumps(response.json())


def test_unexpected_error_reveals_no_details(request_coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error's text may contain secrets. The response has the security headers."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("airflow_flowservice.plugins.page_app.CoverageReader", fail)
    response = request_coverage()
    assert 500 == response.status_code
    assert "hunter2" not in response.text
    assert "log" in response.json()["remedy"]
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("conn_id", ["a\x00b", "\x00", "a\nb", "a\x1b[0m", "\u202e"])
def test_conn_id_that_no_database_can_store_is_refused(request_coverage: Any, conn_id: str) -> None:
    response = request_coverage(conn_id=conn_id)
    assert 400 == response.status_code
    assert "conn_id" in response.json()["error"]


@pytest.mark.parametrize("name", ["flow_id", "dag_id", "from", "to"])
def test_nul_in_a_parameter_is_a_typed_error(request_coverage: Any, name: str) -> None:
    response = request_coverage(**{name: "a\x00b"})
    assert response.status_code in (400, 403, 404)
    assert response.json()["error"]


def test_link_to_another_host_is_omitted(viewer: Any) -> None:
    """A user can change the URL in the XCom."""
    response = viewer.get(COVERAGE, params={"flow_id": HOSTILE, **RANGE})
    assert [None] == response.json()["runs"]["url"]


def test_number_of_concurrent_reads_is_limited(request_coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further requests fail, immediately or after a short wait, so that the API server keeps free threads."""
    monkeypatch.setattr(read_slots, "_MAX_WAIT_S", 0.01)
    with read_slots._RUNNING, read_slots._RUNNING:
        assert 503 == request_coverage().status_code
    monkeypatch.setattr(read_slots, "_MAX_WAIT_S", 60.0)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(read_slots._RUNNING_OR_WAITING)
        response = request_coverage()
    assert 503 == response.status_code
    assert "again" in response.json()["remedy"]
    assert 200 == request_coverage().status_code


def test_two_reads_run_at_once(request_coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve requests at once, at most two read at the same time, at most eight are accepted, and all end."""
    running, most, lock, two = [0], [0], threading.Lock(), threading.Event()
    real = page_app.permissions.readable_feeds

    def read(*args: Any, **kwargs: Any) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if most[0] >= 2:
            two.set()
        try:
            two.wait(30)  # The first one waits for the second one, also on a busy machine.
            time.sleep(0.2)
            return real(*args, **kwargs)
        finally:
            with lock:
                running[0] -= 1

    monkeypatch.setattr(page_app.permissions, "readable_feeds", read)
    monkeypatch.setattr(read_slots, "_MAX_WAIT_S", 60.0)
    with ThreadPoolExecutor(12) as pool:
        statuses = [each.status_code for each in pool.map(lambda _: request_coverage(), range(12))]
    assert {200, 503} >= set(statuses)
    assert statuses.count(200) >= 2
    assert most[0] == 2
    monkeypatch.undo()
    assert 200 == request_coverage().status_code


def test_number_of_computed_windows_is_limited(request_coverage: Any) -> None:
    """Twenty years of days are more than the server computes for one request; 6,000 and the DAG runs are the limit."""
    response = request_coverage(to="2045-12-01T00:00:00Z")
    assert 400 == response.status_code
    limit = int(re.sub(r".*more than ([0-9,]+) windows.*", r"\1", response.json()["error"]).replace(",", ""))
    assert 6000 <= limit < 6100


def test_dataflow_in_another_spelling(request_coverage: Any) -> None:
    """Flow Service writes its ids in lower case, and a user may not."""
    response = request_coverage(flow_id=f" {FLOW.upper()} ")
    assert (200, request_coverage().json()["spans"]) == (response.status_code, response.json()["spans"])
    assert FLOW == response.json()["flow_id"]
