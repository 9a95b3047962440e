# SPDX-License-Identifier: Apache-2.0
"""`wait_for_batch`: a success counts only when the batch has succeeded in the catalogue, in every way of waiting."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow_versions import VERSION

from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunBatchFailedError,
    FlowRunFailedError,
    FlowRunTimeoutError,
)
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

PROGRAM = "airflow flowservice" if VERSION >= (3, 2) else "python -m airflow_flowservice"
FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
SENSORS = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable sensor": {"deferrable": True},
    "start_from_trigger": {"start_from_trigger": True, "deferrable": None},
}
OPERATORS = {"worker": {"deferrable": False}, "deferrable": {"deferrable": True}}
WAYS = pytest.mark.parametrize("way", [*OPERATORS, *SENSORS])
READ_BATCHES = "GET /batches/{ids}"
BAD_ROWS = {"code": "INGEST-1212-400", "description": "1,440 rows have errors", "recordCount": 1440}


@pytest.fixture
def waiting(worker, create_run):
    """Return a function that creates a task that waits for a run and its batch in one of the ways."""

    def make(way, **arguments):
        arguments = {"wait_for_batch": True, **arguments}
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


@pytest.mark.parametrize(
    ("way", "word"),
    [
        *((way, "staging") for way in (*OPERATORS, *SENSORS)),
        *((way, word) for way in OPERATORS for word in ("retrying", "stalled", "molten")),
    ],
)
def test_the_task_waits_for_the_batch(waiting, emulator, way, word):
    """At the end of the task, the records are ingested, and the XCom has the batch."""
    emulator.plan_outcome(batch_in_progress_status=word, batch_s=6.0)
    task = waiting(way)
    assert "success" == to_the_end(task).state
    assert 1440 == emulator.ledger(FLOW)["ingested"]
    [batch] = task.xcoms["flow_run"]["batches"]
    assert ("success", 1440, 0, 5, []) == (
        batch["status"],
        batch["output_records"],
        batch["failed_records"],
        batch["threshold_percent"],
        batch["errors"],
    )


@WAYS
def test_without_wait_for_batch_the_catalogue_is_not_read(waiting, emulator, way):
    """The default accepts the flow run's own success."""
    emulator.plan_outcome(batch_status="failed")
    task = waiting(way, wait_for_batch=False)
    assert "success" == to_the_end(task).state
    assert [] == task.xcoms["flow_run"]["batches"]
    assert READ_BATCHES not in emulator.ledger()["requests"]


@WAYS
@pytest.mark.parametrize("word", ["failed", "aborted"])
def test_a_failed_batch_fails_the_task(waiting, emulator, way, word):
    """The error has the batch's own errors. A sensor cannot succeed in a retry; an operator creates a new run."""
    emulator.plan_outcome(batch_status=word, batch_s=2.0, batch_errors=[BAD_ROWS])
    task = waiting(way)
    ended = to_the_end(task)
    assert ("failed" if way in SENSORS else "up_for_retry") == ended.state
    assert isinstance(ended.error, FlowRunBatchFailedError)
    assert f" is {word}, 1,440 records written, 0 records failed, error threshold 5 %: " in ended.error.message
    assert "INGEST-1212-400: 1,440 rows have errors (1,440 records)" in ended.error.message
    assert ("INGEST-1212-400", FLOW) == (ended.error.code, ended.error.flow_id)
    expected = "clear the task that created the flow run" if way in SENSORS else "a retry or a clear creates a new run"
    assert expected in ended.error.remedy
    flow_run = task.xcoms["flow_run"]
    assert ("failed", word) == (flow_run["status"], flow_run["batches"][0]["status"])


@pytest.mark.parametrize("way", OPERATORS)
@pytest.mark.parametrize("store", [pytest.param(True, marks=pytest.mark.needs_airflow(3, 3, "task state")), False])
def test_a_retry_creates_a_new_run_after_a_failed_batch(waiting, emulator, runs_of, way, store):
    """Nothing was ingested, so the new run duplicates nothing."""
    emulator.plan_outcome(batch_status="failed")
    task = waiting(way, store=store, uncertain_patience=1.0)
    assert "up_for_retry" == to_the_end(task).state
    assert "success" == to_the_end(task).state
    assert 2 == len(runs_of())
    ledger = emulator.ledger(FLOW)
    assert (1440, 0) == (ledger["ingested"], ledger["duplicated"])


@pytest.mark.parametrize("way", OPERATORS)
@pytest.mark.needs_airflow(3, 3, "task state")
def test_a_retry_waits_for_a_batch_that_has_not_ended(waiting, emulator, clock, runs_of, way):
    """If a time limit ends the wait for a batch, the next attempt creates no second run."""
    emulator.plan_outcome(batch_s=4000.0)
    task = waiting(way, wait_timeout=2.0, deferral_timeout=way == "deferrable")
    ended = to_the_end(task)
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError)), ended
    task.deferral_timeout = False
    task.operator.wait_timeout = 60.0
    clock.advance(4000)
    assert "success" == to_the_end(task).state
    assert 1 == len(runs_of())


@pytest.mark.needs_airflow(3, 3, "task state")
def test_a_retry_does_not_create_a_run_if_the_catalogue_is_down(waiting, emulator, runs_of):
    """The verdict is unknown, so the run counts as a success, and its batch is waited for."""
    emulator.plan_outcome(batch_s=200.0)
    emulator.plan_fault(kind=READ_BATCHES, action="refuse", status=400)
    task = waiting("worker")
    assert [to_the_end(task).state for _ in range(2)] in (["failed"] * 2, ["up_for_retry"] * 2)
    assert 1 == len(runs_of())


def test_a_hidden_batch_is_waited_for(waiting, emulator):
    """The catalogue may show a batch some minutes after the run shows its id."""
    emulator.plan_outcome(batch_hidden_s=4.0)
    assert "success" == to_the_end(waiting("worker")).state


@pytest.mark.slow
@WAYS
def test_errors_of_the_catalogue_have_the_error_budget(waiting, emulator, way):
    """A short outage does not fail the task."""
    emulator.plan_fault(kind=READ_BATCHES, action="refuse", status=503, times=7)
    assert "success" == to_the_end(waiting(way)).state


def test_missing_permission_names_the_permission(waiting, emulator):
    emulator.plan_fault(kind=READ_BATCHES, action="refuse", status=403)
    ended = to_the_end(waiting("worker"))
    assert ("failed", True) == (ended.state, "'View Datasets'" in ended.error.remedy)


@WAYS
def test_a_run_without_records_has_no_batch(waiting, emulator, way):
    emulator.plan_outcome(status="success", records=0)
    assert "success" == to_the_end(waiting(way)).state
    assert READ_BATCHES not in emulator.ledger()["requests"]


def test_retrigger_waits_for_the_batch(worker, create_run, emulator, wait_for_end):
    """The operators share the waiting."""
    emulator.plan_outcome(status="failed")
    failed = create_run()
    wait_for_end(failed)
    emulator.plan_outcome(batch_status="failed")
    ours = {"wait_for_completion": True, "wait_for_batch": True, "poll_interval": 0.05, "deferrable": False}
    ended = worker.task(RetriggerFlowRunOperator, flow_run_id=failed, **ours).run()
    assert isinstance(ended.error, FlowRunBatchFailedError)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_invalid_value_is_refused_when_the_dag_is_parsed(worker, value):
    with pytest.raises(ConfigurationError, match="wait_for_batch is"):
        worker.task(OnDemandFlowRunOperator, flow_id=FLOW, wait_for_batch=value)
    with pytest.raises(ConfigurationError, match="wait_for_batch is"):
        worker.task(FlowRunSensor, flow_run_id="run", wait_for_batch=value)


@pytest.mark.needs_airflow(3, 3, "starts in the triggerer")
@pytest.mark.parametrize("wait_for_batch", [True, False])
def test_trigger_argument_is_omitted_at_its_default(worker, wait_for_batch):
    """A triggerer of an earlier version does not know it."""
    task = worker.task(FlowRunSensor, flow_run_id="run", start_from_trigger=True, wait_for_batch=wait_for_batch)
    arguments = task.operator.start_trigger_args.trigger_kwargs
    assert wait_for_batch is ("wait_for_batch" in arguments)


@WAYS
def test_a_copy_error_names_the_command_that_tests_the_source(waiting, emulator, way):
    """Expired credentials of the source are the most frequent cause."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "login failed"}])
    error = to_the_end(waiting(way, execution_timeout=timedelta(seconds=60))).error
    assert isinstance(error, FlowRunFailedError)
    assert f"`{PROGRAM} check --conn-id flowservice_default --flow-id {FLOW}`" in error.remedy
    assert ("repeat the flow run" if way in SENSORS else "a retry or a clear creates a new run") in error.remedy


@pytest.mark.parametrize("code", ["CONNECTOR-2001-500", "X"])
def test_other_errors_do_not_name_the_command(waiting, emulator, code):
    emulator.plan_outcome(status="failed", errors=[{"code": code, "message": "no"}])
    assert "flowservice check" not in to_the_end(waiting("worker")).error.remedy
