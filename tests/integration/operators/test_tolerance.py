"""What a task makes of a run that succeeded with failed records, or without any, in every way of waiting."""

from __future__ import annotations

import pytest
from airflow_versions import VERSION

from airflow_flowservice.exceptions import ConfigurationError, FlowRunEmptyError, FlowRunIncompleteError
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
WAYS = pytest.mark.parametrize("way", [*OPERATORS, *SENSORS])
LIMITS = pytest.mark.parametrize("limit", [{"max_failed_records": 4}, {"max_failed_ratio": 0.003}], ids=str)


@pytest.fixture
def waiting(worker, create_run):
    """A task that waits for a run, in any way."""

    def make(way, **arguments):
        if way in OPERATORS:
            ours = {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True, "poll_interval": 0.05}
            return worker.task(OnDemandFlowRunOperator, retries=2, **ours, **OPERATORS[way], **arguments)
        ours = {"flow_run_id": create_run(), "poke_interval": 0.05, "deferrable": False}
        return worker.task(FlowRunSensor, retries=2, **{**ours, **SENSORS[way], **arguments})

    return make


def to_the_end(task):
    """One attempt, with all the times that a worker takes the sensor up in reschedule mode."""
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    return ended


def pushed(task, run_id):
    """Whether everything is there that callbacks and later tasks look at."""
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
    """A retry of the operator would wait in vain, and a new run ingests the good records twice."""
    emulator.plan_outcome(status=status, failed_records=5)
    task = waiting(way, **limit)
    ended = to_the_end(task)
    [run] = runs_of()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, FlowRunIncompleteError))
    assert "5 records failed, a share of 0.00347222 (1,440 read, 1,435 written)" in error.message
    [(name, most)] = limit.items()
    assert error.message.endswith(f"over {name}, {most}")
    assert (FLOW, WINDOW, run["id"], f"{PAGE}/{run['id']}") == (
        error.flow_id,
        error.window,
        error.flow_run_id,
        error.url,
    )
    expected = "checks the same flow run again" if way in SENSORS else "the good records twice"
    assert expected in error.remedy
    assert pushed(task, run["id"])


@WAYS
def test_as_many_as_the_limits_allow_are_taken(waiting, emulator, runs_of, way):
    """In the triggerer, the task ends there; the XComs have the counts."""
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    task = waiting(way, max_failed_records=5, max_failed_ratio=0.0035, on_empty="fail")
    ended = to_the_end(task)
    [run] = runs_of()
    assert "success" == ended.state
    in_the_triggerer = VERSION >= (3, 3) and way in ("deferrable", "deferrable sensor", "start_from_trigger")
    assert in_the_triggerer == (type(ended.message).__name__ == "TaskSuccessEvent")
    assert (5, True) == (task.xcoms["flow_run"]["failed_records"], pushed(task, run["id"]))


@WAYS
@LIMITS
@pytest.mark.parametrize(("status", "state"), [("partialSuccess", "failed"), ("success", "success")])
def test_counts_that_are_not_given(waiting, emulator, log, way, limit, status, state):
    """A success is taken at its word, a partial success is not."""
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
def test_a_run_without_records_is_what_the_task_says(waiting, emulator, runs_of, log, way, on_empty, state):
    """A success, a skip with all XComs, or a failure without a retry."""
    emulator.plan_outcome(status="success", records=0)
    task = waiting(way, on_empty=on_empty)
    ended = to_the_end(task)
    [run] = runs_of()
    assert (state, True) == (ended.state, pushed(task, run["id"]))
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
def test_a_run_that_does_not_say_is_not_empty(waiting, emulator, way):
    """Unknown is not zero."""
    emulator.plan_outcome(status="success", unknown_counts=True)
    assert "success" == to_the_end(waiting(way, on_empty="fail")).state


@pytest.mark.parametrize("way", SENSORS)
def test_soft_fail_skips_on_what_the_sensor_does_not_tolerate(waiting, emulator, log, way):
    """As on every error that no retry can mend."""
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    assert "skipped" == to_the_end(waiting(way, max_failed_records=0, soft_fail=True)).state
    [reason] = [line for line in log() if "Skipping task." in line]
    assert "5 records failed" in reason


@pytest.mark.parametrize("way", OPERATORS)
def test_a_clear_after_too_many_failures_makes_a_new_run(waiting, emulator, runs_of, way):
    """As the remedy says: another attempt of the same task looks at the same run, a clear ingests again."""
    emulator.plan_outcome(status="partialSuccess", failed_records=5)
    task = waiting(way, max_failed_records=0)
    states = [task.run().state, task.run().state]
    assert (["failed", "failed"], 1) == (states, len(runs_of()))
    task.clear()
    assert ("success", 2) == (task.run().state, len(runs_of()))


def test_a_retriggered_run_is_judged_as_well(worker, create_run, emulator, clock):
    """It waits and judges as the other operator does."""
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
    ("argument", "said"),
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
def test_what_cannot_be_is_refused_when_the_dag_is_parsed(operator, argument, said):
    """Before anything runs."""
    given = {"flow_id": FLOW} if operator is OnDemandFlowRunOperator else {"flow_run_id": "run"}
    with pytest.raises(ConfigurationError) as caught:
        operator(task_id="task", **given, **argument)
    assert said == caught.value.message
