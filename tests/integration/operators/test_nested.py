# SPDX-License-Identifier: Apache-2.0
"""Operators that another task executes: each flow run is created once, also if the task is retried."""

from __future__ import annotations

from itertools import pairwise

import pytest
from airflow.listeners import hookimpl
from airflow_versions import get_listener_manager

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
DAYS = ["2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z", "2026-01-07T00:00:00Z", "2026-01-08T00:00:00Z"]


def create(context, start, end, **arguments):
    arguments = {"task_id": "part", "flow_id": FLOW, "delta_column": "updated_at", "deferrable": False, **arguments}
    return OnDemandFlowRunOperator(window_start=start, window_end=end, **arguments).execute(context)


@pytest.fixture
def looping(worker, emulator):
    """Return a function that makes a `@task` that executes an operator for each window, and fails at first."""

    def make(execute=create, *, store=True, **options):
        def loop(**context):
            for start, end in pairwise(DAYS):
                execute(context, start, end, **options)
            if context["ti"].try_number == 1:
                raise RuntimeError("the last step fails")

        def decorated(*, dag, task_id, **arguments):
            from airflow.sdk import task

            with dag:
                return task(task_id=task_id, **arguments)(loop)().operator

        return worker.task(decorated, retries=2, store=store)

    return make


@pytest.mark.needs_airflow(3, 3, "task state")
@pytest.mark.parametrize("options", [{}, {"wait_for_completion": True, "deferrable": True, "poll_interval": 0.05}])
def test_loop_in_a_task_creates_each_window_once(looping, runs_of, options):
    """A retry finds the flow run of each window; a nested operator waits on the worker."""
    task = looping(**options)
    assert ["up_for_retry", "success"] == [task.run().state, task.run().state]
    assert DAYS[:3] == [run["window_start"] for run in runs_of()]


@pytest.mark.needs_airflow(3, 3, "task state")
def test_nested_sensor_waits_on_the_worker(looping, runs_of):
    """A nested sensor cannot defer, because Airflow would resume the outer task."""

    def both(context, start, end):
        flow_run_id = create(context, start, end)
        FlowRunSensor(task_id="wait", flow_run_id=flow_run_id, deferrable=True, poke_interval=0.05).execute(context)

    task = looping(both)
    assert ["up_for_retry", "success"] == [task.run().state, task.run().state]
    assert ["success"] * 3 == [run["status"] for run in runs_of()]


class Parts(OnDemandFlowRunOperator):
    """Subclass that ingests its window in parts."""

    def execute(self, context):
        for self.window_start, self.window_end in pairwise(DAYS):
            super().execute(context)
        if context["ti"].try_number == 1:
            raise RuntimeError("the last step fails")


@pytest.mark.needs_airflow(3, 3, "task state")
def test_subclass_that_ingests_parts_creates_each_once(worker, runs_of):
    """The intents of the parts are separate."""
    arguments = {"window_start": DAYS[0], "window_end": DAYS[-1], "delta_column": "updated_at", "deferrable": False}
    task = worker.task(Parts, flow_id=FLOW, retries=2, **arguments)
    assert ["up_for_retry", "success"] == [task.run().state, task.run().state]
    assert DAYS[:3] == [run["window_start"] for run in runs_of()]


@pytest.mark.parametrize("options", [{}, {"wait_for_completion": True, "poll_interval": 0.05}], ids=["create", "wait"])
def test_loop_without_task_state_creates_each_window_once(looping, runs_of, options):
    """Before Airflow 3.3, a retry finds the flow run of each window in the list of the dataflow's flow runs."""
    task = looping(store=False, uncertain_patience=0.3, **options)
    assert ["up_for_retry", "success"] == [task.run().state, task.run().state]
    assert DAYS[:3] == [run["window_start"] for run in runs_of()]


def test_subclass_without_task_state_creates_each_part_once(worker, runs_of):
    """The same applies to the parts of a subclass."""
    arguments = {"window_start": DAYS[0], "window_end": DAYS[-1], "delta_column": "updated_at", "deferrable": False}
    task = worker.task(Parts, flow_id=FLOW, retries=2, store=False, uncertain_patience=0.3, **arguments)
    assert ["up_for_retry", "success"] == [task.run().state, task.run().state]
    assert DAYS[:3] == [run["window_start"] for run in runs_of()]


def test_lost_response_in_a_loop_without_task_state(looping, emulator, runs_of):
    """If the response to the second window's POST is lost, its flow run is found, and the third is created once."""
    emulator.plan_fault(kind="POST /runs", action="record_and_close", nth=2)
    task = looping(store=False, uncertain_patience=0.3)
    assert ["up_for_retry", "success"] == [task.run().state, task.run().state]
    assert DAYS[:3] == [run["window_start"] for run in runs_of()]


@pytest.mark.parametrize("options", [{}, {"wait_for_completion": True, "poll_interval": 0.05}], ids=["create", "wait"])
def test_clear_of_a_task_that_failed_after_a_nested_operator(looping, runs_of, clock, options):
    """The outer task failed, so a clear accepts the flow runs. A clear after its success ingests the windows again."""
    task = looping(uncertain_patience=0.3, **options)
    assert "up_for_retry" == task.run().state
    clock.advance(60)
    task.clear()
    assert "success" == task.run().state
    assert DAYS[:3] == [run["window_start"] for run in runs_of()]
    clock.advance(60)
    task.clear()
    assert "success" == task.run().state
    assert 2 * DAYS[:3] == [run["window_start"] for run in runs_of()]


class SetsWindow(OnDemandFlowRunOperator):
    """Subclass that sets its window before each execution."""

    def pre_execute(self, context):
        self.window_start, self.window_end = DAYS[:2]


class SetsWindowWhenRendered(OnDemandFlowRunOperator):
    """Subclass that sets its window after its templates are rendered."""

    def render_template_fields(self, context, jinja_env=None):
        super().render_template_fields(context, jinja_env)
        self.window_start, self.window_end = DAYS[:2]


def set_window(context):
    context["task"].window_start, context["task"].window_end = DAYS[:2]


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        pytest.param(SetsWindow, {}, id="pre_execute"),
        pytest.param(SetsWindowWhenRendered, {}, id="render_template_fields"),
        pytest.param(
            OnDemandFlowRunOperator,
            {"pre_execute": set_window},
            id="pre_execute argument",
            marks=pytest.mark.needs_airflow(3, 1, "the executed task as the task of the context"),
        ),
    ],
)
def test_window_that_is_set_after_the_constructor_is_used(worker, runs_of, operator, arguments):
    """A window that a subclass or a callback sets is not replaced by the DAG run's window."""
    task = worker.task(operator, flow_id=FLOW, delta_column="updated_at", **arguments)
    assert "success" == task.run().state
    assert [(DAYS[0], DAYS[1])] == [(run["window_start"], run["window_end"]) for run in runs_of()]


def test_arguments_that_are_set_in_the_dag_file_are_used(worker, runs_of):
    """Templates among them are rendered."""

    def made(**arguments):
        operator = OnDemandFlowRunOperator(**arguments)
        operator.window_start, operator.window_end = DAYS[0], "{{ ds }}T00:00:00Z"
        operator.delta_column = "updated_at"
        return operator

    assert "success" == worker.task(made, flow_id=FLOW).run().state
    [run] = runs_of()
    assert (DAYS[0], "2026-01-10T00:00:00Z") == (run["window_start"], run["window_end"])


class SetsOneEdge(OnDemandFlowRunOperator):
    """Subclass that sets one edge of its window."""

    def pre_execute(self, context):
        self.window_end = DAYS[1]


def test_one_edge_that_is_set_after_the_constructor_is_refused(worker, emulator):
    """The error is the same as for one argument."""
    ended = worker.task(SetsOneEdge, flow_id=FLOW, delta_column="updated_at").run()
    assert ("failed", "only window_end is given", FLOW) == (ended.state, ended.error.message, ended.error.flow_id)
    assert {} == emulator.ledger()["requests"]


class StartSetter:
    """Listener that sets one edge of the window of a task that begins."""

    @hookimpl
    def on_task_instance_running(self, previous_state, task_instance):
        task_instance.task.window_start = DAYS[0]


@pytest.fixture
def start_setter():
    listener = StartSetter()
    manager = get_listener_manager()
    manager.add_listener(listener)
    yield
    manager.pm.unregister(listener)


@pytest.mark.usefixtures("start_setter")
def test_one_edge_that_a_listener_sets_is_refused(worker, emulator):
    """The other edge, which the task shows since its templates were rendered, does not complete it."""
    ended = worker.task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at").run()
    assert ("failed", "only window_start is given", FLOW) == (ended.state, ended.error.message, ended.error.flow_id)
    assert {} == emulator.ledger()["requests"]


class OwnThenOneEdge(OnDemandFlowRunOperator):
    """Subclass that ingests the DAG run's window, then sets one edge."""

    def execute(self, context):
        super().execute(context)
        self.window_start = DAYS[0]
        return super().execute(context)


def test_one_edge_that_is_set_between_executions_is_refused(worker, runs_of):
    """The DAG run's window is ingested, and no mixture of both windows."""
    ended = worker.task(OwnThenOneEdge, flow_id=FLOW, delta_column="updated_at").run()
    assert ("failed", "only window_start is given") == (ended.state, ended.error.message)
    assert ["2026-01-10T00:00:00Z"] == [run["window_end"] for run in runs_of()]


class OwnThenEqualEdge(OnDemandFlowRunOperator):
    """Subclass that ingests the DAG run's window, then sets a window that has one edge of it."""

    def execute(self, context):
        super().execute(context)
        self.window_start, self.window_end = DAYS[0], "".join(self.window_end)
        return super().execute(context)


def test_window_with_one_edge_of_the_dag_run_is_used(worker, runs_of):
    """Two edges that are set are a window, also if one of them is equal to the shown one."""
    ended = worker.task(OwnThenEqualEdge, flow_id=FLOW, delta_column="updated_at", on_overlap="restate").run()
    assert "success" == ended.state
    assert (DAYS[0], "2026-01-10T00:00:00Z") == (runs_of()[-1]["window_start"], runs_of()[-1]["window_end"])


class OwnThenParts(OnDemandFlowRunOperator):
    """Subclass that ingests the DAG run's window two times, then a window that it sets, also two times."""

    def execute(self, context):
        found = [super().execute(context), super().execute(context)]
        self.window_start, self.window_end = DAYS[:2]
        return [*found, super().execute(context), super().execute(context)]


@pytest.mark.needs_airflow(3, 3, "task state")
def test_window_of_the_dag_run_is_not_taken_for_a_set_window(worker, runs_of):
    """The task shows the DAG run's window in its fields; the next execution chooses it again."""
    task = worker.task(OwnThenParts, flow_id=FLOW, delta_column="updated_at", deferrable=False)
    assert "success" == task.run().state
    own, given = runs_of()
    assert ("2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z") == (own["window_start"], own["window_end"])
    assert (DAYS[0], DAYS[1]) == (given["window_start"], given["window_end"])
