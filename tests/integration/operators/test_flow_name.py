# SPDX-License-Identifier: Apache-2.0
"""`flow_name`: the dataflow is found by its name when the task runs."""

from __future__ import annotations

import time

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.exceptions import ConfigurationError, FlowNameError
from airflow_flowservice.freshness import FlowFreshnessSensor
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.runs import flow_names
from tests.integration.operators.conftest import connection_to

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
FILES = "c9cef9cb-c934-4467-8ef9-cbc934546741"


@pytest.fixture(autouse=True)
def _new_process(monkeypatch):
    monkeypatch.setattr(flow_names, "_found", {})


@pytest.fixture
def ingest(worker, emulator, monkeypatch):
    """Return a function that makes a task of the dataflow `Orders`; each attempt is a new process."""
    emulator.add_flow(id=FLOW, name="Orders")

    def make(**arguments):
        defaults = {"flow_name": "Orders", "delta_column": "updated_at", "poll_interval": 0.05, "retries": 2}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


@pytest.fixture
def forget(monkeypatch):
    """Return a function that forgets the found ids, as a new process does."""
    return lambda: monkeypatch.setattr(flow_names, "_found", {})


@pytest.mark.parametrize(
    "way",
    [{}, {"wait_for_completion": True}, {"wait_for_completion": True, "deferrable": True}],
    ids=["create", "wait", "deferrable"],
)
def test_xcoms_links_and_ledger_have_the_id(ingest, runs_of, supervisor, way):
    """Other tasks, the coverage and the page know the dataflow by its id."""
    task = ingest(**way)
    assert "success" == task.run().state
    [run] = runs_of()
    assert (FLOW, run["id"]) == (task.xcoms["flow_run"]["flow_id"], task.xcoms["return_value"])
    assert task.xcoms["dataflow_url"].endswith(f"/dataflows/{FLOW}")
    entries = [text for key, text in supervisor.variables.items() if key.startswith("flowservice.ledger.")]
    assert [True] == [f'"flow_id": "{FLOW}"' in text for text in entries]


def test_template_is_rendered(ingest, runs_of):
    assert "success" == ingest(flow_name="{{ 'Ord' ~ 'ers' }}").run().state
    assert 1 == len(runs_of())


@pytest.mark.needs_airflow(3, 3, "rendered templates after an attempt")
def test_rendered_templates_show_the_id(ingest, supervisor):
    ingest().run()
    assert (FLOW, "Orders") == (supervisor.rendered["flow_id"], supervisor.rendered["flow_name"])


def test_mapped_task(ingest, emulator, runs_of, worker):
    """Each task instance has its own name."""
    emulator.add_flow(id=FILES, name="Clicks")
    for index, (name, flow_id) in enumerate({"Orders": FLOW, "Clicks": FILES}.items()):
        task = ingest(task_id="mapped", flow_name=name, delta_column=None if name == "Clicks" else "updated_at")
        task.map_index = index
        assert "success" == task.run().state
        assert 1 == len(runs_of(flow_id))


@pytest.mark.slow
def test_rename_before_a_clear_creates_no_second_flow_run(ingest, emulator, runs_of, forget):
    """Another dataflow has taken the name, but the window is of the first one."""
    emulator.plan_fault(nth=1, action="record_and_close")
    emulator.plan_fault(kind="*", action="hide_windows")
    task = ingest(uncertain_patience=0.5)
    # The POST has created a flow run, and its response was lost.
    assert "failed" == task.run().state
    emulator.add_flow(id=FLOW, name="Orders (old)")
    emulator.add_flow(id=FILES, name="Orders")
    forget()
    task.clear()
    task.run()
    assert (1, 0) == (len(runs_of(FLOW)), len(runs_of(FILES)))


def test_retry_after_a_rename_continues_with_the_flow_run(ingest, emulator, runs_of, forget):
    """The first attempt stops waiting. The name does not exist any more."""
    emulator.plan_outcome(run_s=600.0)
    task = ingest(wait_for_completion=True, wait_timeout=0.2)
    assert "up_for_retry" == task.run().state
    emulator.add_flow(id=FLOW, name="Renamed")
    forget()
    ended = task.run()
    assert "FlowRunTimeoutError" == type(ended.error).__name__
    assert 1 == len(runs_of())


@pytest.mark.slow
def test_same_dag_is_promoted_by_its_connection(ingest, emulator, supervisor, runs_of, forget):
    """The dataflow has another id in the other sandbox."""
    with running_emulator(Settings(queue_s=0.0, run_s=0.0)) as other:
        other.add_flow(id=FILES, name="Orders")
        supervisor.connections["prod"] = connection_to(other)
        assert "success" == ingest().run().state
        assert "success" == ingest(flowservice_conn_id="prod", task_id="prod", delta_column=None).run().state
        assert (1, 0) == (len(runs_of(FLOW)), len(runs_of(FILES)))
        assert 1 == len(other.ledger()["flows"][FILES]["runs"])


@pytest.mark.parametrize("name", ["Oders", "Orders"], ids=["unknown", "ambiguous"])
def test_unknown_or_ambiguous_name_fails_without_a_retry(ingest, emulator, name):
    """The message lists candidates with their ids."""
    emulator.add_flow(id=FILES, name="Orders")
    ended = ingest(flow_name=name).run()
    assert "failed" == ended.state
    assert isinstance(ended.error, FlowNameError)
    assert isinstance(ended.error, versions.airflow_exception("AirflowFailException"))
    assert FLOW in ended.error.message
    assert FILES in ended.error.message


def test_unreachable_flow_service_is_retried(ingest, emulator):
    emulator.plan_fault(kind="GET /flows", action="refuse", status=503, times=2)
    assert "up_for_retry" == ingest().run().state


@pytest.mark.parametrize("given", [{}, {"flow_id": FLOW, "flow_name": "Orders"}], ids=["none", "both"])
@pytest.mark.parametrize("operator", [OnDemandFlowRunOperator, FlowFreshnessSensor])
def test_exactly_one_of_id_and_name(operator, given):
    """The error comes when the DAG file is parsed."""
    more = {"max_lag": 60} if operator is FlowFreshnessSensor else {}
    with pytest.raises(ConfigurationError, match="flow_id"):
        operator(task_id="task", **given, **more)


@pytest.mark.parametrize("name", ["{{ none }}", "{{ '' }}", "  "], ids=["null", "empty", "blank"])
def test_name_that_renders_to_nothing_is_refused(ingest, emulator, name):
    ended = ingest(flow_name=name).run()
    assert ("failed", "ConfigurationError") == (ended.state, type(ended.error).__name__)
    assert 0 == emulator.ledger()["requests"].get("GET /flows", 0)


@pytest.mark.parametrize("arguments", [{}, {"on_late": "wait", "deferrable": True}], ids=["check", "wait"])
def test_freshness_by_name(worker, emulator, ingest, arguments):
    """The sensor finds the dataflow in the same way."""
    end = time.time() - 3600
    window = {"window_start": end - 3600, "window_end": end}
    assert "success" == ingest(wait_for_completion=True, **window).run().state
    task = worker.task(FlowFreshnessSensor, flow_name="Orders", max_lag=86400, task_id="watch", **arguments)
    assert "success" == task.run().state
    assert FLOW == task.xcoms["return_value"]["flow_id"]
