"""`RetriggerFlowRunOperator`: starts a run again, once, and waits in the same ways."""

from __future__ import annotations

import pytest

from airflow_flowservice.exceptions import FlowRunFailedError, RetriggerRefusedError, RunNotFoundError
from airflow_flowservice.operators import RetriggerFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "in the triggerer"])


@pytest.fixture
def failed_run(create_run, emulator, clock):
    """A run that has failed."""
    emulator.plan_outcome(status="failed")
    run_id = create_run()
    clock.advance(60)
    return run_id


@pytest.fixture
def again(worker):
    """The task that starts it again."""

    def make(flow_run_id, **arguments):
        defaults = {"deferrable": False, "poll_interval": 0.05, "retries": 2, "uncertain_patience": 1.0}
        return worker.task(RetriggerFlowRunOperator, flow_run_id=flow_run_id, **{**defaults, **arguments})

    return make


@WAYS
def test_the_new_run_has_the_old_ones_window(again, failed_run, runs_of, deferrable):
    """Re-triggering makes a new run of the same window, and its id is the result."""
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
    """As with the other operator, a sensor may do the waiting."""
    task = again(failed_run)
    assert "success" == task.run().state
    assert runs_of()[1]["id"] == task.xcoms["return_value"]


@pytest.mark.parametrize("action", ["record_and_close", "record_and_status", "record_and_half_body"])
def test_a_lost_answer_makes_no_second_run(again, failed_run, emulator, runs_of, action):
    """The new run is known by its parent."""
    emulator.plan_fault(kind="POST /runs/{id}/action", action=action, nth=1)
    task = again(failed_run)
    assert "success" == task.run().state
    assert [failed_run, task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


def test_a_retry_goes_on_with_the_run_it_has(again, failed_run, runs_of):
    """One run for one task, however often it is started."""
    task = again(failed_run)
    task.run()
    assert "success" == task.run().state
    assert 2 == len(runs_of())


def test_a_run_that_failed_again_says_why(again, failed_run, emulator):
    """The new run's own errors are in the message."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "still no"}])
    ended = again(failed_run, wait_for_completion=True).run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunFailedError))
    assert "CONNECTOR-1001-500: still no" in ended.error.message
    assert (FLOW, WINDOW) == (ended.error.flow_id, ended.error.window)


def test_a_run_that_cannot_be_started_again(again, create_run, clock, runs_of):
    """1387: a success with records; the remedy names the other operator."""
    run_id = create_run()
    clock.advance(60)
    ended = again(run_id).run()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, RetriggerRefusedError))
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
    """404: the remedy is to check id and sandbox; nothing is posted."""
    ended = again("11111111-2222-4333-8444-555555555555").run()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, RunNotFoundError))
    assert (404, "11111111-2222-4333-8444-555555555555") == (error.http_status, error.flow_run_id)
    assert "check flow_run_id and the connection's sandbox" == error.remedy
    assert "POST /runs/{id}/action" not in emulator.ledger()["requests"]


def test_the_template_fields_are_pinned():
    """What can be templated is part of the interface."""
    assert ("flow_run_id",) == RetriggerFlowRunOperator.template_fields
