# SPDX-License-Identifier: Apache-2.0
"""Confs of manual DAG runs in shapes that users write, and that request a window or a flow run under other keys."""

from __future__ import annotations

import json

import pytest

from airflow_flowservice.exceptions import ConfigurationError, WindowError
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
START, END = "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"
REQUESTED = {"window_start": START, "window_end": END}
YESTERDAY = ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z")


@pytest.fixture
def ingest(worker):
    """Return a function that runs a task of a DAG run with a conf."""

    def run(conf, *, run_type="manual"):
        arguments = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2}
        return worker.task(OnDemandFlowRunOperator, conf=conf, run_type=run_type, **arguments).run()

    return run


def key_names(value) -> str:
    """Return the id of a parameter: a conf by its keys, without the times."""
    return ",".join(value) if isinstance(value, dict) else ""


@pytest.mark.parametrize(
    ("conf", "key"),
    [
        ({"interval": f"{START}/{END}"}, "interval"),
        ({"data_interval": [START, END]}, "data_interval"),
        ({"data_interval": {"start": START, "end": END}}, "data_interval"),
        ({"dateRange": {"from": "2026-01-02", "to": "2026-01-03"}}, "dateRange"),
        ({"period": {"start_date": START, "end_date": END}}, "period"),
        ({"time_range": f"{START} - {END}"}, "time_range"),
        ({"partition_key": "2026-01-02"}, "partition_key"),
        ({"date": "2026-01-02"}, "date"),
        ({"day": "20260102"}, "day"),
        ({"run_date": 1767312000}, "run_date"),
        ({"process-date": START}, "process-date"),
        ({"dt": "2026-01-02"}, "dt"),
        ({"conf": {"start": START, "end": END}}, "conf"),
        ({"params": {"conf": {"date": "2026-01-02"}}}, "params"),
    ],
    ids=key_names,
)
def test_time_under_a_name_of_a_span_or_a_day_is_refused(ingest, emulator, runs_of, conf, key):
    """If it were ignored, the task would ingest the last complete period, and succeed."""
    ended = ingest(conf)
    assert ("failed", True) == (ended.state, isinstance(ended.error, WindowError))
    assert f"in the key {key!r}" in ended.error.message
    assert "window_start and window_end" in ended.error.remedy
    assert FLOW == ended.error.flow_id
    assert {} == emulator.ledger()["requests"]
    assert "success" == ingest({**conf, **REQUESTED}).state
    assert [START] == [run["window_start"] for run in runs_of()]


@pytest.mark.parametrize("run_type", ["manual", "backfill"])
def test_window_in_an_object_as_text_is_refused(ingest, emulator, run_type):
    """A conf that was encoded twice is such an object."""
    ended = ingest({"conf": json.dumps(REQUESTED)}, run_type=run_type)
    assert ("failed", True) == (ended.state, isinstance(ended.error, WindowError))
    assert "has a window inside the key 'conf'" in ended.error.message
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize(
    "conf",
    [
        {"date": None, "day": "", "interval": "30m", "period": 7, "range": [1, 500], "partition": "eu"},
        {"date": "today", "day": 5, "dt": {}, "span": "2 days", "conf": "{not json", "params": {"a": "b"}},
        {"other": {"start": START, "end": END, "date": START}, "birthdate": START, "update": START},
        {"conf": {"rows": [1, "2026-01-02"]}, "note": '{"text": "2026-01-02"}'},
    ],
    ids=key_names,
)
def test_other_values_under_these_names_are_ignored(ingest, runs_of, conf):
    """They cannot be times, or are in an object for another task."""
    assert "success" == ingest(conf).state
    [run] = runs_of()
    assert YESTERDAY == (run["window_start"], run["window_end"])


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_days_in_the_conf_of_an_automatic_run_are_ignored(ingest, runs_of, run_type):
    """A backfill cannot have a window in its conf."""
    assert "success" == ingest({"date": "2026-01-02", "interval": f"{START}/{END}"}, run_type=run_type).state
    assert YESTERDAY == (runs_of()[0]["window_start"], runs_of()[0]["window_end"])


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"adopt": FLOW}, "has the unknown key 'adopt'"),
        ({"restate": True}, "has the unknown key 'restate'"),
        ({"Adopt": {"task": FLOW}}, "has the unknown key 'Adopt'"),
        ({"flowservice_adopt": FLOW}, "has the unknown key 'flowservice_adopt'"),
        ({"flowservice.restate": True}, "has the unknown key 'flowservice.restate'"),
        ({"flowsevice": {"adopt": FLOW}}, "has the unknown key 'flowsevice'"),
        ({"flowservices": {"adpot": FLOW}}, "has the unknown key 'flowservices'"),
        ({"flow-srvice": {"restate": True}}, "has the unknown key 'flow-srvice'"),
        ({"conf": {"flowservice": {"adopt": FLOW}}}, "has flowservice inside the key 'conf'"),
        ({"task": {"adopt": FLOW}}, "has flowservice inside the key 'task'"),
        ({"runs": [{"flowservice": {"restate": True}}]}, "has flowservice inside the key 'runs'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("run_type", ["manual", "backfill"])
def test_settings_under_another_key_are_refused(ingest, runs_of, conf, message, run_type):
    """If they were ignored, the task would create a second flow run."""
    ended = ingest(conf, run_type=run_type)
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert message in ended.error.message
    assert '{"flowservice": {"adopt": "FLOW_RUN_ID"}}' in ended.error.remedy
    assert [] == runs_of()


@pytest.mark.parametrize(
    "conf",
    [
        {"adopt": None, "flow_service": None, "restate": None},
        {"flowservice_conn": "dev", "flow_services": ["a", "b"], "flows": {"a": 1}, "adopted": True},
        {"flowservice": {"adopt": None}, "rows": [[[[[[[{"adopt": 1}]]]]]]]},
    ],
    ids=key_names,
)
def test_other_keys_are_no_settings(ingest, runs_of, conf):
    assert "success" == ingest(conf).state
    assert 1 == len(runs_of())
