"""What the page's data endpoints answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.plugins.conftest import FLOW, HOSTILE, RANGE

COVERAGE = "/flowservice/data/coverage"


def told(answer: dict[str, Any]) -> list[str]:
    """The states, by time."""
    return [answer["states"][number] for number in answer["spans"]["state"]]


@pytest.fixture
def ask(viewer: Any) -> Any:
    """Ask for the coverage of the dataflow, as one DAG has it."""

    def get(**parameters: Any) -> Any:
        return viewer.get(COVERAGE, params={"flow_id": FLOW, "dag_id": "page_seen", **RANGE, **parameters})

    return get


def test_dataflows_are_listed_with_the_tasks_that_feed_them(viewer: Any) -> None:
    """By their ids."""
    found = {each["flow_id"]: each["tasks"] for each in viewer.get("/flowservice/data/dataflows").json()["dataflows"]}
    assert ["page_hidden", "page_seen"] == [task["dag_id"] for task in found[FLOW]]
    assert [{"dag_id": "page_hostile", "task_id": "ingest"}] == found[HOSTILE]


def test_each_window_has_its_state(ask: Any) -> None:
    """Those that no DAG run took are told from the schedule."""
    answer = ask().json()
    assert ["ingested", "failed", "twice", *["missing"] * 7] == told(answer)
    assert ("2026-01-01T00:00:00Z", "2026-01-11T00:00:00Z") == (answer["from"], answer["to"])
    assert "2026-01-02T00:00:00Z" == answer["spans"]["end"][0] == answer["spans"]["start"][1]
    assert {"windows": 7, "seconds": 7 * 86_400} == answer["totals"]["missing"]
    assert answer["whole"] is False


def test_columns_lead_to_dag_runs_and_flow_runs(ask: Any) -> None:
    """Each is written once, and named by its place."""
    answer = ask().json()
    twice = answer["spans"]["tasks"][2]
    assert ["manual", "scheduled"] == sorted(answer["tasks"]["dag_run_id"][n].partition("__")[0] for n in twice)
    assert ["success", "success"] == [answer["runs"]["status"][n] for n in answer["spans"]["runs"][2]]
    assert [3] == [answer["runs"]["failed_records"][n] for n in answer["spans"]["runs"][0]]
    assert [[]] * 7 == answer["spans"]["tasks"][3:]


def test_commands_fill_what_is_missing(ask: Any) -> None:
    """With the DAG that they are for."""
    commands = ask().json()["commands"]
    assert {"page_seen"} == {each["dag_id"] for each in commands}
    assert "--from-date 2026-01-05T00:00:00+00:00 --to-date 2026-01-11T00:00:00+00:00" in commands[1]["command"]


def test_tasks_that_the_commands_would_run_again_are_told(ask: Any) -> None:
    """None here: each DAG run has one task."""
    assert [] == ask().json()["again"]


def test_without_a_range_it_begins_with_the_first_window_known(ask: Any) -> None:
    """And ends now; the year before is not called missing."""
    answer = ask(**{"from": None, "to": None}).json()
    assert ("2026-01-01T00:00:00Z", answer["now"]) == (answer["from"], answer["to"])
    assert "ingested" == told(answer)[0]


def test_a_dataflow_that_nobody_feeds_is_not_found(ask: Any) -> None:
    """With a text that says so."""
    answer = ask(flow_id="nobody's")
    assert (404, "choose one that is listed") == (answer.status_code, answer.json()["remedy"])


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"from": "yesterday"}, "not a moment in time"),
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
def test_bad_parameters_are_refused_with_what_to_do(ask: Any, parameters: dict[str, Any], words: str) -> None:
    """400, and a text for people."""
    answer = ask(**parameters)
    assert 400 == answer.status_code
    assert words in answer.json()["error"]
    assert answer.json()["remedy"]


def test_more_windows_than_a_page_can_show_are_refused(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the range that would do; one that nobody asked for is cut."""
    monkeypatch.setattr("airflow_flowservice.plugins.coverage_reader.MOST_WINDOWS", 5)
    answer = ask()
    assert 400 == answer.status_code
    assert "5 days at most" in answer.json()["remedy"]
    assert 5 == len(told(ask(**{"from": None}).json()))


def test_what_comes_from_outside_stays_text(viewer: Any) -> None:
    """JSON, declared as such, whatever stands in ids, and nothing that a browser would take for a page."""
    answer = viewer.get(COVERAGE, params={"flow_id": HOSTILE, **RANGE})
    assert "application/json" == answer.headers["content-type"]
    assert HOSTILE in answer.json()["tasks"]["dag_run_id"]
    assert "<script>alert(2)</script>" in json.dumps(answer.json())


def test_a_failure_of_the_server_tells_no_detail(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold what the user must not see; the headers are there all the same."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("airflow_flowservice.plugins.page_app.Reading", fail)
    answer = ask()
    assert 500 == answer.status_code
    assert "hunter2" not in answer.text
    assert "log" in answer.json()["remedy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
