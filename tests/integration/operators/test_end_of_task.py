# SPDX-License-Identifier: Apache-2.0
"""End of a deferred task: what Airflow does only on a worker is done for each task that needs it.

The table in docs/waiting.md has the steps of Airflow's task runner.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import pytest
from airflow_versions import DagSerialization

from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor
from airflow_flowservice.triggers import FlowRunTrigger

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
STARTS_IN_TRIGGERER = pytest.mark.needs_airflow(3, 3, "tasks that start in the triggerer")


class Recording:
    """Record of the calls of a subclass's methods."""

    calls: ClassVar[list[str]]

    def record(self, name: str) -> None:
        self.calls.append(name)


class WithExecuteComplete(OnDemandFlowRunOperator, Recording):
    calls: ClassVar[list[str]] = []

    def execute_complete(self, context, event):
        self.record("execute_complete")
        return super().execute_complete(context, event)


class WithPostExecute(OnDemandFlowRunOperator, Recording):
    calls: ClassVar[list[str]] = []

    def post_execute(self, context, result=None):
        self.record("post_execute")


class WithResume(OnDemandFlowRunOperator, Recording):
    calls: ClassVar[list[str]] = []

    def resume_execution(self, next_method, next_kwargs, context):
        self.record("resume_execution")
        return super().resume_execution(next_method, next_kwargs, context)


class SensorWithExecuteComplete(FlowRunSensor, Recording):
    calls: ClassVar[list[str]] = []

    def execute_complete(self, context, event):
        self.record("execute_complete")
        return super().execute_complete(context, event)


@pytest.fixture
def deferred(worker):
    """Return a function that makes a deferrable operator that waits."""

    def make(operator=OnDemandFlowRunOperator, **arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True, "deferrable": True}
        return worker.task(operator, **{**defaults, "poll_interval": 0.05, **arguments})

    return make


@pytest.fixture
def sensor(worker, create_run):
    """Return a function that makes a deferrable sensor of a new flow run."""

    def make(operator=FlowRunSensor, **arguments):
        defaults = {"flow_run_id": create_run(), "deferrable": True, "poke_interval": 0.05}
        return worker.task(operator, **{**defaults, **arguments})

    return make


def mapped(operator, *, over):
    """Return a function that makes a mapped task, for `worker.task`."""

    def make(*, dag, task_id, **arguments):
        with dag:
            return operator.partial(task_id=task_id, **arguments).expand_kwargs([over])

    return make


def test_success_callback_of_an_operator_is_called(deferred):
    """A deferrable operator calls `on_success_callback` with its context."""
    called = []
    ended = deferred(on_success_callback=lambda context: called.append(context["ti"].task_id)).run()
    assert ("SucceedTask", ["task"]) == (type(ended.message).__name__, called)


def test_success_callback_of_default_args_is_called(deferred):
    """`default_args` of the DAG are the task's arguments."""
    called = []
    arguments = {"default_args": {"on_success_callback": [called.append]}}
    assert "success" == deferred(dag_settings=arguments).run().state
    assert 1 == len(called)


def test_success_callback_of_a_sensor_is_called(sensor):
    """A deferrable sensor calls `on_success_callback`."""
    called = []
    assert "SucceedTask" == type(sensor(on_success_callback=called.append).run().message).__name__
    assert 1 == len(called)


@pytest.fixture
def mapped_task(worker, emulator):
    """Return a function that makes a deferrable task, mapped over the window of 5 January 2026."""

    def make(**arguments):
        over = {"window_start": "2026-01-05T00:00:00Z", "window_end": "2026-01-06T00:00:00Z"}
        return worker.task(
            mapped(OnDemandFlowRunOperator, over=over),
            map_index=0,
            flow_id=FLOW,
            delta_column="updated_at",
            wait_for_completion=True,
            deferrable=True,
            poll_interval=0.05,
            **arguments,
        )

    return make


def test_success_callback_of_a_mapped_task_is_called(mapped_task):
    """A mapped deferrable task calls `on_success_callback`."""
    called = []
    task = mapped_task(on_success_callback=called.append)
    assert ("success", 1) == (task.run().state, len(called))


def test_map_index_template_is_rendered_at_the_end(mapped_task):
    """The template shows values that the task has only when its flow run has ended."""
    task = mapped_task(map_index_template="{{ task.window_start }} {{ task.flow_run_summary.status }}")
    assert "2026-01-05T00:00:00Z success" == task.run().message.rendered_map_index


@pytest.mark.parametrize("operator", [WithExecuteComplete, WithPostExecute, WithResume], ids=lambda each: each.__name__)
def test_method_of_a_subclass_is_called(deferred, operator):
    """An overridden `execute_complete`, `resume_execution` or `post_execute` runs."""
    operator.calls.clear()
    assert "success" == deferred(operator).run().state
    assert 1 == len(operator.calls)


def test_method_of_a_sensor_subclass_is_called(sensor):
    """An overridden `execute_complete` of a sensor runs."""
    SensorWithExecuteComplete.calls.clear()
    assert "success" == sensor(SensorWithExecuteComplete).run().state
    assert ["execute_complete"] == SensorWithExecuteComplete.calls


def test_post_execute_argument_is_called(deferred):
    """The operator's argument `post_execute` runs."""
    called = []
    assert "success" == deferred(post_execute=lambda context, result: called.append(result)).run().state
    assert 1 == len(called)


def test_method_set_on_the_task_is_called(deferred):
    """A method that a cluster policy sets on the task runs."""
    task, called = deferred(), []
    task.operator.post_execute = lambda context, result=None: called.append("policy")
    assert "success" == task.run().state
    assert ["policy"] == called


def test_multiple_outputs_are_refused_as_on_a_worker(deferred):
    """The result is text, so Airflow refuses `multiple_outputs`, and must also do so if the task deferred."""
    ended = deferred(multiple_outputs=True).run()
    assert ("failed", TypeError) == (ended.state, type(ended.error))


def test_result_over_which_a_task_is_mapped_is_refused_as_on_a_worker(deferred):
    """The result is text, over which no task can be mapped; Airflow's error names the reason."""
    task = deferred()
    with task.operator.dag:
        FlowRunSensor.partial(task_id="wait").expand(flow_run_id=task.operator.output)
    ended = task.run()
    assert ("failed", "UnmappableXComTypePushed") == (ended.state, type(ended.error).__name__)


@pytest.mark.needs_airflow(3, 3, "task state")
def test_task_state_is_cleared_on_success_as_on_a_worker(deferred, monkeypatch):
    """With `[state_store] clear_on_success`, the API server removes the state when a worker reports the success."""
    monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "True")
    assert "SucceedTask" == type(deferred().run().message).__name__


@pytest.mark.needs_airflow(3, 1, "tasks that end in the triggerer")
@pytest.mark.parametrize("arguments", [{}, {"on_failure_callback": print}, {"pre_execute": print}], ids=str)
def test_task_without_such_steps_ends_in_the_triggerer(deferred, arguments):
    """Callbacks for failures and hooks of the start do not need a worker at the end."""
    assert "TaskSuccessEvent" == type(deferred(**arguments).run().message).__name__


@pytest.mark.parametrize(("version", "expected"), [((3, 0), False), ((3, 1), True), ((3, 2), True), ((3, 3), True)])
def test_task_ends_on_a_worker_on_airflow_3_0(deferred, monkeypatch, version, expected):
    """Airflow 3.0 takes the DAGs of a file for deleted after a trigger has ended a task (issue 55315 of Airflow)."""
    task = deferred()
    monkeypatch.setattr("airflow_flowservice._airflow.versions.version", lambda: version)
    assert expected == task.operator._can_end_in_triggerer()


def test_retriggered_run_has_the_same_rule(worker, emulator, create_run, wait_for_end):
    """`RetriggerFlowRunOperator` also calls `on_success_callback`."""
    emulator.plan_outcome(status="failed")
    failed, called = create_run(), []
    wait_for_end(failed)
    arguments = {"flow_run_id": failed, "wait_for_completion": True, "deferrable": True, "poll_interval": 0.05}
    task = worker.task(RetriggerFlowRunOperator, on_success_callback=called.append, **arguments)
    assert ("success", 1) == (task.run().state, len(called))


class PostExecuteSensor(FlowRunSensor):
    def post_execute(self, context, result=None):
        pass


class PokeSensor(FlowRunSensor):
    def poke(self, context):
        return super().poke(context)


@STARTS_IN_TRIGGERER
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (FlowRunSensor, {"on_success_callback": print}),
        (FlowRunSensor, {"post_execute": print}),
        (FlowRunSensor, {"map_index_template": "{{ task.flow_run_id }}"}),
        (PostExecuteSensor, {}),
    ],
    ids=str,
)
def test_sensor_that_starts_in_the_triggerer_ends_on_a_worker(cls, arguments):
    """The rules at the end are the same if the sensor starts in the triggerer."""
    made = cls(task_id="wait", flow_run_id="x", start_from_trigger=True, **arguments)
    assert (True, False) == (made.start_from_trigger, made.start_trigger_args.trigger_kwargs["ends_task"])


@STARTS_IN_TRIGGERER
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [(FlowRunSensor, {"on_execute_callback": print}), (FlowRunSensor, {"pre_execute": print}), (PokeSensor, {})],
    ids=str,
)
def test_sensor_with_steps_before_the_wait_starts_on_a_worker(cls, arguments):
    """Airflow calls these only on a worker, so the sensor starts there, and waits in the triggerer."""
    made = cls(task_id="wait", flow_run_id="x", start_from_trigger=True, **arguments)
    assert (True, False, None) == (made.deferrable, made.start_from_trigger, made.start_trigger_args)


@STARTS_IN_TRIGGERER
@pytest.mark.parametrize("added", ["on_success_callback", "mapped task"])
def test_step_added_after_the_constructor_needs_a_worker(create_run, supervisor, added):
    """The triggerer has the serialized task, which shows callbacks and mapped tasks that were added later."""
    from airflow.sdk import DAG

    run_id = create_run()
    with DAG("dag", schedule=None) as dag:
        made = FlowRunSensor(task_id="wait", flow_run_id=run_id, start_from_trigger=True)
        if added == "mapped task":
            FlowRunSensor.partial(task_id="next").expand(flow_run_id=made.output)
        else:
            made.on_success_callback = [print]
    assert made.start_trigger_args.trigger_kwargs["ends_task"]
    trigger = FlowRunTrigger(**{**made.start_trigger_args.trigger_kwargs, "poll_interval": 0.05})
    task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("wait")
    trigger.task_instance = SimpleNamespace(dag_id="dag", task_id="wait", run_id="run", map_index=-1, task=task)
    [event] = _fired(trigger)
    assert "success" == event.payload["status"]


def _fired(trigger):
    import asyncio

    async def collect():
        return [event async for event in trigger.run()]

    return asyncio.run(collect())
