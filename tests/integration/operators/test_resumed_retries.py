# SPDX-License-Identifier: Apache-2.0
"""Retries on Airflow before 3.1.1, which resumes a retry where the failed attempt was deferred.

Without a check, each retry would fail at once with the event of the first attempt.
"""

from __future__ import annotations

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice._airflow.flow_run_task import FlowRunTaskMixin
from airflow_flowservice.exceptions import FlowRunTimeoutError
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WAITS = {"wait_for_completion": True, "deferrable": True, "poll_interval": 0.05, "retries": 3}


@pytest.fixture
def task(worker, emulator, monkeypatch):
    """Return a function that makes a task of such an Airflow, which also keeps no task state."""
    monkeypatch.setattr(versions, "retries_resume_after_deferral", lambda: True)
    monkeypatch.setattr(FlowRunTaskMixin, "_can_end_in_triggerer", lambda _: False)

    def make(operator, **arguments):
        made = worker.task(operator, store=False, **arguments)
        made.keeps_method = True
        return made

    return make


def test_a_failed_run_is_followed_by_a_new_one(task, emulator, runs_of):
    """Each retry creates a flow run until one succeeds."""
    emulator.plan_outcome(status="failed", times=2)
    ingest = task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", uncertain_patience=0.2, **WAITS)
    assert ["up_for_retry", "up_for_retry", "success"] == [ingest.run().state for _ in range(3)]
    assert ["failed", "failed", "success"] == [run["status"] for run in runs_of()]
    assert runs_of()[-1]["id"] == ingest.xcoms["return_value"]


def test_a_retry_after_a_time_limit_continues_to_wait(task, runs_of, clock):
    """The retry waits for the same flow run, which continues."""
    clock.stop()  # the flow run must not end before the last attempt
    arguments = {"flow_id": FLOW, "delta_column": "updated_at", "wait_timeout": 60, **WAITS}
    ingest = task(OnDemandFlowRunOperator, deferral_timeout=True, **arguments)
    for _ in range(2):
        ended = ingest.run()
        assert ("up_for_retry", FlowRunTimeoutError) == (ended.state, type(ended.error))
    ingest.deferral_timeout = False
    clock.set(speed=20.0)
    assert "success" == ingest.run().state
    assert ["success"] == [run["status"] for run in runs_of()]


def test_a_repeated_run_that_fails_is_repeated_again(task, emulator, runs_of, create_run, wait_for_end):
    """The next retry repeats the flow run again."""
    emulator.plan_outcome(status="failed", times=2)
    first = create_run()
    wait_for_end(first)
    again = task(RetriggerFlowRunOperator, flow_run_id=first, uncertain_patience=0.2, **WAITS)
    assert ["up_for_retry", "success"] == [again.run().state for _ in range(2)]
    assert ["failed", "failed", "success"] == [run["status"] for run in runs_of()]


def test_a_retry_of_the_sensor_waits_again(task, emulator, create_run):
    """A retry after the error budget is exceeded waits for the same flow run."""
    emulator.plan_outcome(status="success", run_s=40)
    wait = task(
        FlowRunSensor, flow_run_id=create_run(), deferrable=True, poke_interval=0.05, retries=3, error_budget=0.3
    )
    emulator.plan_fault(kind="GET /runs", action="answer", status=503, body="no")
    assert "up_for_retry" == wait.run().state
    emulator.clear_faults()
    assert "success" == wait.run().state


def test_the_first_attempt_is_resumed(task, emulator, runs_of):
    """The event of the first attempt ends it; the task does not start again."""
    ingest = task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", **WAITS)
    assert "success" == ingest.run().state
    assert 1 == len(runs_of())


def test_an_attempt_that_resumes_under_another_number_ends_with_its_run(task, emulator, runs_of):
    """A success event ends the attempt, also after tries that the executor counted but never started (3.0.6)."""
    emulator.plan_fault(kind="*", action="hide_windows")
    ingest = task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", uncertain_patience=0.2, **WAITS)
    ingest.try_number = 1
    deferred = ingest.step().message
    event = ingest.trigger(deferred).payload
    ingest.try_number = 2
    assert "success" == ingest.step(deferred.next_method, {"event": event}).state
    assert ["success"] == [run["status"] for run in runs_of()]


def test_a_clear_starts_again(task, emulator, runs_of):
    """After a clear, the task starts from the beginning."""
    ingest = task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", **WAITS)
    ingest.run()
    ingest.clear()
    assert "success" == ingest.run().state
    assert 2 == len(runs_of())
