# SPDX-License-Identifier: Apache-2.0
"""Tests of `RetriggerFlowRunOperator`, which repeats a flow run once."""

from __future__ import annotations

import pytest

from airflow_flowservice.exceptions import FlowRunFailedError, RetriggerNotYetError, RunNotFoundError, ServerError
from airflow_flowservice.operators import RetriggerFlowRunOperator
from airflow_flowservice.runs import ledger_intents

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "in the triggerer"])


@pytest.fixture
def failed_run(create_run, emulator, clock):
    """Return the id of a failed flow run."""
    emulator.plan_outcome(status="failed")
    run_id = create_run()
    clock.advance(60)
    return run_id


@pytest.fixture
def again(worker):
    """Return a function that makes a task that repeats a flow run."""

    def make(flow_run_id, **arguments):
        defaults = {"deferrable": False, "poll_interval": 0.05, "retries": 2, "uncertain_patience": 1.0}
        return worker.task(RetriggerFlowRunOperator, flow_run_id=flow_run_id, **{**defaults, **arguments})

    return make


@WAYS
def test_the_new_run_is_recorded_after_an_error_of_the_ledger(
    again, failed_run, runs_of, supervisor, monkeypatch, deferrable
):
    """The ledger cannot be written after the POST. Without an entry, a new DAG run would ingest the window again."""
    record, calls = ledger_intents.record_repetition, []

    def fail_first(*args, **options):
        calls.append(options)
        return len(calls) > 1 and record(*args, **options)

    monkeypatch.setattr(ledger_intents, "record_repetition", fail_first)
    assert "success" == again(failed_run, wait_for_completion=True, deferrable=deferrable).run().state
    _, new = runs_of()
    texts = [str(value) for key, value in supervisor.variables.items() if key.startswith("flowservice.ledger.")]
    assert 1 == len(texts)
    assert new["id"] in texts[0]
    assert "ingested" in texts[0]


@WAYS
def test_the_new_run_has_the_same_window(again, failed_run, runs_of, deferrable):
    """A re-trigger creates a new flow run of the same window, and returns its id."""
    task = again(failed_run, wait_for_completion=True, deferrable=deferrable)
    assert "success" == task.run().state
    old, new = runs_of()
    assert (failed_run, failed_run) == (old["id"], new["parent_flow_run_id"])
    assert (old["window_start"], old["window_end"]) == (new["window_start"], new["window_end"])
    found = task.xcoms["flow_run"]
    assert (new["id"], new["id"], FLOW, "success") == (
        task.xcoms["return_value"],
        found["id"],
        found["flow_id"],
        found["status"],
    )
    assert WINDOW == f"{found['window_start']}/{found['window_end']}"


def test_without_waiting_the_task_ends_when_the_run_exists(again, failed_run, runs_of):
    """Without `wait_for_completion`, the task ends when the new flow run exists."""
    task = again(failed_run)
    assert "success" == task.run().state
    assert runs_of()[1]["id"] == task.xcoms["return_value"]


@pytest.mark.parametrize("action", ["record_and_close", "record_and_status", "record_and_half_body"])
def test_a_lost_response_does_not_create_a_second_run(again, failed_run, emulator, runs_of, action):
    """The new flow run is found by its parent."""
    emulator.plan_fault(kind="POST /runs/{id}/action", action=action, nth=1)
    task = again(failed_run)
    assert "success" == task.run().state
    assert [failed_run, task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


def test_a_retry_resumes_its_run(again, failed_run, runs_of):
    """A second attempt creates no further flow run."""
    task = again(failed_run)
    task.run()
    assert "success" == task.run().state
    assert 2 == len(runs_of())


def test_the_errors_of_the_new_run_are_shown(again, failed_run, emulator):
    """The message has the errors of the new flow run."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "still no"}])
    ended = again(failed_run, wait_for_completion=True).run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunFailedError))
    assert "CONNECTOR-1001-500: still no" in ended.error.message
    assert (FLOW, WINDOW) == (ended.error.flow_id, ended.error.window)


def test_a_run_that_cannot_be_repeated(again, create_run, clock, runs_of):
    """Error 1387, a success with records: Adobe says to try again, and the remedy names the other operator."""
    run_id = create_run()
    clock.advance(60)
    ended = again(run_id).run()
    error = ended.error
    assert ("up_for_retry", True) == (ended.state, isinstance(error, RetriggerNotYetError))
    assert (400, "FLOW-1387-400", FLOW, WINDOW, run_id) == (
        error.http_status,
        error.code,
        error.flow_id,
        error.window,
        error.flow_run_id,
    )
    assert error.request_id
    assert "OnDemandFlowRunOperator" in error.remedy
    assert 1 == len(runs_of())


def test_an_unknown_run(again, emulator):
    """Error 404: the remedy is to check id and sandbox; nothing is sent."""
    ended = again("11111111-2222-4333-8444-555555555555").run()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, RunNotFoundError))
    assert (404, "11111111-2222-4333-8444-555555555555") == (error.http_status, error.flow_run_id)
    assert "check flow_run_id and the connection's sandbox" == error.remedy
    assert "POST /runs/{id}/action" not in emulator.ledger()["requests"]


def test_the_template_fields_are_pinned():
    """The template fields are part of the public interface."""
    assert ("flow_run_id", "flowservice_conn_id") == RetriggerFlowRunOperator.template_fields


def test_first_read_has_the_error_budget(again, failed_run, emulator, connection, runs_of):
    """A 503 of the run to repeat does not fail the task."""
    connection["extra"]["max_attempts"] = 1
    emulator.plan_fault(kind="GET /runs/{id}", action="refuse", status=503, times=3)
    assert "success" == again(failed_run).run().state
    assert 2 == len(runs_of())


@pytest.mark.parametrize("limit", ["error_budget", "wait_timeout"])
def test_first_read_ends_with_its_budget(again, failed_run, emulator, connection, limit, runs_of):
    """After the budget, the task fails, and can be retried; nothing is created."""
    connection["extra"]["max_attempts"] = 1
    emulator.plan_fault(kind="GET /runs/{id}", action="refuse", status=503)
    ended = again(failed_run, **{limit: 0.3}).run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, ServerError))
    assert failed_run == ended.error.flow_run_id
    assert 1 == len(runs_of())
