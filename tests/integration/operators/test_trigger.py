# SPDX-License-Identifier: Apache-2.0
"""`FlowRunTrigger`: it fires one event, can run twice, and does not block the event loop."""

from __future__ import annotations

import asyncio
import json
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
    """Return all events of a trigger."""

    async def collect():
        return [event async for event in trigger.run()]

    return asyncio.run(collect())


@pytest.fixture
def trigger(create_run):
    """Return a function that creates a trigger for a new run."""

    def make(**arguments):
        return FlowRunTrigger(**{"flow_run_id": create_run(), "poll_interval": 0.05, **arguments})

    return make


def test_event_has_the_runs_summary(trigger):
    """The trigger fires once, and the payload is JSON."""
    made = trigger()
    [event] = fired(made)
    assert ("success", made.flow_run_id) == (event.payload["status"], event.payload["flow_run_id"])
    assert ("success", 1440) == (event.payload["flow_run"]["status"], event.payload["flow_run"]["output_records"])
    assert event.payload == json.loads(json.dumps(event.payload))


def test_failed_run_is_an_event(trigger, emulator):
    """A worker ends the task, with the run's own errors."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-1001-500", "message": "no"}])
    [event] = fired(trigger(ends_task=True))
    assert "failed" == event.payload["status"]
    assert [{"code": "CONNECTOR-1001-500", "message": "no"}] == event.payload["flow_run"]["errors"]


def test_error_is_an_event_with_all_fields(trigger, emulator):
    """The worker receives the same typed error, with flow, window, run and page."""
    emulator.plan_outcome(vanish=True, run_s=3600)
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


@pytest.mark.parametrize(
    "arguments",
    [
        *({"flow_run_id": each} for each in ("a/b", "x" * 201, "{'id': 'a'}", "a\x00b", "\ud83d", "", "a,b", None, {})),
        *({"poll_interval": each} for each in (float("nan"), 0, -1, None, "soon", float("inf"))),
    ],
    ids=repr,
)
def test_invalid_argument_ends_only_its_own_wait(trigger, emulator, arguments):
    """The event has a typed error that every database can store. No request contains the argument."""
    innocent = [trigger() for _ in range(3)]
    invalid = trigger(**arguments)
    before = emulator.ledger()["requests"]

    async def collect(each):
        return [event.payload async for event in each.run()]

    async def together():
        return await asyncio.gather(*map(collect, [*innocent, invalid]))

    *payloads, [payload] = asyncio.run(together())
    assert [["success"]] * 3 == [[each["status"] for each in events] for events in payloads]
    assert "ConfigurationError" == payload["error"]["error"]
    assert json.dumps(payload, ensure_ascii=False).isascii()
    assert "\\u0000" not in json.dumps(payload)
    after = emulator.ledger()["requests"]
    assert after.get("GET /runs/{id}", 0) == before.get("GET /runs/{id}", 0)


def test_missing_connection_is_an_event(trigger, supervisor):
    """A user may delete the connection while the task is deferred."""
    made = trigger()
    del supervisor.connections["flowservice_default"]
    [event] = fired(made)
    assert "the connection 'flowservice_default' does not exist" == event.payload["error"]["message"]


def test_task_ends_in_the_triggerer_after_its_xcoms_are_pushed(trigger, supervisor):
    """The event itself has no XComs."""
    made = trigger(ends_task=True)
    made.task_instance = TI
    [event] = fired(made)
    assert ("TaskSuccessEvent", None) == (type(event).__name__, event.xcoms)
    assert made.flow_run_id == supervisor.stored_xcoms["task", "flow_run"]["id"]


def test_worker_ends_the_task_if_an_xcom_cannot_be_pushed(trigger, supervisor, monkeypatch):
    """The event has the summary, so nothing is lost."""
    made = trigger(ends_task=True)
    made.task_instance = TI

    def refuse(msg):
        raise RuntimeError("the API server is away")

    monkeypatch.setattr(supervisor, "_on_SetXCom", refuse)
    [event] = fired(made)
    assert ("success", made.flow_run_id) == (event.payload["status"], event.payload["flow_run"]["id"])


def test_second_triggerer_has_the_same_result(trigger):
    """Airflow may run a trigger twice; it only reads."""
    made = trigger()
    assert [event.payload for event in fired(made)] == [event.payload for event in fired(made)]


def test_killed_trigger_logs_that_the_run_continues(trigger, log):
    """Airflow 3.3 calls `on_kill` when a user marks or clears the deferred task."""
    made = trigger(url="https://experience.adobe.com/x")
    asyncio.run(made.on_kill())
    [line] = [line for line in log() if "Adobe cannot cancel" in line]
    assert f"flow run {made.flow_run_id}, so it continues; see https://experience.adobe.com/x" in line


def test_cancelled_trigger_stops_immediately(trigger, clock, emulator, log):
    """The triggerer cancels triggers when it stops; this is not a kill."""
    clock.stop()
    assert cancelled(trigger(poll_interval=3600.0), emulator)
    assert [] == [line for line in log() if "Adobe cannot cancel" in line]


@pytest.mark.parametrize(
    ("state", "expected"),
    [("deferred", 0), ("failed", 1), ("success", 1), (None, 1), ("scheduled", 1)],
    ids=["the triggerer stops", "marked as failed", "marked as success", "cleared", "started again"],
)
def test_before_3_3_a_kill_is_recognized_by_the_tasks_state(
    trigger, clock, emulator, supervisor, log, monkeypatch, state, expected
):
    """Airflow does not call `on_kill` there, so the trigger reads whether the task is still deferred."""
    monkeypatch.setattr("airflow_flowservice._airflow.versions.version", lambda: (3, 0))
    supervisor.task_instance_state = state
    clock.stop()
    made = trigger(poll_interval=3600.0)
    made.task_instance = TI
    assert cancelled(made, emulator)
    lines = [line for line in log() if f"Adobe cannot cancel flow run {made.flow_run_id}, so it continues" in line]
    assert expected == len(lines)


@pytest.mark.parametrize("answer", ["refused", "nothing"])
def test_before_3_3_an_unknown_task_state_logs_nothing(trigger, clock, emulator, supervisor, log, monkeypatch, answer):
    """An Airflow that shuts down may not respond; the trigger then neither logs a kill nor delays it."""
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
    """Cancel a trigger that waits. Return whether it stopped."""
    polled = next_poll(emulator)

    async def cancel():
        async def first():
            return await anext(trigger.run())

        waiting = asyncio.ensure_future(first())
        await asyncio.to_thread(polled)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return waiting.cancelled()

    return asyncio.run(cancel())


def next_poll(emulator):
    """Return a function that blocks until flow runs have been requested again."""

    def polls():
        return emulator.ledger()["requests"].get("GET /runs", 0)

    def wait():
        while polls() == before:
            time.sleep(0.01)

    before = polls()
    return wait


def test_thread_ends_with_its_waiters(trigger):
    """Runs are read in a separate thread, and a triggerer runs for months."""
    made, before = trigger(url="https://experience.adobe.com/x"), set(threading.enumerate())

    async def reader():
        events = [event async for event in made.run()]
        [thread] = {each for each in threading.enumerate() if each.name.startswith("flowservice")} - before
        await asyncio.to_thread(thread.join, 10)
        return events, thread

    [event], thread = asyncio.run(reader())
    assert "success" == event.payload["status"]
    assert not thread.is_alive()


def test_event_loop_is_not_blocked(trigger, is_in_loop):
    """A slow Flow Service delays only its own triggers."""
    made = trigger(ends_task=True)
    made.task_instance = TI

    async def collect():
        return [event async for event in made.run()]

    is_in_loop.clear()
    [event] = asyncio.run(collect())
    assert "TaskSuccessEvent" == type(event).__name__
    assert {False} == set(is_in_loop)


def test_runs_are_read_while_all_other_threads_are_busy(trigger, emulator, clock):
    """An event loop has few threads, and a supervisor that does not respond blocks each that pushes an XCom."""
    clock.stop()
    made = trigger(url="https://experience.adobe.com/x")
    released, polled = threading.Event(), next_poll(emulator)

    async def while_threads_are_busy():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        event = asyncio.ensure_future(first())
        await asyncio.to_thread(polled)
        taken = [loop.run_in_executor(None, released.wait) for _ in range(2)]
        clock.advance(3600)
        try:
            return await asyncio.wait_for(event, 20), any(each.done() for each in taken)
        finally:
            released.set()

    async def first():
        return await anext(made.run())

    event, blockers_are_done = asyncio.run(while_threads_are_busy())
    assert ("success", False) == (event.payload["status"], blockers_are_done)
