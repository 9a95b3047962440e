# SPDX-License-Identifier: Apache-2.0
"""`FlowRunsTrigger`: flow runs that Airflow does not create are events, once each, over restarts and errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from leaks import leaks

from airflow_flowservice import _flow_run_events
from airflow_flowservice._airflow import versions
from airflow_flowservice._flow_run_events import FlowRunEvents
from airflow_flowservice.watchers import FlowRunsTrigger

HOURLY = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"
PREFIX = "flowservice.watcher."


class Killed(Exception):
    """End of a triggerer in the tests."""


@pytest.fixture(autouse=True)
def _fast_client(connection) -> None:
    """Set the limits of a client, so that errors end soon."""
    connection["extra"]["timeout_s"] = 10
    connection["extra"]["max_attempts"] = 1


@pytest.fixture(autouse=True)
def _stopped_clock(clock) -> None:
    """Stop Flow Service's clock, so that flow runs end only when the test advances it."""
    clock.stop()


@pytest.fixture
def add_run(emulator) -> Callable[..., str]:
    """Return a function that adds a flow run of the scheduled dataflow for an hour of a day."""

    def add(hour: int = 0, **fields: Any) -> str:
        window = {"window_start": f"2026-01-09T{hour:02}:00:00Z", "window_end": f"2026-01-09T{hour + 1:02}:00:00Z"}
        return emulator.add_run(flow_id=HOURLY, **window, **fields)

    return add


@pytest.fixture
def ended_run(add_run, clock) -> Callable[..., str]:
    """Return a function that adds a flow run, and ends it."""

    def add(hour: int = 0, **fields: Any) -> str:
        run_id = add_run(hour, **fields)
        clock.advance(10)
        return run_id

    return add


@pytest.fixture
def follow(supervisor) -> Callable[..., list[str]]:
    """Return a function that runs a new triggerer, and returns the ids of the flow runs of its events.

    Each action is called after a poll, and the triggerer is killed after the last one.
    """

    def run(
        *actions: Callable[[], Any] | None,
        dies_before_storing: bool = False,
        payloads: Any = None,
        pauses: Any = None,
        **arguments: Any,
    ) -> list[str]:
        left = list(actions or [None])
        fired: list[dict[str, Any]] = []

        async def sleep(seconds: float) -> None:
            if seconds == _flow_run_events._SENT_AFTER_S:
                if dies_before_storing:
                    raise Killed
                return
            if pauses is not None:
                pauses.append(seconds)
            if action := left.pop(0):
                action()
            if not left:
                raise Killed

        async def collect() -> None:
            given = {"since": None, "has_failures": False, "has_own": False, "poll_interval": 60.0, **arguments}
            events = FlowRunEvents(flow_id=HOURLY, conn_id="flowservice_default", sleep=sleep, **given)
            async for payload in events.stream():
                fired.append(payload)

        with pytest.raises(Killed):
            asyncio.run(collect())
        if payloads is not None:
            payloads += fired
        return [payload["flow_run_id"] for payload in fired]

    return run


def test_scheduled_runs_are_events_once_each_over_restarts(follow, ended_run, supervisor):
    """At the first start, ended flow runs are no events; each new triggerer continues with the stored progress."""
    ended_run()
    expected: list[str] = []
    found = follow(lambda: expected.append(ended_run(1)), lambda: expected.append(ended_run(2)))
    assert expected[:1] == found
    found += follow(lambda: expected.append(ended_run(3)), None)
    found += follow()
    assert (3, expected) == (len(expected), found)
    [key] = supervisor.variables
    assert (True, 20 + 32) == (key.startswith(PREFIX), len(key))
    assert f"Progress of FlowRunsTrigger for dataflow {HOURLY}" in supervisor.descriptions[key]


def test_payload_has_the_keys_of_an_outlets_event(follow, ended_run):
    """The payload is JSON, and has the window and the page of the flow run."""
    payloads: list[dict[str, Any]] = []
    made: list[str] = []
    follow(lambda: made.append(ended_run(5)), None, payloads=payloads)
    page = "https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows"
    expected = {
        "flow_run_id": made[0],
        "flow_id": HOURLY,
        "status": "success",
        "window_start": "2026-01-09T05:00:00Z",
        "window_end": "2026-01-09T06:00:00Z",
        "input_records": 60,
        "output_records": 60,
        "failed_records": 0,
        "url": f"{page}/{HOURLY}/activity/{made[0]}",
    }
    assert [expected] == payloads == json.loads(json.dumps(payloads))


def test_events_before_a_kill_are_repeated_and_no_others(follow, ended_run):
    """A triggerer that dies before it stores its progress repeats the events of its last poll."""
    first: list[str] = []
    follow(lambda: first.append(ended_run(1)), None)
    second = ended_run(2)
    assert [second] == follow(dies_before_storing=True)
    assert [second] == follow()
    assert [] == follow()


def test_runs_that_end_in_another_order_are_all_events(follow, add_run, emulator, clock):
    """A flow run in progress does not hide later ones, and is an event when it ends, even after hours."""
    follow()
    emulator.plan_outcome(status="success", run_s=36_000)
    slow, fast = add_run(1), add_run(2)
    clock.advance(10)
    assert [fast] == follow()
    assert [] == follow(lambda: clock.advance(18_000), None)
    later = add_run(3)
    clock.advance(10)
    assert [later] == follow()
    clock.advance(18_000)
    assert [slow] == follow()
    assert [] == follow()


def test_run_that_is_listed_late_is_an_event(follow, add_run, ended_run, clock):
    """Flow Service may list a flow run minutes after its creation, when later ones have been events."""
    follow()
    late = add_run(1, delay_s=1800)
    other = ended_run(2)
    assert [other] == follow()
    clock.advance(1800)
    assert [late] == follow()


def test_own_runs_are_events_only_if_requested(follow, ended_run):
    """A task of this package fires the event of the flow run that it created."""
    follow()
    follow(has_own=True)
    own, person = ended_run(1, client_id="emulator-client"), ended_run(2, client_id="exc_app")
    assert [person] == follow()
    assert [own, person] == follow(has_own=True)


def test_failed_run_is_an_event_only_if_requested(follow, ended_run, emulator, log):
    """The log names a failed flow run and its page."""
    follow()
    follow(has_failures=True)
    emulator.plan_outcome(status="failed")
    failed = ended_run(1)
    partial = ended_run(2)
    assert [partial] == follow()
    assert any(f"Flow run {failed} ended as failed, and is no event; see https://" in line for line in log())
    assert [failed, partial] == follow(has_failures=True)


def test_events_begin_with_since(follow, ended_run):
    """Flow runs that were created earlier, and had ended, are events at the first start."""
    earlier = ended_run(1)
    assert [] == follow(since="2100-01-01T00:00:00Z")
    assert [earlier] == follow(since="2026-01-01T00:00:00Z")
    assert [] == follow(since="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "refuse", "status": 503},
        {"action": "answer", "body": "<html>Sign in</html>"},
        {"action": "answer", "body": {"items": [None, 7, {"id": 3}]}},
        {"action": "answer", "body": {"items": "a"}},
        {"action": "half_body"},
        {"action": "refuse", "status": 403},
        {"action": "refuse", "status": 404},
    ],
    ids=["503", "html", "values", "text", "half", "403", "404"],
)
def test_error_of_flow_service_is_logged_and_the_next_poll_continues(follow, ended_run, emulator, log, fault):
    """No error ends the trigger, and no flow run is lost."""
    follow()
    made = ended_run(1)
    emulator.plan_fault(kind="GET /runs", times=2, **fault)
    assert [made] == follow(None, None, None)
    lines = [line for line in log() if "could not be polled" in line]
    assert [
        f"The flow runs of dataflow {HOURLY} could not be polled {count} time(s)" in lines[count - 1]
        for count in (1, 2)
    ]
    assert [] == [line for line in lines if leaks(line, ["emulator-secret"])]


def test_hostile_values_are_no_events(follow, ended_run, emulator):
    """Flow runs of other dataflows, without time or with an invalid id are ignored, and texts are cleaned."""
    follow()
    made = ended_run(1)
    known = {"flowId": HOURLY, "createdAt": int(emulator.state.now() * 1000), "metrics": {"statusSummary": {}}}
    known["metrics"]["statusSummary"]["status"] = "success"
    items = [
        {**known, "id": "other", "flowId": "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"},
        {**known, "id": "undated", "createdAt": None},
        {**known, "id": "a/b\0"},
        {**known, "id": "early", "createdAt": 1},
        {**known, "id": "windowless", "params": {"windowStartTime": "x" * 10**5}},
    ]
    emulator.plan_fault(kind="GET /runs", times=1, action="answer", body={"items": items, "_links": {}})
    payloads: list[dict[str, Any]] = []
    assert ["windowless", made] == follow(None, None, payloads=payloads)
    assert {"flow_run_id", "flow_id", "status", "url"} == set(payloads[0])


def test_configuration_error_is_an_error_once_an_hour(follow, ended_run, supervisor, connection, log):
    """Each poll logs it. When the connection is corrected, no flow run was lost."""
    follow()
    made = ended_run(1)
    connection["password"] = "wrong-secret-of-the-test"

    def correct() -> None:
        connection["password"] = "emulator-secret"

    assert [made] == follow(None, None, correct, None)
    lines = [line for line in log() if "could not be polled" in line]
    levels = [line.partition("]")[0] for line in lines if line.startswith("[")]
    assert (3, 1) == (len(levels), levels.count("[error"))
    assert [] == leaks("\n".join(lines), ["wrong-secret-of-the-test"])


def test_pause_after_errors_is_bounded():
    """The pause doubles up to 15 minutes, and is never shorter than the interval."""
    made = {"since": None, "has_failures": False, "has_own": False}
    error = _flow_run_events.UnreadableAnswerError("no")
    short = FlowRunEvents(flow_id=HOURLY, conn_id="c", poll_interval=60.0, **made)
    assert [60, 120, 240, 480, 900, 900] == [short._pause_after(error) for _ in range(6)]
    long = FlowRunEvents(flow_id=HOURLY, conn_id="c", poll_interval=3600.0, **made)
    assert [3600, 3600] == [long._pause_after(error) for _ in range(2)]


def test_deleted_variable_is_a_first_start(follow, ended_run, supervisor):
    """A running triggerer keeps its progress; the next one begins with flow runs that end later."""
    made: list[str] = []

    def delete() -> None:
        supervisor.variables.clear()
        made.append(ended_run(1))

    found = follow(delete, None)
    assert (1, made) == (len(made), found)
    assert 1 == len(supervisor.variables)
    supervisor.variables.clear()
    ended_run(2)
    assert [] == follow()


@pytest.mark.parametrize("value", ["", "{", "[]", '{"format": 2, "since": 1, "settled": {}, "open": {}}'])
def test_unreadable_variable_is_kept_and_named(follow, ended_run, supervisor, log, value):
    """Without the progress, events could be lost, so a person decides."""
    follow()
    [key] = supervisor.variables
    stored, supervisor.variables[key] = supervisor.variables[key], value
    made = ended_run(1)
    assert [] == follow(None, None)
    assert {key: value} == supervisor.variables
    assert any(f"delete it with `airflow variables delete {key}`" in line for line in log())
    assert [made] == follow(lambda: supervisor.variables.update({key: stored}), None)


def test_variable_that_is_briefly_reported_as_missing_is_used(follow, ended_run, supervisor, monkeypatch):
    """Airflow reports a Variable as missing if its database fails."""
    follow()
    made, answer, lost = ended_run(1), supervisor._on_GetVariable, [True]

    def lose(msg: Any) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        return ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND) if lost and lost.pop() else answer(msg)

    monkeypatch.setattr(supervisor, "_on_GetVariable", lose)
    assert [made] == follow(None, None)


def test_progress_is_stored_later_if_airflow_does_not_respond(follow, ended_run, supervisor, monkeypatch, log):
    """Events continue, and are not repeated."""
    follow()
    made, answer = ended_run(1), supervisor._on_PutVariable

    def refuse(msg: Any) -> None:
        raise RuntimeError("the API server is away")

    monkeypatch.setattr(supervisor, "_on_PutVariable", refuse)
    restore = lambda: monkeypatch.setattr(supervisor, "_on_PutVariable", answer)  # noqa: E731
    assert [made] == follow(restore, None)
    assert any("The progress of dataflow" in line and "could not be stored" in line for line in log())
    assert [] == follow()


def test_long_list_is_read_in_several_polls(follow, ended_run, monkeypatch):
    """The next poll follows at once. Flow Service's clock is ahead of this machine's."""
    follow()
    monkeypatch.setattr(_flow_run_events, "_MAX_RUNS", 2)
    made = [ended_run(hour) for hour in range(1, 6)]
    pauses: list[float] = []
    assert made == follow(None, None, None, None, pauses=pauses)
    assert [1, 1, 1, 60] == pauses


@pytest.mark.parametrize("count", [1, 2])
def test_trigger_fires_events(supervisor, ended_run, monkeypatch, count):
    """The class of the DAG file runs in the triggerer's event loop, and watchers of a connection share a client."""
    monkeypatch.setattr(_flow_run_events, "_SENT_AFTER_S", 0.0)
    made = ended_run(1)

    async def first(trigger: FlowRunsTrigger) -> Any:
        async for event in trigger.run():
            return event.payload["flow_run_id"]
        raise AssertionError("the events have ended")

    async def together() -> list[Any]:
        triggers = [
            FlowRunsTrigger(flow_id=HOURLY, poll_interval=0.05 + number, since="2026-01-01T00:00:00Z")
            for number in range(count)
        ]
        found = await asyncio.gather(*map(first, triggers))
        assert 1 == len(_flow_run_events._sources[asyncio.get_running_loop()]) or count == 1
        return found

    assert [made] * count == asyncio.run(together())


def test_event_loop_is_not_blocked(follow, ended_run, is_in_loop):
    """A slow Flow Service delays only this trigger."""
    trigger = FlowRunsTrigger(flow_id=HOURLY, since="2026-01-01T00:00:00Z")
    ended_run(1)

    async def first() -> Any:
        async for event in trigger.run():
            return event
        raise AssertionError("the events have ended")

    is_in_loop.clear()
    assert "success" == asyncio.run(first()).payload["status"]
    assert {False} == set(is_in_loop)


def test_variables_of_both_versions_are_read(follow, supervisor):
    """On Airflow 3.3, the list of keys confirms that there is no Variable."""
    follow()
    kinds = [type(message).__name__ for message in supervisor.sent]
    assert (versions.version() >= (3, 3)) == ("GetVariableKeys" in kinds)
    assert 1 == kinds.count("PutVariable")
