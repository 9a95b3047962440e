# SPDX-License-Identifier: Apache-2.0
"""Tests of lineage that Airflow's real OpenLineage provider writes to a file; errors in it never fail a task."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from uuid import UUID, uuid5

import pytest
from airflow.providers.openlineage import conf
from airflow.providers.openlineage.plugins.listener import OpenLineageListener
from airflow_versions import get_listener_manager

from airflow_flowservice import openlineage
from airflow_flowservice.assets import flow_asset
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
FILES = "c9cef9cb-c934-4467-8ef9-cbc934546741"
HOURLY = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"
DATASET = "5f0000000000000000000001"
SANDBOX = "aep://EMULATOR/prod"
# Earlier providers request lineage in a fork of the process; its log is not captured.
HAS_LOGS = hasattr(conf, "execute_in_thread")
WAYS = pytest.mark.parametrize("deferrable", [True, False])


def related(flow_id: str, role: str) -> str:
    """Return the id of a connection in the emulator."""
    return str(uuid5(UUID(int=0), f"{flow_id}/{role}"))


@pytest.fixture
def events(tmp_path, monkeypatch):
    """Return a function that returns the listener's events of the task named `task`."""
    file = tmp_path / "lineage.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
    # A fork of this process would copy the state of the emulator's thread.
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD", "True")

    def read():
        found = [json.loads(line) for line in file.read_text().splitlines()]
        return [event for event in found if event["job"]["name"] == "dag.task"]

    return read


@pytest.fixture
def listener(events):
    """Register Airflow's listener, as its plugin does."""
    manager = get_listener_manager()
    manager.add_listener(OpenLineageListener())
    yield
    manager.clear()


@pytest.fixture
def ingest(worker, listener):
    """Return a function that creates a task which ingests and waits."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True, "poll_interval": 0.1}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def ends(event):
    """Return inputs and outputs of an event by namespace and name."""
    return [[(each["namespace"], each["name"]) for each in event[side]] for side in ("inputs", "outputs")]


@WAYS
def test_event_contains_inputs_and_outputs(ingest, events, deferrable):
    """The event has the source's table, the dataset in the data lake, and the counts, also after a deferral."""
    assert "success" == ingest(deferrable=deferrable).run().state
    *_, event = events()
    table = (f"{SANDBOX}/connections/{related(FLOW, 'base')}", "made_up")
    assert ["START", "COMPLETE"] == sorted({each["eventType"] for each in events()}, reverse=True)
    assert "COMPLETE" == event["eventType"]
    assert [[table], [(SANDBOX, DATASET)]] == ends(event)
    statistics = event["outputs"][0]["outputFacets"]["outputStatistics"]
    assert (1440, 120960) == (statistics["rowCount"], statistics["size"])


@WAYS
def test_facet_contains_window_and_counts(ingest, events, runs_of, deferrable):
    """The provider's facet has the values of the XCom `flow_run`."""
    ingest(deferrable=deferrable).run()
    [run] = runs_of()
    facet = events()[-1]["run"]["facets"][openlineage.FACET]
    expected = {
        "flowRunId": run["id"],
        "flowId": FLOW,
        "status": "success",
        "windowStart": "2026-01-09T00:00:00Z",
        "windowEnd": "2026-01-10T00:00:00Z",
        "inputRecords": 1440,
        "outputRecords": 1440,
        "failedRecords": 0,
        "inputBytes": 172800,
        "outputBytes": 120960,
        "inputFiles": 24,
        "outputFiles": 1,
        "errorCodes": [],
        "url": f"https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows/{FLOW}"
        f"/activity/{run['id']}",
    }
    assert expected == {name: value for name, value in facet.items() if not name.startswith("_")}
    assert facet["_schemaURL"].startswith("https://openlineage.io/spec/")


def test_path_of_a_file_source_is_its_name(ingest, events):
    """The name of a file-based source is its path."""
    ingest(flow_id=FILES, delta_column=None).run()
    assert [(f"{SANDBOX}/connections/{related(FILES, 'base')}", "/made-up")] == ends(events()[-1])[0]


@WAYS
def test_event_of_a_failed_flow_run(ingest, events, emulator, deferrable):
    """The facet contains only the codes of errors, because messages may contain names of hosts."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "db.customer.example"}])
    assert "failed" == ingest(deferrable=deferrable).run().state
    event = events()[-1]
    assert ("FAIL", [(SANDBOX, DATASET)]) == (event["eventType"], ends(event)[1])
    facet = event["run"]["facets"][openlineage.FACET]
    assert ("failed", ["CONNECTOR-1001-500"]) == (facet["status"], facet["errorCodes"])
    assert "db.customer.example" not in json.dumps(facet)
    assert "CONNECTOR-1001-500" in event["run"]["facets"]["errorMessage"]["message"]


def test_task_without_flow_run_has_no_inputs_and_outputs(ingest, events):
    """A refused request moves no data."""
    assert "failed" == ingest(flow_id=HOURLY).run().state
    event = events()[-1]
    assert ("FAIL", [[], []]) == (event["eventType"], ends(event))
    assert openlineage.FACET not in event["run"]["facets"]


@pytest.mark.parametrize("way", [{}, {"mode": "reschedule"}, {"deferrable": True}], ids=str)
def test_event_of_the_sensor(worker, create_run, listener, events, way):
    """The sensor's event has the counts, which the creating task did not have."""
    run_id = create_run()
    task = worker.task(FlowRunSensor, flow_run_id=run_id, poke_interval=0.05, **{"deferrable": False, **way})
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    event = events()[-1]
    facet = event["run"]["facets"][openlineage.FACET]
    assert ("COMPLETE", run_id, 1440) == (event["eventType"], facet["flowRunId"], facet["outputRecords"])
    assert [(SANDBOX, DATASET)] == ends(event)[1]


def test_event_of_a_task_that_only_creates(ingest, events):
    """Inputs and outputs are known, but counts are not; so the event has no statistics."""
    ingest(wait_for_completion=False).run()
    event = events()[-1]
    assert [(SANDBOX, DATASET)] == ends(event)[1]
    assert {} == event["outputs"][0].get("outputFacets", {})
    assert "created" == event["run"]["facets"][openlineage.FACET]["status"]


def test_event_of_a_retriggered_run(worker, create_run, listener, events, emulator, wait_for_end):
    """The dataflow is that of the original flow run."""
    emulator.plan_outcome(status="failed")
    failed = create_run()
    wait_for_end(failed)
    worker.task(RetriggerFlowRunOperator, flow_run_id=failed, wait_for_completion=True, poll_interval=0.1).run()
    assert [(SANDBOX, DATASET)] == ends(events()[-1])[1]


def test_event_after_a_time_limit_in_the_triggerer(ingest, events, runs_of, clock):
    """The last process of the task reads the flow run from the XCom of the previous process."""
    clock.stop()  # the flow run must not end before the time limit
    ingest(deferrable=True, wait_timeout=60, deferral_timeout=True).run()
    [run] = runs_of()
    event = events()[-1]
    assert ("FAIL", run["id"]) == (event["eventType"], event["run"]["facets"][openlineage.FACET]["flowRunId"])


# --- missing information ---


@pytest.mark.parametrize("role", ["source", "target"])
def test_name_of_an_unreadable_connection_is_its_id(ingest, events, emulator, role):
    """A credential may have the permission to read flows, but not connections."""
    emulator.plan_fault(kind=f"GET /{role}Connections/{{id}}", action="answer", status=403, body={"code": 403000})
    assert "success" == ingest().run().state
    sides = ends(events()[-1])
    assert (SANDBOX, f"{role}Connections/{related(FLOW, role)}") == sides[role == "target"][0]
    assert [1, 1] == [len(side) for side in sides]


def test_event_has_the_window_if_the_dataflow_is_unreadable(ingest, events, emulator):
    """Window and counts require no request."""
    task = ingest(check_flow=False)
    emulator.plan_fault(kind="GET /flows/{id}", action="answer", status=503, body={})
    assert "success" == task.run().state
    event = events()[-1]
    assert [[], []] == ends(event)
    assert "2026-01-09T00:00:00Z" == event["run"]["facets"][openlineage.FACET]["windowStart"]


def test_time_limit_if_flow_service_does_not_respond(ingest, events, emulator, monkeypatch, caplog):
    """The task ends in bounded time, and the event has the window."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(openlineage, "_TIMEOUT_S", 0.5)
    task = ingest(check_flow=False, wait_for_completion=False)
    emulator.plan_fault(kind="GET /flows/{id}", action="hang", seconds=8)
    began = time.monotonic()
    assert "success" == task.run().state
    assert 5 > time.monotonic() - began
    assert openlineage.FACET in events()[-1]["run"]["facets"]
    assert not HAS_LOGS or "no response in 0.5 seconds" in caplog.text


def test_error_in_this_package_does_not_fail_the_task(ingest, events, monkeypatch, caplog):
    """Airflow emits the event without our lineage."""
    caplog.set_level(logging.INFO)

    def broken(*_):
        raise RuntimeError("planned error")

    monkeypatch.setattr(openlineage, "_run_facet", broken)
    assert "success" == ingest().run().state
    assert "COMPLETE" == events()[-1]["eventType"]
    assert not HAS_LOGS or "does not contain the flow run: RuntimeError: planned error" in caplog.text


def test_events_contain_no_secrets(ingest, events, connection):
    """Events contain neither the client secret nor a token."""
    ingest(outlets=[flow_asset(FLOW)]).run()
    assert connection["password"] not in json.dumps(events())
    assert "Bearer" not in json.dumps(events())


# --- the listener and the triggerer ---


def test_task_ends_on_a_worker_if_a_listener_is_registered(ingest):
    """Airflow does not call listeners for a task that ends in the triggerer."""
    assert "SucceedTask" == type(ingest(deferrable=True).run().message).__name__


@pytest.mark.parametrize(("disabled", "listens"), [("True", "False"), ("False", "True")])
@pytest.mark.slow
def test_disabled_provider_registers_no_listener(disabled, listens):
    """With `[openlineage] disabled`, tasks can end in the triggerer. Each case runs in a separate process."""
    transport = {"AIRFLOW__OPENLINEAGE__TRANSPORT": '{"type": "console"}'}
    code = "from airflow_flowservice._airflow import task_end; print(task_end.has_listeners())"
    environment = {**os.environ, **transport, "AIRFLOW__OPENLINEAGE__DISABLED": disabled}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert listens == done.stdout.splitlines()[-1]
