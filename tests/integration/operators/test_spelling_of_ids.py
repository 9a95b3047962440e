# SPDX-License-Identifier: Apache-2.0
"""Ids of dataflows and flow runs in upper case, which are the same ids: Adobe writes UUIDs in lower case."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_flowservice._airflow.variable_ledger import ledger_key
from airflow_flowservice.ledger.entry import LedgerEntry
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
UPPER = FLOW.upper()
OTHER = "11111111-0000-4000-8000-000000000000"


@pytest.fixture
def ingest(worker):
    """Return a function that makes a task."""

    def make(**arguments):
        return worker.task(OnDemandFlowRunOperator, **{"delta_column": "updated_at", **arguments})

    return make


def test_dataflow_in_upper_case(ingest, runs_of):
    """The XCom, the window and the ledger have Adobe's spelling."""
    task = ingest(flow_id=f" {UPPER} ")
    assert "success" == task.run().state
    [run] = runs_of()
    assert (run["id"], FLOW) == (task.xcoms["return_value"], task.xcoms["flow_run"]["flow_id"])


def test_both_spellings_are_one_dataflow_in_the_ledger(ingest, runs_of):
    """Two DAGs that spell the id in different ways do not ingest the same window twice."""
    assert "success" == ingest(flow_id=FLOW, wait_for_completion=True, deferrable=False, poll_interval=0.1).run().state
    other = ingest(flow_id=UPPER, task_id="other")
    assert "success" == other.run().state
    assert [other.xcoms["return_value"]] == [run["id"] for run in runs_of()]


def rewrite_entries(supervisor, *, upper):
    """Store the entries as an earlier version did, which kept the id as the DAG has it."""
    for key, value in list(supervisor.variables.items()):
        entry = LedgerEntry.from_json(json.loads(value))
        if entry is not None:
            old = replace(entry, dataflow=replace(entry.dataflow, flow_id=upper))
            del supervisor.variables[key]
            supervisor.variables[ledger_key(*old.key)] = json.dumps(old.to_json())


@pytest.mark.parametrize(
    "arguments", [{"flow_id": UPPER}, {"flow_id": OTHER, "continues": [UPPER]}], ids=["flow_id", "continues"]
)
def test_entries_of_earlier_versions(ingest, runs_of, supervisor, arguments):
    """The window is not ingested again if an entry has the id as the DAG has it."""
    first = ingest(flow_id=FLOW, wait_for_completion=True, deferrable=False, poll_interval=0.1)
    assert "success" == first.run().state
    rewrite_entries(supervisor, upper=UPPER)
    second = ingest(task_id="other", **arguments)
    assert "success" == second.run().state
    assert [first.xcoms["return_value"]] == [run["id"] for run in runs_of()]
    assert first.xcoms["return_value"] == second.xcoms["return_value"]


def test_lost_response_with_an_id_in_upper_case(ingest, emulator, runs_of):
    """The created flow run is found, although the list shows its dataflow in lower case."""
    emulator.plan_fault(nth=1, action="record_and_close")
    task = ingest(flow_id=UPPER, retries=1)
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


def test_flow_run_to_adopt_in_upper_case(ingest, create_run, runs_of):
    created = create_run()
    task = ingest(flow_id=UPPER, conf={"flowservice": {"adopt": created.upper()}}, run_type="manual")
    assert "success" == task.run().state
    assert [created] == [run["id"] for run in runs_of()]


@pytest.mark.parametrize("deferrable", [False, True])
def test_sensor_of_a_flow_run_in_upper_case(worker, create_run, deferrable):
    created = create_run()
    sensor = worker.task(
        FlowRunSensor, flow_run_id=created.upper(), deferrable=deferrable, poke_interval=0.1, timeout=60
    )
    assert "success" == sensor.run().state
    assert created == sensor.xcoms["return_value"]


def test_flow_run_to_repeat_in_upper_case(worker, emulator, create_run, wait_for_end, runs_of):
    emulator.plan_outcome(status="failed")
    created = create_run()
    wait_for_end(created)
    task = worker.task(RetriggerFlowRunOperator, flow_run_id=created.upper())
    assert "success" == task.run().state
    assert [created, task.xcoms["return_value"]] == [run["id"] for run in runs_of()]
