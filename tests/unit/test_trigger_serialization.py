# SPDX-License-Identifier: Apache-2.0
"""Serialization of the trigger: JSON under names that Airflow's database stores."""

from __future__ import annotations

import json

import pytest
from airflow_versions import VERSION, decode_arguments, encode_arguments

from airflow_flowservice.triggers import FlowRunTrigger

GIVEN = {
    "flow_run_id": "3fb0418e-1804-45d6-8d56-dd51f05c0baf",
    "flowservice_conn_id": "mine",
    "poll_interval": 7.5,
    "flow_id": "3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
    "window": "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z",
    "url": "https://experience.adobe.com/#/@ORG@AdobeOrg/sname:prod/platform/source/dataflows/f/activity/r",
    "seen": True,
    "ends_task": True,
    "is_alone": True,
    "error_budget": 60.0,
    "max_failed_records": 3,
    "max_failed_ratio": 0.01,
    "on_empty": "skip",
    "wait_for_batch": True,
}


def test_class_path_is_pinned():
    """Airflow's database stores the path, so it must not change."""
    assert ("airflow_flowservice.triggers.FlowRunTrigger", GIVEN) == FlowRunTrigger(**GIVEN).serialize()


def test_only_the_run_is_required():
    """Every other argument has a default."""
    expected = {"flow_run_id": "run", "flowservice_conn_id": "flowservice_default", "poll_interval": 30.0}
    assert expected == FlowRunTrigger(flow_run_id="run").serialize()[1]


@pytest.mark.parametrize("name", [name for name in GIVEN if name not in ("flow_run_id", "flowservice_conn_id")])
def test_default_arguments_are_omitted(name):
    """During an upgrade, the triggerer may be older than the workers, and may know fewer arguments."""
    made = FlowRunTrigger(flow_run_id="run", **{name: GIVEN[name]})
    assert {"flow_run_id", "flowservice_conn_id", "poll_interval", name} == set(made.serialize()[1])
    assert GIVEN[name] == FlowRunTrigger(**made.serialize()[1]).serialize()[1][name]


def test_trigger_of_an_earlier_version_can_be_started():
    """Arguments that were added later have defaults."""
    first = {name: GIVEN[name] for name in ("flow_run_id", "flowservice_conn_id", "poll_interval")}
    assert first == {name: FlowRunTrigger(**first).serialize()[1][name] for name in first}


def test_round_trip_through_the_trigger_table():
    """The scheduler stores the arguments encrypted, and the triggerer reads them."""
    from airflow.models.trigger import Trigger

    row = Trigger.from_object(FlowRunTrigger(**GIVEN))
    assert "airflow_flowservice.triggers.FlowRunTrigger" == row.classpath
    assert GIVEN == FlowRunTrigger(**row.kwargs).serialize()[1]


def test_round_trip_through_the_workers_message():
    """A deferring worker sends JSON; before Airflow 3.2 the server encodes it."""
    sent = encode_arguments(GIVEN) if VERSION >= (3, 2) else GIVEN
    assert GIVEN == decode_arguments(json.loads(json.dumps(sent)))


@pytest.mark.parametrize("extra", [{"window_start": 1}, {"run_id": "x"}])
def test_unknown_arguments_are_refused(extra):
    """A misspelled argument raises where it is written."""
    with pytest.raises(TypeError):
        FlowRunTrigger(flow_run_id="run", **extra)
