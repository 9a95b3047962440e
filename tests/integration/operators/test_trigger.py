"""`FlowRunTrigger`: one event when the run has ended; safe to run twice; never in the way of the event loop."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from airflow_flowservice.exceptions import FlowRunVanishedError, from_dict
from airflow_flowservice.triggers import FlowRunTrigger

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
TI = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=None)


def fired(trigger):
    """All events of a trigger."""

    async def collect():
        return [event async for event in trigger.run()]

    return asyncio.run(collect())


@pytest.fixture
def trigger(create_run):
    """A trigger for a new run."""

    def make(**arguments):
        return FlowRunTrigger(**{"flow_run_id": create_run(), "poll_interval": 0.05, **arguments})

    return make


def test_fires_once_with_the_runs_summary(trigger):
    """The payload has status, flow run and its summary, and is JSON."""
    made = trigger()
    [event] = fired(made)
    assert ("success", made.flow_run_id) == (event.payload["status"], event.payload["flow_run_id"])
    assert ("success", 1440) == (event.payload["flow_run"]["status"], event.payload["flow_run"]["output_records"])
    assert event.payload == json.loads(json.dumps(event.payload))


def test_a_failed_run_is_an_event_too(trigger, emulator):
    """A worker ends the task, with the run's own errors."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "no"}])
    [event] = fired(trigger(ends_task=True))
    assert "failed" == event.payload["status"]
    assert [{"code": "CONNECTOR-1001-500", "message": "no"}] == event.payload["flow_run"]["errors"]


def test_an_error_is_an_event_that_tells_all(trigger, emulator):
    """What waiting cannot mend reaches the worker as the same typed error, told where it belongs."""
    emulator.plan_outcome(vanish=True)
    made = trigger(flow_id=FLOW, window=WINDOW, url="https://experience.adobe.com/x")
    [event] = fired(made)
    error = from_dict(event.payload["error"])
    assert ("error", made.flow_run_id) == (event.payload["status"], event.payload["flow_run_id"])
    assert isinstance(error, FlowRunVanishedError)
    assert (404, FLOW, WINDOW, made.flow_run_id, "https://experience.adobe.com/x") == (
        error.http_status,
        error.flow_id,
        error.window,
        error.flow_run_id,
        error.url,
    )
    assert event.payload == json.loads(json.dumps(event.payload))


def test_a_missing_connection_is_an_event(trigger, supervisor):
    """Somebody deleted the connection while the task was deferred."""
    made = trigger()
    del supervisor.connections["flowservice_default"]
    [event] = fired(made)
    assert "the connection 'flowservice_default' does not exist" == event.payload["error"]["message"]


def test_ends_the_task_after_pushing_what_a_worker_would_push(trigger, supervisor):
    """A success that may end here: the XCom first, then the event without XComs of its own."""
    made = trigger(ends_task=True)
    made.task_instance = TI
    [event] = fired(made)
    assert ("TaskSuccessEvent", None) == (type(event).__name__, event.xcoms)
    assert made.flow_run_id == supervisor.stored_xcoms["task", "flow_run"]["id"]


def test_an_xcom_that_cannot_be_pushed_leaves_the_end_to_a_worker(trigger, supervisor, monkeypatch):
    """Nothing is lost when Airflow does not take the XCom: the event carries it."""
    made = trigger(ends_task=True)
    made.task_instance = TI

    def refuse(msg):
        raise RuntimeError("the API server is away")

    monkeypatch.setattr(supervisor, "_on_SetXCom", refuse)
    [event] = fired(made)
    assert ("success", made.flow_run_id) == (event.payload["status"], event.payload["flow_run"]["id"])


def test_a_second_triggerer_comes_to_the_same(trigger):
    """Airflow may run a trigger twice; it only reads."""
    made = trigger()
    assert [event.payload for event in fired(made)] == [event.payload for event in fired(made)]


def test_a_killed_trigger_says_that_the_run_goes_on(trigger, log):
    """Airflow 3.3 calls this when somebody marks or clears the deferred task."""
    made = trigger(url="https://experience.adobe.com/x")
    asyncio.run(made.on_kill())
    [line] = [line for line in log() if "Adobe cannot cancel" in line]
    assert f"flow run {made.flow_run_id}, so it goes on; see https://experience.adobe.com/x" in line


def test_a_cancelled_trigger_stops_at_once(trigger, clock, emulator, log):
    """The triggerer cancels triggers when it stops; nothing keeps it from stopping, and nobody killed the task."""
    clock.stop()
    assert cancelled(trigger(poll_interval=3600.0), emulator)
    assert [] == [line for line in log() if "Adobe cannot cancel" in line]


@pytest.mark.parametrize(
    ("state", "says"),
    [("deferred", 0), ("failed", 1), ("success", 1), (None, 1), ("scheduled", 1)],
    ids=["the triggerer stops", "marked as failed", "marked as success", "cleared", "started again"],
)
def test_before_3_3_the_tasks_state_tells_a_kill_from_a_triggerer_that_stops(
    trigger, clock, emulator, supervisor, log, monkeypatch, state, says
):
    """Airflow calls no `on_kill` there, so the trigger looks whether the task is deferred still."""
    monkeypatch.setattr("airflow_flowservice._airflow.versions.version", lambda: (3, 0))
    supervisor.task_instance_state = state
    clock.stop()
    made = trigger(poll_interval=3600.0)
    made.task_instance = TI
    assert cancelled(made, emulator)
    lines = [line for line in log() if f"Adobe cannot cancel flow run {made.flow_run_id}, so it goes on" in line]
    assert says == len(lines)


@pytest.mark.parametrize("answer", ["refused", "nothing"])
def test_before_3_3_a_trigger_that_cannot_find_out_says_nothing(
    trigger, clock, emulator, supervisor, log, monkeypatch, answer
):
    """An Airflow that is going down may not answer; that is no reason to claim a kill, nor to hold it up."""
    monkeypatch.setattr("airflow_flowservice._airflow.versions.version", lambda: (3, 2))
    monkeypatch.setattr("airflow_flowservice._airflow.task_end.PATIENCE_WITH_AIRFLOW", 0.2)

    async def no_answer(msg):
        if type(msg).__name__ != "GetTaskStates":
            return supervisor.send(msg)
        if answer == "refused":
            raise RuntimeError("the API server is away")
        return await asyncio.sleep(3600)

    monkeypatch.setattr(supervisor, "asend", no_answer)
    clock.stop()
    made = trigger(poll_interval=3600.0)
    made.task_instance = TI
    assert cancelled(made, emulator)
    assert [] == [line for line in log() if "Adobe cannot cancel" in line]


def cancelled(trigger, emulator):
    """Cancel a trigger that waits; whether it stopped."""
    looked = next_look(emulator)

    async def cancel():
        async def first():
            return await anext(trigger.run())

        waiting = asyncio.ensure_future(first())
        await asyncio.to_thread(looked)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return waiting.cancelled()

    return asyncio.run(cancel())


def next_look(emulator):
    """What returns when flow runs have been asked for again; blocks."""

    def looks():
        return emulator.ledger()["requests"].get("GET /runs", 0)

    def wait():
        while looks() == before:
            time.sleep(0.01)

    before = looks()
    return wait


def test_no_thread_outlives_those_who_wait(trigger):
    """Runs are read in a thread of their own, and a triggerer lives for months."""
    made, before = trigger(url="https://experience.adobe.com/x"), set(threading.enumerate())

    async def reader():
        events = [event async for event in made.run()]
        [thread] = {each for each in threading.enumerate() if each.name.startswith("flowservice")} - before
        await asyncio.to_thread(thread.join, 10)
        return events, thread

    [event], thread = asyncio.run(reader())
    assert "success" == event.payload["status"]
    assert not thread.is_alive()


def test_nothing_blocks_the_event_loop(trigger, emulator, caplog):
    """A service that takes its time holds up this trigger, and no other in the same triggerer."""
    made = trigger(ends_task=True)
    made.task_instance = TI
    emulator.plan_fault(kind="GET /runs", action="slow", seconds=0.3, times=2)
    beats = []

    async def both():
        asyncio.get_running_loop().slow_callback_duration = 0.05

        async def beat():
            while True:
                beats.append(asyncio.get_running_loop().time())
                await asyncio.sleep(0.01)

        heart = asyncio.ensure_future(beat())
        events = [event async for event in made.run()]
        heart.cancel()
        return events

    caplog.set_level(logging.WARNING, logger="asyncio")
    [event] = asyncio.run(both(), debug=True)
    assert "TaskSuccessEvent" == type(event).__name__
    assert [] == [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert len(beats) > 20


def test_runs_are_read_though_others_take_up_all_threads(trigger, emulator, clock):
    """An event loop has few of them, and a supervisor that does not answer holds each that pushes an XCom."""
    clock.stop()
    made = trigger(url="https://experience.adobe.com/x")
    released, looked = threading.Event(), next_look(emulator)

    async def while_all_are_taken():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        event = asyncio.ensure_future(first())
        await asyncio.to_thread(looked)
        taken = [loop.run_in_executor(None, released.wait) for _ in range(2)]
        clock.advance(3600)
        try:
            return await asyncio.wait_for(event, 20), any(each.done() for each in taken)
        finally:
            released.set()

    async def first():
        return await anext(made.run())

    event, others_are_done = asyncio.run(while_all_are_taken())
    assert ("success", False) == (event.payload["status"], others_are_done)
