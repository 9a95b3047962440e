# SPDX-License-Identifier: Apache-2.0
"""Tasks of Airflow before 3.3, whose intent is in an Airflow Variable."""

from __future__ import annotations

import json
from contextlib import suppress
from types import SimpleNamespace

import pytest
from airflow_versions import VERSION

from airflow_flowservice._airflow import intent_variable
from airflow_flowservice._airflow.intent_variable import MISSING, VariableStore
from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.exceptions import ConfigurationError, LedgerUnavailableError
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
TI = SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=None)


class Killed(BaseException):
    """The process ends here: Airflow's task runner does not handle this."""


@pytest.fixture(autouse=True)
def _use_variables(monkeypatch):
    """Use no ledger. Before 3.3, the Variable is then the default; on 3.3 these tasks have no task state."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER", "none")
    if VERSION >= (3, 3):
        monkeypatch.setenv("AIRFLOW__FLOWSERVICE__INTENT_STORE", "variable")


@pytest.fixture
def ingest(worker):
    """Return a function that makes a daily task of the table-based dataflow."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2, "store": False}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def kill(monkeypatch, task, *, sent):
    """Perform an attempt that is killed between intent and POST, or between POST and response."""

    def create_and_die(*args, **kwargs):
        if sent:
            create_run(*args, **kwargs)
        raise Killed

    create_run = FlowServiceClient.create_run
    with monkeypatch.context() as patch:
        patch.setattr(FlowServiceClient, "create_run", create_and_die)
        with suppress(Killed):
            task.run()


def test_a_retry_finds_the_intent_of_an_attempt_that_was_killed_before_the_post(
    ingest, emulator, runs_of, supervisor, monkeypatch, log
):
    """The retry compares, finds nothing, and creates the flow run."""
    task = ingest(uncertain_patience=0.5)
    kill(monkeypatch, task, sent=False)
    [intent] = supervisor.variables.values()
    assert json.loads(intent)["flowservice_intent"]["token"]
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]
    assert any("An earlier attempt may have created a flow run" in line for line in log())
    assert {} == supervisor.variables


@pytest.mark.parametrize("hidden", [False, True], ids=["windows shown", "windows hidden"])
def test_a_retry_finds_the_run_of_an_attempt_that_was_killed_after_the_post(
    ingest, emulator, runs_of, monkeypatch, hidden
):
    """If Flow Service hides the windows, the intent still shows which flow runs are new."""
    if hidden:
        emulator.plan_fault(kind="*", action="hide_windows")
    task = ingest(on_uncertain="adopt", uncertain_patience=0.5)
    kill(monkeypatch, task, sent=True)
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


def test_a_clear_resumes_the_run_of_a_failed_task(ingest, clock, runs_of, supervisor):
    """A task that fails keeps its Variable; a task that succeeds removes it."""
    task = ingest(wait_for_completion=True, deferrable=False, poll_interval=0.05, wait_timeout=0.1, retries=0)
    clock.stop()
    assert "failed" == task.run().state
    assert 1 == len(supervisor.variables)
    task.operator.wait_for_completion = False
    task.clear()
    assert "success" == task.run().state
    assert 1 == len(runs_of())
    assert {} == supervisor.variables


@pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "deferred"])
def test_a_success_removes_the_variable(ingest, supervisor, deferrable):
    task = ingest(wait_for_completion=True, deferrable=deferrable, poll_interval=0.05)
    assert "success" == task.run().state
    assert {} == supervisor.variables


def test_a_trigger_that_cannot_remove_the_variable_ends_the_task(ingest, supervisor, monkeypatch):
    def refuse(_):
        raise TimeoutError

    monkeypatch.setattr(supervisor, "_on_DeleteVariable", refuse)
    assert "success" == ingest(wait_for_completion=True, deferrable=True, poll_interval=0.05).run().state


def test_callbacks_of_the_task_are_still_called(ingest, supervisor):
    called = []
    task = ingest(on_success_callback=lambda _: called.append(len(supervisor.variables)))
    assert "success" == task.run().state
    assert ([1], {}) == (called, supervisor.variables)


def test_a_skipped_task_removes_the_variable(ingest, emulator, supervisor):
    emulator.plan_outcome(status="success", records=0)
    task = ingest(wait_for_completion=True, deferrable=False, poll_interval=0.05, on_empty="skip")
    assert "skipped" == task.run().state
    assert {} == supervisor.variables


def test_a_variable_that_cannot_be_removed_does_not_fail_the_task(ingest, supervisor, monkeypatch, log):
    def refuse(_):
        raise TimeoutError

    monkeypatch.setattr(supervisor, "_on_DeleteVariable", refuse)
    assert "success" == ingest().run().state
    assert any("is no longer needed, and could not be removed" in line for line in log())


def test_a_refused_request_leaves_no_intent(ingest, emulator, runs_of, supervisor, log):
    """The retry creates the flow run at once, without a comparison."""
    emulator.plan_fault(kind="POST /runs", action="refuse", status=429, headers={"Retry-After": "1"})
    task = ingest()
    assert "up_for_retry" == task.run().state
    assert ["{}"] == list(supervisor.variables.values())
    emulator.clear_faults()
    assert "success" == task.run().state
    assert 1 == len(runs_of())
    assert not any("compared" in line or "comparing" in line for line in log())


def test_a_retry_after_an_attempt_that_sent_nothing_does_not_compare(ingest, connection, emulator, runs_of, log):
    """Without an intent, such a retry would hold a worker for `uncertain_patience`."""
    host, connection["host"] = connection["host"], "http://127.0.0.1:9"
    task = ingest(uncertain_patience=600.0)
    assert "up_for_retry" == task.run().state
    connection["host"] = host
    assert "success" == task.run().state
    assert 1 == len(runs_of())


def test_a_retry_without_a_variable_compares(ingest, runs_of, clock, supervisor):
    """An attempt that Airflow had given up may have succeeded, and removed the Variable."""
    task = ingest()
    task.run()
    clock.advance(60)
    assert {} == supervisor.variables
    assert "success" == task.run().state
    assert 1 == len(runs_of())


def test_a_clear_after_success_requests_the_window_again(ingest, runs_of, clock):
    task = ingest()
    task.run()
    clock.advance(60)
    task.clear()
    assert "success" == task.run().state
    assert 2 == len(runs_of())


def test_nothing_is_sent_if_airflow_denies_variables(ingest, emulator, runs_of, supervisor, monkeypatch):
    """The error names the setting."""
    denied = type("AirflowSecretsBackendAccessDenied", (PermissionError,), {})

    def deny(_):
        raise denied("no")

    monkeypatch.setattr(supervisor, "_on_GetVariable", deny)
    ended = ingest().run()
    assert ("up_for_retry", LedgerUnavailableError) == (ended.state, type(ended.error))
    assert "intent_store = none" in ended.error.remedy
    assert [] == runs_of()


def test_intent_store_none_uses_no_variable(ingest, supervisor, monkeypatch, log):
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__INTENT_STORE", "none")
    assert "success" == ingest().run().state
    assert not any("Variable" in type(message).__name__ for message in supervisor.sent)
    assert any("protection against double runs is reduced" in line for line in log())


def test_another_intent_store_is_an_error(ingest, runs_of, monkeypatch):
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__INTENT_STORE", "redis")
    ended = ingest().run()
    assert "failed" == ended.state
    assert isinstance(ended.error, ConfigurationError)
    assert [] == runs_of()


def test_a_creation_needs_six_messages(ingest, supervisor, monkeypatch):
    """The Variable is created, claimed, read back, completed, and removed. With task state, the number is four."""
    monkeypatch.setattr("airflow_flowservice.runs.intent_store._FRESH_S", 60.0)
    assert "success" == ingest().run().state
    kinds = [kind for message in supervisor.sent if "Variable" in (kind := type(message).__name__)]
    expected = ["GetVariable", "PutVariable", "PutVariable", "GetVariable", "PutVariable", "DeleteVariable"]
    assert expected == kinds


# --- the upgrade to Airflow 3.3 ---


@pytest.mark.needs_airflow(3, 3, "task state")
def test_after_an_upgrade_the_variable_is_moved_to_the_task_state(ingest, runs_of, supervisor, monkeypatch):
    """A retry on 3.3 finds the intent of an attempt on an earlier Airflow."""
    task = ingest(uncertain_patience=0.5)
    kill(monkeypatch, task, sent=True)
    monkeypatch.delenv("AIRFLOW__FLOWSERVICE__INTENT_STORE")
    assert 1 == len(supervisor.variables)
    task.store = True
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]
    assert {} == supervisor.variables
    assert "flowservice_intent" in supervisor.task_state


@pytest.mark.needs_airflow(3, 3, "task state")
def test_a_first_attempt_on_3_3_reads_no_variable(ingest, supervisor, monkeypatch):
    monkeypatch.delenv("AIRFLOW__FLOWSERVICE__INTENT_STORE")
    assert "success" == ingest(store=True).run().state
    assert not any("Variable" in type(message).__name__ for message in supervisor.sent)


# --- the store ---


def test_the_store_keeps_values_by_key(supervisor):
    store = VariableStore(TI, is_first=True)
    assert store.get("a") is None
    store.set("a", {"known": [1]})
    store.set("b", 2)
    assert ({"known": [1]}, 2) == (VariableStore(TI).get("a"), VariableStore(TI).get("b"))
    store.delete("a")
    store.delete("a")
    assert (None, 2) == (VariableStore(TI).get("a"), VariableStore(TI).get("b"))


def test_each_task_instance_has_a_variable(supervisor):
    """The key is a hash, and the description names the task instance."""
    others = [{**vars(TI), name: "x"} for name in ("dag_id", "run_id", "task_id")] + [{**vars(TI), "map_index": 0}]
    stores = [VariableStore(SimpleNamespace(**each)) for each in (vars(TI), *others)]
    for store in stores:
        store.set("a", 1)
    assert 5 == len(supervisor.variables)
    assert "dag/run/task/-1" in supervisor.descriptions[stores[0].key]
    assert all(store.key.startswith("flowservice.intent.") for store in stores)


@pytest.mark.parametrize("text", ["not JSON", "[1]", "1"])
def test_values_that_cannot_be_read_are_no_intent(supervisor, text):
    """The attempt then compares the dataflow's flow runs."""
    store = VariableStore(TI, is_first=True)
    supervisor.variables[store.key] = text
    assert text == store.get("flowservice_intent")
    store.set("flowservice_intent", 1)
    assert 1 == store.get("flowservice_intent")


def test_a_missing_variable_of_a_later_attempt_is_no_intent(supervisor):
    assert MISSING == VariableStore(TI).get("flowservice_intent")
    assert intent_variable.INTENT_PREFIX not in "".join(supervisor.variables)
