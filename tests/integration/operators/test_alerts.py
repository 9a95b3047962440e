# SPDX-License-Identifier: Apache-2.0
"""Callbacks that put the flow run into the messages of Airflow's notifiers."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow_versions import decode_arguments, encode_arguments

from airflow_flowservice.alerts import FlowRunAlert, deadline_callback, notify_missed_deadline
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.freshness import FlowFreshnessSensor
from airflow_flowservice.operators import OnDemandFlowRunOperator

try:
    from airflow.sdk.bases.notifier import BaseNotifier
except ImportError:  # before 3.1
    from airflow.notifications.basenotifier import BaseNotifier

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
CONTEXT = {"dag_run": {"dag_id": "dag", "dag_run_id": "run"}, "deadline": {"id": "1", "deadline_time": "2026-01-10"}}
BARE = {"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, state="failed"), "dag": None}
sent: list[str] = []


class Collector(BaseNotifier):
    """A notifier with a template, as Airflow's notifiers for chats have."""

    template_fields = ("text",)

    def __init__(self, text: str = "{{ flowservice_message }}") -> None:
        super().__init__()
        self.text = text

    def notify(self, context):
        sent.append(self.text)


class AsyncCollector(Collector):
    """A notifier that works in the event loop."""

    async def async_notify(self, context):
        sent.append(f"async: {self.text}")


@pytest.fixture(autouse=True)
def _nothing_sent():
    sent.clear()


@pytest.fixture
def ingest(worker):
    """Return a function that makes a task that ingests."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "poll_interval": 0.05, "wait_for_completion": True}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def test_failed_task_notifies_with_its_flow_run(ingest, emulator, runs_of):
    """The message has task, error, dataflow, window, flow run and its page."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-3001-500", "message": "no batch"}])
    assert "failed" == ingest(on_failure_callback=FlowRunAlert(Collector())).run().state
    [message] = sent
    [run] = runs_of()
    first, error, flow_run = message.splitlines()
    assert "Task task of DAG dag (run) is failed." == first
    assert error.startswith("FlowRunFailedError: the flow run ended as failed: CONNECTOR-3001-500: no batch")
    assert flow_run.startswith(f"Dataflow {FLOW}, window {WINDOW}: flow run {run['id']}, failed, https://")
    assert flow_run.endswith(f"/dataflows/{FLOW}/activity/{run['id']}")


def test_task_without_a_flow_run_notifies_with_its_error(ingest):
    task = ingest(flow_id="0e0e0e0e-0000-4000-8000-0000000000ff", on_failure_callback=FlowRunAlert(Collector()))
    assert "failed" == task.run().state
    [message] = sent
    assert "FlowNotFoundError" in message
    assert "What to do:" in message


def test_late_dataflow_notifies(worker):
    """The sensor's error has the lag and the remedy."""
    alert = FlowRunAlert(Collector())
    worker.task(FlowFreshnessSensor, flow_id=FLOW, max_lag=3600, task_id="watch", on_failure_callback=alert).run()
    [message] = sent
    assert f"FlowLateError: no window of dataflow {FLOW} was ingested since" in message


def test_text_of_other_errors_is_not_sent(supervisor):
    """It may have a secret; the type and the task's log are enough."""
    FlowRunAlert(Collector())({**BARE, "exception": ValueError("postgresql://user:pass@host")})
    [message] = sent
    assert "ValueError" in message
    assert "pass" not in message


def test_failing_notifier_does_not_stop_the_others(supervisor, log):
    def broken(context):
        raise OSError("secret in an address")

    FlowRunAlert(broken, Collector())(BARE)
    assert 1 == len(sent)
    assert any("A notifier failed: OSError" in line for line in log())
    assert not any("secret" in line for line in log())


def test_message_is_not_a_template(ingest, emulator):
    """Text of Adobe is never executed."""
    emulator.plan_outcome(status="failed", errors=[{"code": "X", "message": "{{ 6 * 7 }}"}])
    ingest(on_failure_callback=FlowRunAlert(Collector())).run()
    assert "{{ 6 * 7 }}" in sent[0]


@pytest.mark.parametrize("notifiers", [(), (None,), ("slack",)], ids=["none", "null", "text"])
def test_notifier_must_be_callable(notifiers):
    with pytest.raises(ConfigurationError):
        FlowRunAlert(*notifiers)


@pytest.mark.before_airflow(3, 1)
def test_deadlines_need_airflow_3_1():
    with pytest.raises(ConfigurationError, match=r"needs Airflow 3\.1 or later"):
        deadline_callback(Collector)


class TestDeadline:
    """The triggerer calls the callback with JSON values."""

    pytestmark = pytest.mark.needs_airflow(3, 1, "deadline alerts")

    def call(self, callback):
        """Call the function as `CallbackTrigger` does."""
        arguments = json.loads(json.dumps(callback.kwargs))
        assert "airflow_flowservice.alerts.notify_missed_deadline" == callback.path
        return asyncio.run(notify_missed_deadline(**arguments, context=CONTEXT))

    @pytest.mark.parametrize(
        ("notifier", "prefix"), [(Collector, ""), (AsyncCollector, "async: ")], ids=["sync", "async"]
    )
    def test_message_has_window_flow_run_and_page(self, ingest, runs_of, supervisor, notifier, prefix):
        ingest(wait_for_completion=False).run()
        shown_states(supervisor, {"task": "running", "other": "success"})
        message = self.call(deadline_callback(notifier))
        [run] = runs_of()
        assert [f"{prefix}{message}"] == sent
        first, flow_run = message.splitlines()
        assert "DAG run run of DAG dag has passed its deadline 2026-01-10." == first
        assert flow_run.startswith(f"Dataflow {FLOW}, window {WINDOW}: flow run {run['id']}, created, https://")

    def test_mapped_tasks_are_read(self, ingest, supervisor):
        """Airflow names a mapped task instance by its map index."""
        ingest(wait_for_completion=False).run()
        shown_states(supervisor, {"task_0": "running", "other_1": None})
        assert WINDOW in self.call(deadline_callback())

    def test_dag_run_without_a_flow_run(self, supervisor):
        """The DAG run may not have started."""
        shown_states(supervisor, {})
        assert self.call(deadline_callback()).endswith("No flow run is known.")

    def test_unreachable_api_server_does_not_prevent_the_alert(self, supervisor, monkeypatch):
        monkeypatch.setattr(supervisor, "send", lambda *_: 1 / 0)
        assert "has passed its deadline" in self.call(deadline_callback(Collector))
        assert 1 == len(sent)

    def test_arguments_of_the_notifier(self, supervisor):
        self.call(deadline_callback(Collector, {"text": "late: {{ flowservice_message }}"}))
        assert sent[0].startswith("late: DAG run")

    def test_call_without_a_context(self, supervisor):
        """Early versions call some callbacks without one."""
        assert "unknown" in asyncio.run(notify_missed_deadline())

    def test_alert_survives_serialization(self, supervisor):
        """The scheduler stores the callback of a DAG."""
        from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

        callback = deadline_callback(AsyncCollector, {"text": "x"}, task_ids=["ingest"])
        alert = DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=timedelta(hours=1), callback=callback
        )
        assert callback is alert.callback
        assert callback.kwargs == decode_arguments(json.loads(json.dumps(encode_arguments(callback.kwargs))))

    def test_notifier_needs_a_path(self):
        """The triggerer imports the class."""
        with pytest.raises(ConfigurationError):
            deadline_callback(lambda context: None)


def shown_states(supervisor, states):
    """Set the states of the DAG run's task instances that the API server returns."""
    from airflow.sdk.execution_time.comms import TaskStatesResult

    supervisor._on_GetTaskStates = lambda msg: TaskStatesResult(task_states={"run": states})
