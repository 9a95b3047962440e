# SPDX-License-Identifier: Apache-2.0
"""Tests of `FlowRunSensor`, which waits for a flow run in every mode and never creates one."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunFailedError,
    FlowRunVanishedError,
    RunNotFoundError,
    UnreadableAnswerError,
)
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
PAGE = f"https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows/{FLOW}/activity"
MODES = {"poke": {"mode": "poke"}, "reschedule": {"mode": "reschedule"}, "deferrable": {"deferrable": True}}
# Each poll is a separate process.
RESCHEDULED = pytest.param("reschedule", marks=pytest.mark.needs_airflow(3, 3, "task state, which the next poll reads"))
WAYS = pytest.mark.parametrize("way", list(MODES))


@pytest.fixture
def wait(worker):
    """Return a function that makes a sensor for a flow run."""

    def make(flow_run_id, way="poke", **arguments):
        defaults = {"flow_run_id": flow_run_id, "deferrable": False, "poke_interval": 0.05, "retries": 2}
        return worker.task(FlowRunSensor, **{**defaults, **MODES[way], **arguments})

    return make


def to_the_end(task):
    """Run one attempt, in reschedule mode with all its polls."""
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    return ended


@WAYS
def test_waits_until_the_run_has_ended(wait, create_run, way):
    """In every mode, the sensor succeeds when the flow run succeeds."""
    assert "success" == to_the_end(wait(create_run(), way)).state


@WAYS
def test_the_xcoms_are_the_same_in_every_mode(wait, create_run, way):
    """The XComs are `return_value`, `flow_run` with all keys, and the addresses of the links."""
    run_id = create_run()
    task = wait(run_id, way)
    to_the_end(task)
    expected = {
        "return_value": run_id,
        "flow_run_url": f"{PAGE}/{run_id}",
        "dataflow_url": PAGE.removesuffix("/activity"),
        "flow_run": {
            "id": run_id,
            "flow_id": FLOW,
            "status": "success",
            "window_start": "2026-01-09T00:00:00Z",
            "window_end": "2026-01-10T00:00:00Z",
            "input_records": 1440,
            "output_records": 1440,
            "failed_records": 0,
            "input_bytes": 172800,
            "output_bytes": 120960,
            "input_files": 24,
            "output_files": 1,
            "updated_records": None,
            "skipped_records": None,
            "deleted_records": None,
            "failed_records_derived": False,
            "errors": [],
            "url": f"{PAGE}/{run_id}",
            "batches": [],
        },
    }
    assert expected == task.xcoms


@WAYS
def test_the_link_exists_while_the_run_continues(wait, create_run, clock, way):
    """The page is known after the first poll."""
    clock.stop()
    task = wait(create_run(), way, timeout=0.0 if way == "poke" else 60)
    task.try_number = 1
    task.step()
    assert task.xcoms["flow_run_url"].startswith(PAGE)


@WAYS
def test_a_failed_run_ends_the_sensor_at_once(wait, create_run, emulator, way):
    """A retry cannot fix a failed flow run, so the sensor is not retried; the message has the errors."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-3001-500", "message": "no batch"}])
    run_id = create_run()
    ended = to_the_end(wait(run_id, way))
    error = ended.error
    assert "failed" == ended.state
    assert isinstance(error, FlowRunFailedError)
    assert isinstance(error, versions.airflow_exception("AirflowFailException"))
    assert "the flow run ended as failed: CONNECTOR-3001-500: no batch" == error.message
    assert (FLOW, run_id, WINDOW) == (error.flow_id, error.flow_run_id, error.window)
    assert ("CONNECTOR-3001-500", f"{PAGE}/{run_id}") == (error.code, error.url)
    assert "clear the task that created the flow run" in error.remedy


@pytest.mark.parametrize("ended_before", [False, True], ids=["while it waits", "before the first poll"])
@WAYS
def test_soft_fail_skips_instead(wait, create_run, emulator, clock, way, ended_before):
    """With `soft_fail`, a failed flow run skips the task in every mode."""
    emulator.plan_outcome(status="failed")
    run_id = create_run()
    if ended_before:
        clock.advance(60)
    assert "skipped" == to_the_end(wait(run_id, way, soft_fail=True)).state


@WAYS
def test_partial_success_and_zero_records_are_successes(wait, create_run, emulator, way):
    """The XCom has the counts."""
    emulator.plan_outcome(status="partialSuccess", failed_records=3)
    emulator.plan_outcome(status="success", records=0)
    partial, empty = wait(create_run(), way), wait(create_run(task_id="create2", date=None, **YESTERDAY), way)
    assert "success" == to_the_end(partial).state
    assert ("partial_success", 3) == (partial.xcoms["flow_run"]["status"], partial.xcoms["flow_run"]["failed_records"])
    assert "success" == to_the_end(empty).state
    assert 0 == empty.xcoms["flow_run"]["input_records"]


YESTERDAY = {"window_start": "2026-01-08T00:00:00Z", "window_end": "2026-01-09T00:00:00Z"}


@pytest.mark.parametrize("way", ["poke", RESCHEDULED, "deferrable"])
def test_a_run_that_vanishes_ends_the_sensor(wait, create_run, emulator, way):
    """A 404 after a successful read, also by an earlier process, fails the task."""
    emulator.plan_outcome(vanish=True, run_s=3600)
    run_id = create_run()
    ended = to_the_end(wait(run_id, way))
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, FlowRunVanishedError))
    assert (404, "FLOW-1101-404", run_id) == (error.http_status, error.code, error.flow_run_id)
    assert error.request_id
    assert "then mark the task as success, or clear it" in error.remedy


def test_an_unknown_run_is_waited_for(wait, emulator, log):
    """A new flow run may take minutes to appear, so the first 404 is no error."""
    # A machine that pauses may poll only once in a short time.
    for number, timeout in enumerate((0.2, 8.0), start=1):
        ended = wait("11111111-2222-4333-8444-555555555555", timeout=timeout).run()
        assert ("failed", "FlowRunTimeoutError") == (ended.state, type(ended.error).__name__)
        assert number == sum("cannot be read yet" in line for line in log())
        if emulator.ledger()["requests"]["GET /runs/{id}"] > number:
            return
    pytest.fail("the sensor has not polled again")


def test_a_run_that_stays_unknown_is_an_error(wait, monkeypatch):
    """A flow run that is unknown for five minutes is an error; the remedy is to check id and sandbox."""
    monkeypatch.setattr("airflow_flowservice.runs.watch.NOT_YET_READABLE", 0.2)
    ended = wait("11111111-2222-4333-8444-555555555555").run()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, RunNotFoundError))
    assert (404, "11111111-2222-4333-8444-555555555555") == (error.http_status, error.flow_run_id)
    assert "check flow_run_id and the connection's sandbox" == error.remedy


@WAYS
def test_unreadable_responses_are_tolerated(wait, create_run, emulator, way):
    """Responses of a proxy, or of a service that is down for a short time, do not end the wait."""
    run_id = create_run()
    emulator.plan_fault(kind="GET /runs/{id}", action="answer", body="<html>Back soon</html>", times=2)
    assert "success" == to_the_end(wait(run_id, way)).state


def test_unreadable_responses_beyond_the_budget_are_an_error(wait, create_run, emulator):
    """After the error budget, the wait ends; the error has an excerpt and the request id."""
    run_id = create_run()
    emulator.plan_fault(kind="GET /runs/{id}", action="answer", body="<html>Back soon</html>")
    error = wait(run_id, error_budget=0.2).run().error
    assert isinstance(error, UnreadableAnswerError)
    assert (200, run_id) == (error.http_status, error.flow_run_id)
    assert "Back soon" in error.message
    assert error.request_id


def test_a_lost_permission_ends_the_sensor_at_once(wait, create_run, emulator):
    """Waiting does not fix a missing permission."""
    run_id = create_run()
    emulator.plan_fault(kind="GET /runs/{id}", action="refuse", status=403, code="2120", message="no")
    ended = wait(run_id).run()
    assert ("failed", 403, run_id) == (ended.state, ended.error.http_status, ended.error.flow_run_id)
    assert "product profile" in ended.error.remedy


def test_an_unknown_status_is_waited_for(wait, create_run, clock, emulator, log):
    """An unknown status is waited for until the timeout; the log states it once."""
    emulator.plan_outcome(status="MELTED")
    run_id = create_run()
    clock.advance(60)  # The first poll reads the status.
    ended = wait(run_id, timeout=0.8).run()
    assert ("failed", "FlowRunTimeoutError") == (ended.state, type(ended.error).__name__)
    assert 1 == sum("the unknown status 'MELTED'" in line for line in log())


@pytest.mark.parametrize("way", ["poke", RESCHEDULED])
def test_one_log_line_for_each_change_of_status(wait, create_run, clock, log, way):
    """The log has one line for each status, also if each poll is a separate process."""
    clock.stop()
    task = wait(create_run(), way)
    task.try_number = 1
    if way == "reschedule":
        for seconds in (0, 0, 5, 0, 0, 60):
            clock.advance(seconds)
            task.step()
    else:
        sensor, context = task.operator, {"ti": SimpleNamespace(xcom_push=lambda **_: None)}
        for seconds in (0, 0, 5, 0, 0, 60):
            clock.advance(seconds)
            sensor.poke(context)
    said = [line.split(" is ")[1].split()[0] for line in log() if "runs.watch" in line]
    assert ["scheduled", "inProgress", "success"] == said


def test_reschedule_frees_the_slot_between_polls(wait, create_run, clock):
    """Between two polls, the sensor occupies no worker slot."""
    clock.stop()
    ended = wait(create_run(), "reschedule", poke_interval=60).run()
    assert ("up_for_reschedule", "RescheduleTask") == (ended.state, type(ended.message).__name__)


def test_an_ended_run_does_not_defer_the_sensor(wait, create_run, clock):
    """The worker polls first, so the sensor defers only for a running flow run."""
    run_id = create_run()
    clock.advance(60)
    task = wait(run_id, "deferrable")
    assert ("success", []) == (task.run().state, task.triggers)


def test_the_trigger_gets_the_sensors_timeout(wait, create_run, clock):
    """Both `timeout` and `execution_timeout` limit the time in the triggerer."""
    clock.stop()
    run_id = create_run()
    limits = []
    for more in ({}, {"execution_timeout": timedelta(seconds=20)}):
        task = wait(run_id, "deferrable", timeout=60, **more)
        task.try_number = 1
        limits.append(task.step().message.trigger_timeout)
    assert [timedelta(seconds=60), timedelta(seconds=20)] == limits


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
def test_a_trigger_timeout_is_the_sensors_timeout(wait, create_run, clock, soft_fail, state):
    """As in the other modes, a timeout is final, unless `soft_fail` skips the task."""
    clock.stop()
    assert state == wait(create_run(), "deferrable", soft_fail=soft_fail, deferral_timeout=True).run().state


def test_it_accepts_the_creating_tasks_output(worker, create_run):
    """`flow_run_id=create.output` works."""
    run_id = create_run()
    template = "{{ ti.xcom_pull(task_ids='create') }}"
    task = worker.task(FlowRunSensor, flow_run_id=template, poke_interval=0.05, deferrable=False)
    assert ("success", run_id) == (task.run(create=run_id).state, task.xcoms["return_value"])


def test_a_retry_waits_for_the_same_run(wait, create_run, runs_of):
    """A sensor never creates a flow run."""
    task = wait(create_run())
    assert ["success", "success"] == [task.run().state, task.run().state]
    assert 1 == len(runs_of())


def test_a_killed_sensor_logs_that_the_run_continues(wait, log):
    """Adobe cannot cancel a flow run."""
    wait("3fb0418e-1804-45d6-8d56-dd51f05c0baf").operator.on_kill()
    assert any("Adobe cannot cancel flow run 3fb0418e-1804-45d6-8d56-dd51f05c0baf" in line for line in log())


def test_the_template_fields_are_pinned():
    """The template fields are part of the public interface."""
    assert ("flow_run_id", "flowservice_conn_id") == FlowRunSensor.template_fields


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_starting_in_the_triggerer_accepts_an_output_or_a_template():
    """The template has the map index; without it, the triggerer of Airflow 3.3.2 never returns."""
    from airflow.sdk import DAG

    with DAG("dag", schedule=None):
        create = OnDemandFlowRunOperator(task_id="create", flow_id=FLOW)
        sensor = FlowRunSensor(task_id="wait", flow_run_id=create.output, start_from_trigger=True, timeout=60)
        given = FlowRunSensor(task_id="given", flow_run_id="{{ params.run }}", start_from_trigger=True)
    assert {"create"} == sensor.upstream_task_ids
    kwargs = sensor.start_trigger_args.trigger_kwargs
    assert "{{ ti.xcom_pull(task_ids='create', key='return_value', map_indexes=-1) }}" == kwargs["flow_run_id"]
    assert (True, True) == (kwargs["ends_task"], kwargs["is_alone"])
    assert 60 == sensor.start_trigger_args.timeout.total_seconds()
    assert "{{ params.run }}" == given.start_trigger_args.trigger_kwargs["flow_run_id"]
    assert (True, True) == (sensor.deferrable, sensor.start_from_trigger)


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_starting_in_the_triggerer_reads_the_output_of_the_same_mapped_group():
    """In a mapped group, each sensor waits for the flow run that was created in its copy of the group."""
    from airflow.sdk import DAG, task_group

    @task_group
    def ingest(start):
        create = OnDemandFlowRunOperator(task_id="create", flow_id=FLOW, window_start=start, window_end=start)
        FlowRunSensor(task_id="wait", flow_run_id=create.output, start_from_trigger=True)

    with DAG("dag", schedule=None) as dag:
        ingest.expand(start=["2026-01-09T00:00:00Z"])
    kwargs = dag.get_task("ingest.wait").start_trigger_args.trigger_kwargs
    expected = "{{ ti.xcom_pull(task_ids='ingest.create', key='return_value', map_indexes=ti.map_index) }}"
    assert expected == kwargs["flow_run_id"]


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
@pytest.mark.parametrize(
    "template",
    [
        "{{ ti.xcom_pull(task_ids='create') }}",
        "{{ ti.xcom_pull('create') }}",
        "{{ task_instance.xcom_pull(task_ids='create', key='flow_run')['id'] }}",
        "{{ ti.xcom_pull(task_ids='create', map_indexes=0) or ti.xcom_pull(task_ids='other') }}",
        "{% set pull = ti.xcom_pull %}{{ pull(task_ids='create') }}",
        "{{ ti['xcom_pull'](task_ids='create') }}",
        "{{ var.value.run }}",
        "{{ macros.my_plugin.run() }}",
        "{{ my_macro(ds) }}",
        "{{ ds | my_filter }}",
        "{{ prev_data_interval_end_success }}",
        "{{ triggering_asset_events }}",
        "{{ ti.xcom_pull( }}",
    ],
)
def test_template_that_the_triggerer_cannot_render_begins_on_a_worker(template):
    """The triggerer of Airflow 3.3.2 never returns from some look-ups, and lacks the DAG file's macros."""
    sensor = FlowRunSensor(task_id="wait", flow_run_id=template, start_from_trigger=True)
    assert (True, False, None) == (sensor.deferrable, sensor.start_from_trigger, sensor.start_trigger_args)


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
@pytest.mark.parametrize(
    "template",
    [
        "3fb0418e-1804-45d6-8d56-dd51f05c0baf",
        "{{ ti.xcom_pull(task_ids='create', map_indexes=-1) }}",
        "{{ task_instance.xcom_pull(task_ids='create', key='flow_run', map_indexes=ti.map_index)['id'] }}",
        "{{ dag_run.conf['runs'][ds] | trim }}",
        "{{ params.run }}",
    ],
)
def test_template_that_the_triggerer_can_render_begins_there(template):
    """Values of the DAG run, and pulls with a map index, work in the triggerer."""
    sensor = FlowRunSensor(task_id="wait", flow_run_id=template, start_from_trigger=True)
    assert (True, template) == (sensor.start_from_trigger, sensor.start_trigger_args.trigger_kwargs["flow_run_id"])


def test_usual_template_works_with_start_from_trigger(worker, create_run, supervisor):
    """`{{ ti.xcom_pull(task_ids='create') }}` waits for the flow run of the creating task."""
    run_id = create_run()
    template = "{{ ti.xcom_pull(task_ids='create') }}"
    task = worker.task(FlowRunSensor, flow_run_id=template, start_from_trigger=True, poke_interval=0.05)
    assert "success" == task.run().state
    assert run_id == task.xcoms["return_value"]


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_starting_in_the_triggerer_keeps_the_shorter_limit():
    """`execution_timeout` also limits the wait there."""
    sensor = FlowRunSensor(
        task_id="w", flow_run_id="x", start_from_trigger=True, timeout=100, execution_timeout=timedelta(seconds=10)
    )
    assert timedelta(seconds=10) == sensor.start_trigger_args.timeout


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_starting_in_the_triggerer_is_refused_if_impossible():
    """A value that the triggerer cannot render, and a contradiction, fail when the DAG is parsed."""
    from airflow.sdk import DAG

    with DAG("dag", schedule=None):
        create = OnDemandFlowRunOperator(task_id="create", flow_id=FLOW)
        with pytest.raises(ConfigurationError, match="cannot be rendered in the triggerer"):
            FlowRunSensor(task_id="a", flow_run_id=create.output.map(str), start_from_trigger=True)
        with pytest.raises(ConfigurationError, match="exclude each other"):
            FlowRunSensor(task_id="b", flow_run_id="x", start_from_trigger=True, deferrable=False)


@pytest.mark.parametrize("flow_run_id", ["3fb0418e-1804-45d6-8d56-dd51f05c0baf", None, 5])
def test_a_mapped_sensor_begins_on_a_worker(flow_run_id):
    """The scheduler cannot start a mapped sensor in the triggerer, so a worker defers it."""
    from airflow.sdk import DAG

    with DAG("dag", schedule=None):
        mapped = FlowRunSensor.partial(task_id="wait", start_from_trigger=True).expand(flow_run_id=[flow_run_id])
    sensor = mapped.unmap({"flow_run_id": flow_run_id})
    assert mapped.start_trigger_args is None
    assert (True, False, None) == (sensor.deferrable, sensor.start_from_trigger, sensor.start_trigger_args)
    assert flow_run_id == sensor.flow_run_id


def test_a_contradiction_is_also_reported_by_a_mapped_sensor():
    """The error occurs on the worker, which makes the mapped sensor."""
    from airflow.sdk import DAG

    with DAG("dag", schedule=None):
        partial = FlowRunSensor.partial(task_id="wait", start_from_trigger=True, deferrable=False)
        mapped = partial.expand(flow_run_id=["x"])
    with pytest.raises(ConfigurationError, match="exclude each other"):
        mapped.unmap({"flow_run_id": "x"})
