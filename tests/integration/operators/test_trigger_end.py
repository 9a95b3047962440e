# SPDX-License-Identifier: Apache-2.0
"""`FlowRunTrigger` that ends its task: cancelled between any two messages, run twice, or of a task that was cleared.

The trigger sends its messages by Airflow's `TriggerCommsDecoder` through a socket, as in a triggerer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_versions import VERSION, decode_xcom

from airflow_flowservice._airflow.variable_ledger import parse_entry
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.triggers import FlowRunTrigger

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
# From 3.3 on, the intent is in the task state, which the trigger does not change.
OF_INTENT = [] if VERSION >= (3, 3) else ["DeleteVariable"]


class Triggerer:
    """Supervisor of a triggerer, at the other end of the socket. It can delay the response to one kind of message.

    :param supervisor: supervisor in memory, which answers the messages.
    :param delayed: name of the message's class.
    """

    def __init__(self, supervisor: Any, *, delayed: str | None = None) -> None:
        self.supervisor = supervisor
        self.delayed = delayed
        self.received, self.released = threading.Event(), threading.Event()
        self.trigger_end, self.supervisor_end = socket.socketpair()
        threading.Thread(target=self._serve, daemon=True).start()

    def run(self, main: Callable[[Any], Awaitable[Any]]) -> Any:
        """Run a function with the trigger's end of the connection, over which all messages are sent."""
        from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder
        from airflow.sdk.execution_time import task_runner

        async def connected() -> Any:
            reader, writer = await asyncio.open_connection(sock=self.trigger_end)
            comms = TriggerCommsDecoder(async_reader=reader, async_writer=writer, socket=self.trigger_end)
            if hasattr(comms, "start_reader"):  # since 3.2
                await comms.start_reader()
            task_runner.SUPERVISOR_COMMS = comms
            try:
                return await main(comms)
            finally:
                writer.close()

        return asyncio.run(connected())

    def _serve(self) -> None:
        import msgspec
        from airflow.jobs.triggerer_job_runner import ToTriggerSupervisor
        from airflow.sdk.execution_time.comms import _ResponseFrame
        from pydantic import TypeAdapter

        adapter = TypeAdapter(ToTriggerSupervisor)
        with self.supervisor_end.makefile("rb") as requests:
            while prefix := requests.read(4):
                number, body, *_ = msgspec.msgpack.decode(requests.read(int.from_bytes(prefix, "big")))
                if body["type"] == self.delayed and not self.received.is_set():
                    self.received.set()
                    self.released.wait(30)
                response = self.supervisor.send(adapter.validate_python(body))
                values = None if response is None else response.model_dump(mode="json", by_alias=True)
                self.supervisor_end.sendall(_ResponseFrame(id=number, body=values).as_bytes())


@pytest.fixture
def triggerer(supervisor):
    """Return a function that makes a triggerer, as a context."""

    @contextmanager
    def make(**arguments: Any) -> Iterator[Triggerer]:
        made = Triggerer(supervisor, **arguments)
        try:
            yield made
        finally:
            made.released.set()
            made.supervisor_end.close()

    return make


@pytest.fixture
def trigger(create_run, supervisor, monkeypatch):
    """Return a function that makes triggers of one new flow run, which end their task."""
    monkeypatch.setattr("airflow_flowservice._airflow.task_end.has_listeners", lambda: False)
    flow_run_id = create_run()

    def make(**arguments: Any) -> FlowRunTrigger:
        defaults = {"flow_run_id": flow_run_id, "flow_id": FLOW, "window": WINDOW, "ends_task": True}
        made = FlowRunTrigger(**{**defaults, "poll_interval": 0.05, **arguments})
        made.task_instance = SimpleNamespace(dag_id="dag", task_id="create", run_id="run", map_index=-1, try_number=1)
        return made

    return make


@pytest.fixture
def entry(supervisor):
    """Return a function that returns the only entry of the ledger."""

    def read() -> Any:
        [text] = [value for key, value in supervisor.variables.items() if key.startswith("flowservice.ledger.")]
        return parse_entry(text)

    return read


@pytest.fixture
def deferred(worker, supervisor, monkeypatch):
    """Return a deferrable task of one window, with the message that defers its first attempt."""
    monkeypatch.setattr("airflow_flowservice._airflow.task_end.has_listeners", lambda: False)
    arguments = {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True, "deferrable": True}
    task = worker.task(OnDemandFlowRunOperator, poll_interval=0.05, **arguments)
    task.try_number = 1
    return task, task.step().message


async def first_event(trigger):
    return await anext(trigger.run())


@pytest.mark.parametrize("kind", ["GetTaskStates", "SetXCom", "GetVariable", "PutVariable", *OF_INTENT])
def test_cancelled_trigger_reads_the_response_of_its_message(trigger, triggerer, supervisor, kind):
    """Before Airflow 3.2, an unread response is the next trigger's (`Response read out of order`), and all end.

    Another triggerer then ends the task.
    """

    async def cancel_and_run_again(comms):
        from airflow.sdk.execution_time.comms import GetVariable

        cancelled = asyncio.ensure_future(first_event(trigger()))
        await asyncio.to_thread(opened.received.wait, 30)
        cancelled.cancel()
        asyncio.get_running_loop().call_later(0.1, opened.released.set)
        await asyncio.gather(cancelled, return_exceptions=True)
        other = await comms.asend(GetVariable(key="other"))
        return cancelled.cancelled(), other.value, await first_event(trigger())

    supervisor.variables["other"] = "value of another trigger"
    with triggerer(delayed=kind) as opened:
        is_cancelled, value, event = opened.run(cancel_and_run_again)
    assert (True, "value of another trigger") == (is_cancelled, value)
    assert "TaskSuccessEvent" == type(event).__name__
    assert "success" == decode_xcom(supervisor.stored_xcoms["create", "flow_run"])["status"]


def test_two_triggerers_end_a_task_with_the_same_result(trigger, triggerer, supervisor, entry):
    """Airflow may run a trigger in two triggerers at the same time: both push the same XComs."""

    async def both(_):
        return await asyncio.gather(first_event(trigger()), first_event(trigger()))

    with triggerer() as opened:
        events = opened.run(both)
    assert ["TaskSuccessEvent"] * 2 == [type(event).__name__ for event in events]
    pushed = [decode_xcom(each.value) for each in supervisor.sent if type(each).__name__ == "SetXCom"]
    ends = [each for each in pushed if isinstance(each, dict) and each["status"] == "success"]
    assert (2, ends[0]) == (len(ends), ends[1])
    assert (EntryState.INGESTED, True) == (entry().state, entry().delivered)


@pytest.mark.needs_airflow(3, 1, "tasks that end in the triggerer")
@pytest.mark.parametrize("state", [None, "scheduled", "running", "success", "failed"], ids=str)
def test_trigger_does_not_end_a_task_that_is_not_deferred(deferred, supervisor, entry, state):
    """A user has cleared or marked the task, and Airflow has not cancelled its trigger yet."""
    task, message = deferred
    supervisor.task_instance_state = state
    before = dict(supervisor.stored_xcoms)
    event = task.trigger(message)
    assert ("TriggerEvent", "success") == (type(event).__name__, event.payload["status"])
    assert before == supervisor.stored_xcoms
    assert (EntryState.CREATED, False) == (entry().state, entry().delivered)


@pytest.mark.needs_airflow(3, 1, "tasks that end in the triggerer")
def test_clear_of_a_task_whose_trigger_sees_the_success_creates_no_second_run(deferred, supervisor, runs_of):
    """The task never succeeded in Airflow, so its clear is no request to ingest the window again."""
    task, message = deferred
    supervisor.task_instance_state = None
    task.trigger(message)
    supervisor.task_instance_state = "deferred"
    task.clear()
    assert "success" == task.run().state
    assert 1 == len(runs_of())


@pytest.mark.needs_airflow(3, 1, "tasks that end in the triggerer")
def test_worker_ends_the_task_if_airflow_does_not_report_its_state(deferred, supervisor, monkeypatch, log):
    """The event has the result, so nothing is lost."""
    task, message = deferred

    def refuse(msg):
        raise RuntimeError("the API server is away")

    monkeypatch.setattr(supervisor, "_on_GetTaskStates", refuse)
    event = task.trigger(message)
    assert ("TriggerEvent", "success") == (type(event).__name__, event.payload["status"])
    assert 1 == sum("the API server is away); a worker ends the task" in line for line in log())
