# SPDX-License-Identifier: Apache-2.0
"""Arguments of `FlowRunsTrigger`: Airflow's database stores them, and identifies the trigger by them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.sdk import AssetWatcher
from airflow.triggers.base import BaseEventTrigger

from airflow_flowservice.assets import flow_asset
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.watchers import FlowRunsTrigger

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
GIVEN = {
    "flow_id": FLOW,
    "flowservice_conn_id": "mine",
    "poll_interval": 300.0,
    "since": "2026-01-09T00:00:00Z",
    "events": "ended",
    "include_airflow": True,
}


def test_class_path_and_arguments_are_pinned():
    """Airflow's database stores the path, so it must not change."""
    assert ("airflow_flowservice.watchers.FlowRunsTrigger", GIVEN) == FlowRunsTrigger(**GIVEN).serialize()


@pytest.mark.parametrize("name", ["poll_interval", "since", "events", "include_airflow"])
def test_default_arguments_are_omitted(name):
    """A later version with more arguments gives the same trigger."""
    always = {"flow_id": FLOW, "flowservice_conn_id": "flowservice_default"}
    assert always == FlowRunsTrigger(flow_id=FLOW).serialize()[1]
    changed = FlowRunsTrigger(flow_id=FLOW, **{name: GIVEN[name]}).serialize()[1]
    assert {**always, name: GIVEN[name]} == changed == FlowRunsTrigger(**changed).serialize()[1]


def test_equal_arguments_give_the_same_trigger():
    """Each parsing of the DAG file must give the hash of the stored trigger."""
    aware = datetime(2026, 1, 9, 1, tzinfo=timezone(timedelta(hours=1)))
    same = [
        FlowRunsTrigger(**{**GIVEN, **change})
        for change in ({}, {"since": aware}, {"since": "2026-01-09T01:00:00+01:00"}, {"poll_interval": 300})
    ]
    other = FlowRunsTrigger(**{**GIVEN, "poll_interval": 301})
    assert 1 == len({BaseEventTrigger.hash(*trigger.serialize()) for trigger in same})
    assert BaseEventTrigger.hash(*other.serialize()) != BaseEventTrigger.hash(*same[0].serialize())


@pytest.mark.parametrize(
    "change",
    [
        {"flow_id": ""},
        {"flow_id": None},
        {"flow_id": "{{ var.value.flow }}"},
        {"poll_interval": 0},
        {"poll_interval": "soon"},
        {"since": "yesterday"},
        {"since": datetime(2026, 1, 9)},  # noqa: DTZ001
        {"events": "all"},
    ],
    ids=repr,
)
def test_invalid_argument_is_an_error_of_the_dag_file(change):
    """The triggerer receives only valid arguments."""
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        FlowRunsTrigger(**{**GIVEN, **change})


def test_asset_has_the_watcher():
    """`flow_asset` passes watchers to Airflow's `Asset`."""
    watcher = AssetWatcher(name="adobe", trigger=FlowRunsTrigger(flow_id=FLOW))
    assert [watcher] == flow_asset(FLOW, watchers=[watcher]).watchers
    assert [] == flow_asset(FLOW).watchers
