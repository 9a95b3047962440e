# SPDX-License-Identifier: Apache-2.0
"""Successful runs with failed records or without records, in every way of waiting."""

from __future__ import annotations

import pytest
from airflow_versions import VERSION

from airflow_flowservice._airflow.flow_run_task import failed_records_command
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunEmptyError,
    FlowRunIncompleteError,
    FlowRunOutcomeUnknownError,
)
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
PAGE = f"https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows/{FLOW}/activity"
SENSORS = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable sensor": {"deferrable": True},
    "start_from_trigger": {"start_from_trigger": True, "deferrable": None},
}
OPERATORS = {"worker": {"deferrable": False}, "deferrable": {"deferrable": True}}
PROGRAM = "airflow flowservice" if VERSION >= (3, 2) else "python -m airflow_flowservice"
WAYS = pytest.mark.parametrize("way", [*OPERATORS, *SENSORS])
LIMITS = pytest.mark.parametrize("limit", [{"max_failed_records": 4}, {"max_failed_ratio": 0.003}], ids=str)


@pytest.fixture
def waiting(worker, create_run):
    """Return a function that creates a task that waits for a run in one of the ways."""

    def make(way, **arguments):
        if way in OPERATORS:
            ours = {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True, "poll_interval": 0.05}
            return worker.task(OnDemandFlowRunOperator, retries=2, **ours, **OPERATORS[way], **arguments)
        ours = {"flow_run_id": create_run(), "poke_interval": 0.05, "deferrable": False}
        return worker.task(FlowRunSensor, retries=2, **{**ours, **SENSORS[way], **arguments})

    return make


def to_the_end(task):
    """Run one attempt to its end, including each reschedule of the sensor."""
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    return ended


def has_xcoms(task, run_id):
    """Return whether the XComs for callbacks and downstream tasks exist."""
    xcoms = task.xcoms
    return (xcoms["return_value"], xcoms["flow_run"]["id"], xcoms["flow_run_url"]) == (
        run_id,
        run_id,
        f"{PAGE}/{run_id}",
    )


@WAYS
@LIMITS
@pytest.mark.parametrize("status", ["partialSuccess", "success"])
def test_too_many_failed_records_fail_the_task_without_a_retry(waiting, emulator, runs_of, way, limit, status):
    """A retry cannot succeed, and a new run would duplicate the good records."""
    emulator.plan_outcome(status=status, failed_records=5)
    task = waiting(way, **limit)
    ended = to_the_end(task)
    [run] = runs_of()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, FlowRunIncompleteError))
    assert "5 records failed, a share of 0.00347222 (1,440 read, 1,435 written)" in error.message
    [(name, maximum)] = limit.items()
    assert error.message.endswith(f"over {name}, {maximum}")
    assert (FLOW, WINDOW, run["id"], f"{PAGE}/{run['id']}") == (
        error.flow_id,
        error.window,
        error.flow_run_id,
        error.url,
    )
    expected = "checks the same flow run again" if way in SENSORS else "the valid records are duplicated"
    assert expected in error.remedy
    assert has_xcoms(task, run["id"])


@WAYS
def test_failed_records_within_the_limits_are_accepted(waiting, emulator, runs_of, way):
    """A deferred task ends in the triggerer; the XComs have the counts."""
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    task = waiting(way, max_failed_records=5, max_failed_ratio=0.0035, on_empty="fail")
    ended = to_the_end(task)
    [run] = runs_of()
    assert "success" == ended.state
    in_the_triggerer = VERSION >= (3, 3) and way in ("deferrable", "deferrable sensor", "start_from_trigger")
    assert in_the_triggerer == (type(ended.message).__name__ == "TaskSuccessEvent")
    assert (5, True) == (task.xcoms["flow_run"]["failed_records"], has_xcoms(task, run["id"]))


@WAYS
@LIMITS
@pytest.mark.parametrize(("status", "state"), [("partialSuccess", "failed"), ("success", "success")])
def test_unknown_counts(waiting, emulator, log, way, limit, status, state):
    """A success is accepted, a partial success is not."""
    emulator.plan_outcome(status=status, unknown_counts=True)
    ended = to_the_end(waiting(way, **limit))
    assert state == ended.state
    if state == "failed":
        assert isinstance(ended.error, FlowRunIncompleteError)
        assert "does not report how many records failed, so it is not known" in ended.error.message
    else:
        assert any("does not report how many records failed; assuming that" in line for line in log())


@WAYS
@pytest.mark.parametrize(("on_empty", "state"), [("succeed", "success"), ("skip", "skipped"), ("fail", "failed")])
def test_on_empty(waiting, emulator, runs_of, log, way, on_empty, state):
    """The task succeeds, is skipped with all XComs, or fails without a retry."""
    emulator.plan_outcome(status="success", records=0)
    task = waiting(way, on_empty=on_empty)
    ended = to_the_end(task)
    [run] = runs_of()
    assert (state, True) == (ended.state, has_xcoms(task, run["id"]))
    assert 0 == task.xcoms["flow_run"]["input_records"]
    reasons = [line for line in log() if "Skipping task." in line]
    assert (on_empty == "skip") == (1 == len(reasons))
    if on_empty == "skip":
        assert f"succeeded without any records (flow {FLOW}, window {WINDOW}, flow run {run['id']}" in reasons[0]
    if on_empty == "fail":
        assert isinstance(ended.error, FlowRunEmptyError)
        expected = "clear the task that created the flow run" if way in SENSORS else "creates a new run for the window"
        assert expected in ended.error.remedy


@WAYS
def test_run_with_unknown_counts_is_not_empty(waiting, emulator, way):
    emulator.plan_outcome(status="success", unknown_counts=True)
    assert "success" == to_the_end(waiting(way, on_empty="fail")).state


@pytest.mark.slow
@WAYS
def test_run_that_ends_without_a_status(waiting, emulator, runs_of, way):
    """The outcome is unknown: it is neither accepted nor skipped, and the wait ends within seconds."""
    emulator.plan_outcome(status="success", status_place="nowhere")
    ended = to_the_end(waiting(way, **({"soft_fail": True} if way in SENSORS else {"on_empty": "skip"})))
    assert ("up_for_retry", FlowRunOutcomeUnknownError) == (ended.state, ended.error.__class__)
    assert ("the task that created the flow run" in ended.error.remedy) == (way in SENSORS)
    assert 1 == len(runs_of())


@WAYS
def test_derived_count_of_failed_records(waiting, emulator, way):
    """Without a count of failed records, the limit applies to the records that are in no other count."""
    counts = {"failedRecordCount": None, "outputRecordCount": 1435, "createdRecordCount": 1435}
    emulator.plan_outcome(status="success", record_summary=counts)
    task = waiting(way, max_failed_records=4)
    assert "5 records failed (derived from the other counts)" in to_the_end(task).error.message
    assert (5, True) == (task.xcoms["flow_run"]["failed_records"], task.xcoms["flow_run"]["failed_records_derived"])


@pytest.mark.parametrize("way", SENSORS)
def test_soft_fail_skips_if_too_many_records_failed(waiting, emulator, log, way):
    """The same applies to every error that a retry cannot fix."""
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    assert "skipped" == to_the_end(waiting(way, max_failed_records=0, soft_fail=True)).state
    [reason] = [line for line in log() if "Skipping task." in line]
    assert "5 records failed" in reason


@pytest.mark.parametrize("way", OPERATORS)
def test_clear_after_too_many_failures_creates_a_new_run(waiting, emulator, runs_of, way):
    """A retry reads the same run; a cleared task ingests the window again."""
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    task = waiting(way, max_failed_records=0)
    states = [task.run().state, task.run().state]
    assert (["failed", "failed"], 1) == (states, len(runs_of()))
    task.clear()
    assert ("success", 2) == (task.run().state, len(runs_of()))


def test_limits_apply_to_a_retriggered_run(worker, create_run, emulator, clock):
    """Both operators accept and refuse the same runs."""
    emulator.plan_outcome(status="failed")
    failed = create_run()
    clock.advance(60)
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    task = worker.task(
        RetriggerFlowRunOperator,
        flow_run_id=failed,
        wait_for_completion=True,
        deferrable=False,
        poll_interval=0.05,
        max_failed_records=0,
        retries=2,
    )
    ended = task.run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, FlowRunIncompleteError))


@pytest.mark.parametrize("operator", [OnDemandFlowRunOperator, RetriggerFlowRunOperator, FlowRunSensor])
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"max_failed_records": -1}, "max_failed_records is -1"),
        ({"max_failed_records": 2.5}, "max_failed_records is 2.5"),
        ({"max_failed_records": True}, "max_failed_records is True"),
        ({"max_failed_ratio": -0.1}, "max_failed_ratio is -0.1"),
        ({"max_failed_ratio": 5}, "max_failed_ratio is 5"),
        ({"max_failed_ratio": float("nan")}, "max_failed_ratio is nan"),
        ({"max_failed_ratio": "0.1"}, "max_failed_ratio is '0.1'"),
        ({"on_empty": "ignore"}, "on_empty is 'ignore'"),
        ({"on_empty": None}, "on_empty is None"),
    ],
    ids=str,
)
def test_invalid_limits_are_refused_when_the_dag_is_parsed(operator, argument, message):
    given = {"flow_id": FLOW} if operator is OnDemandFlowRunOperator else {"flow_run_id": "run"}
    with pytest.raises(ConfigurationError) as caught:
        operator(task_id="task", **given, **argument)
    assert message == caught.value.message


@WAYS
@pytest.mark.parametrize("status", ["failed", "partialSuccess"])
def test_message_names_the_command_for_failed_rows(waiting, emulator, runs_of, way, status):
    """The failed task's message ends with the command; the XComs contain no row."""
    emulator.plan_outcome(status=status, row_errors=[{"code": "MAPPER-3700-400", "message": "no"}])
    task = waiting(way, max_failed_records=0)
    ended = to_the_end(task)
    [run] = runs_of()
    command = f"failed-records --flow-run-id {run['id']} --conn-id flowservice_default"
    assert str(ended.error).endswith(f"To see which rows failed, and why, run: {PROGRAM} {command}")
    assert "n/a" not in str(task.xcoms)


def test_command_is_quoted():
    """A shell runs nothing else, whatever the ids contain."""
    command = failed_records_command("run; rm -r x", conn_id="$(id)")
    assert f"{PROGRAM} failed-records --flow-run-id 'run; rm -r x' --conn-id '$(id)'" == command
