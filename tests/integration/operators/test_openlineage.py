"""Lineage as Airflow's real OpenLineage provider writes it into a file; and that it never harms a task."""

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
# Earlier providers ask for lineage in a fork of the process, whose log is not seen here.
LOGS_HERE = hasattr(conf, "execute_in_thread")
WAYS = pytest.mark.parametrize("deferrable", [True, False])


def related(flow_id: str, role: str) -> str:
    """A connection's id in the emulator."""
    return str(uuid5(UUID(int=0), f"{flow_id}/{role}"))


@pytest.fixture
def events(tmp_path, monkeypatch):
    """What the listener has written of the task named `task`."""
    file = tmp_path / "lineage.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
    # A fork of this process would take the emulator's thread along.
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD", "True")

    def read():
        found = [json.loads(line) for line in file.read_text().splitlines()]
        return [event for event in found if event["job"]["name"] == "dag.task"]

    return read


@pytest.fixture
def listener(events):
    """Airflow's own listener, registered as its plugin does it."""
    manager = get_listener_manager()
    manager.add_listener(OpenLineageListener())
    yield
    manager.clear()


@pytest.fixture
def ingest(worker, listener):
    """A task that ingests and waits."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True, "poll_interval": 0.1}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def ends(event):
    """Inputs and outputs by namespace and name."""
    return [[(each["namespace"], each["name"]) for each in event[side]] for side in ("inputs", "outputs")]


@WAYS
def test_what_was_read_and_written(ingest, events, deferrable):
    """The source's table, the dataset in the data lake, and how much went in; also after a deferral."""
    assert "success" == ingest(deferrable=deferrable).run().state
    *_, event = events()
    table = (f"{SANDBOX}/connections/{related(FLOW, 'base')}", "made_up")
    assert ["START", "COMPLETE"] == sorted({each["eventType"] for each in events()}, reverse=True)
    assert "COMPLETE" == event["eventType"]
    assert [[table], [(SANDBOX, DATASET)]] == ends(event)
    statistics = event["outputs"][0]["outputFacets"]["outputStatistics"]
    assert (1440, 120960) == (statistics["rowCount"], statistics["size"])


@WAYS
def test_the_window_and_the_counts(ingest, events, runs_of, deferrable):
    """In a facet of our own, all that the XCom `flow_run` has."""
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


def test_files(ingest, events):
    """A file-based source is named by its path."""
    ingest(flow_id=FILES, delta_column=None).run()
    assert [(f"{SANDBOX}/connections/{related(FILES, 'base')}", "/made-up")] == ends(events()[-1])[0]


@WAYS
def test_a_failed_flow_run(ingest, events, emulator, deferrable):
    """The same ends; of the run's errors our facet has the codes alone, since messages may name hosts."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "db.customer.example"}])
    assert "failed" == ingest(deferrable=deferrable).run().state
    event = events()[-1]
    assert ("FAIL", [(SANDBOX, DATASET)]) == (event["eventType"], ends(event)[1])
    facet = event["run"]["facets"][openlineage.FACET]
    assert ("failed", ["CONNECTOR-1001-500"]) == (facet["status"], facet["errorCodes"])
    assert "db.customer.example" not in json.dumps(facet)
    assert "CONNECTOR-1001-500" in event["run"]["facets"]["errorMessage"]["message"]


def test_a_task_that_created_nothing_has_read_nothing(ingest, events):
    """A refused request moved no data."""
    assert "failed" == ingest(flow_id=HOURLY).run().state
    event = events()[-1]
    assert ("FAIL", [[], []]) == (event["eventType"], ends(event))
    assert openlineage.FACET not in event["run"]["facets"]


@pytest.mark.parametrize("way", [{}, {"mode": "reschedule"}, {"deferrable": True}], ids=str)
def test_the_sensor(worker, create_run, listener, events, way):
    """Knows the counts that the creating task did not know yet."""
    run_id = create_run()
    task = worker.task(FlowRunSensor, flow_run_id=run_id, poke_interval=0.05, **{"deferrable": False, **way})
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    event = events()[-1]
    facet = event["run"]["facets"][openlineage.FACET]
    assert ("COMPLETE", run_id, 1440) == (event["eventType"], facet["flowRunId"], facet["outputRecords"])
    assert [(SANDBOX, DATASET)] == ends(event)[1]


def test_a_task_that_only_creates(ingest, events):
    """The ends are known, the counts are not; so there are no statistics."""
    ingest(wait_for_completion=False).run()
    event = events()[-1]
    assert [(SANDBOX, DATASET)] == ends(event)[1]
    assert {} == event["outputs"][0].get("outputFacets", {})
    assert "created" == event["run"]["facets"][openlineage.FACET]["status"]


def test_a_repeated_run(worker, create_run, listener, events, emulator, wait_for_end):
    """The dataflow is that of the run that is repeated."""
    emulator.plan_outcome(status="failed")
    failed = create_run()
    wait_for_end(failed)
    worker.task(RetriggerFlowRunOperator, flow_run_id=failed, wait_for_completion=True, poll_interval=0.1).run()
    assert [(SANDBOX, DATASET)] == ends(events()[-1])[1]


def test_a_time_limit_in_the_triggerer(ingest, events, runs_of):
    """The process that ends the task knows the run from the one before it."""
    ingest(deferrable=True, wait_timeout=60, deferral_timeout=True).run()
    [run] = runs_of()
    event = events()[-1]
    assert ("FAIL", run["id"]) == (event["eventType"], event["run"]["facets"][openlineage.FACET]["flowRunId"])


# --- what cannot be found out ---


@pytest.mark.parametrize("role", ["source", "target"])
def test_a_connection_that_cannot_be_read_is_named_by_its_id(ingest, events, emulator, role):
    """Whoever may read flows may perhaps not read these."""
    emulator.plan_fault(kind=f"GET /{role}Connections/{{id}}", action="answer", status=403, body={"code": 403000})
    assert "success" == ingest().run().state
    sides = ends(events()[-1])
    assert (SANDBOX, f"{role}Connections/{related(FLOW, role)}") == sides[role == "target"][0]
    assert [1, 1] == [len(side) for side in sides]


def test_a_dataflow_that_cannot_be_read_leaves_the_window(ingest, events, emulator):
    """Window and counts need no request."""
    task = ingest(check_flow=False)
    emulator.plan_fault(kind="GET /flows/{id}", action="answer", status=503, body={})
    assert "success" == task.run().state
    event = events()[-1]
    assert [[], []] == ends(event)
    assert "2026-01-09T00:00:00Z" == event["run"]["facets"][openlineage.FACET]["windowStart"]


def test_a_service_that_hangs_is_not_waited_for(ingest, events, emulator, monkeypatch, caplog):
    """The task ends in bounded time; the window is told all the same."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(openlineage, "_SECONDS", 0.5)
    task = ingest(check_flow=False, wait_for_completion=False)
    emulator.plan_fault(kind="GET /flows/{id}", action="hang", seconds=8)
    began = time.monotonic()
    assert "success" == task.run().state
    assert 5 > time.monotonic() - began
    assert openlineage.FACET in events()[-1]["run"]["facets"]
    assert not LOGS_HERE or "no answer in 0.5 seconds" in caplog.text


def test_an_error_of_ours_fails_no_task(ingest, events, monkeypatch, caplog):
    """The event is told without us."""
    caplog.set_level(logging.INFO)

    def broken(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(openlineage, "_facet", broken)
    assert "success" == ingest().run().state
    assert "COMPLETE" == events()[-1]["eventType"]
    assert not LOGS_HERE or "OpenLineage is not told of the flow run: RuntimeError: a fault of ours" in caplog.text


def test_secrets_stand_in_no_event(ingest, events, connection):
    """Neither the client secret nor a token."""
    ingest(outlets=[flow_asset(FLOW)]).run()
    assert connection["password"] not in json.dumps(events())
    assert "Bearer" not in json.dumps(events())


# --- the listener and the triggerer ---


def test_with_the_listener_a_task_ends_on_a_worker(ingest):
    """Airflow tells no listener of a task that ends in the triggerer."""
    assert "SucceedTask" == type(ingest(deferrable=True).run().message).__name__


@pytest.mark.parametrize(("disabled", "listens"), [("True", "False"), ("False", "True")])
def test_the_provider_that_is_disabled_registers_no_listener(disabled, listens):
    """So with `[openlineage] disabled` tasks still end in the triggerer; each in a process of its own."""
    transport = {"AIRFLOW__OPENLINEAGE__TRANSPORT": '{"type": "console"}'}
    code = "from airflow_flowservice._airflow import task_end; print(task_end.has_listeners())"
    environment = {**os.environ, **transport, "AIRFLOW__OPENLINEAGE__DISABLED": disabled}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert listens == done.stdout.splitlines()[-1]
