# SPDX-License-Identifier: Apache-2.0
"""Time limits in every way of waiting: the error has the flow run, and a later attempt waits for it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.exceptions import FlowRunTimeoutError, ServerError
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
PAGE = f"https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows/{FLOW}/activity"
# Seconds of the emulator; longer than any test.
LONG = 100_000.0
SENSORS = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
    "start_from_trigger": {"start_from_trigger": True, "deferrable": None},
}
IN_THE_TRIGGERER = ("deferrable", "start_from_trigger")
# Airflow's alarm for `execution_timeout` can interrupt the opening of a connection, whose socket is then closed later.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def ingest(worker, emulator):
    """Return a function that makes an operator that waits for an endless flow run."""
    emulator.plan_outcome(status="success", run_s=LONG)

    def make(way, **arguments):
        defaults = {
            "flow_id": FLOW,
            "delta_column": "updated_at",
            "wait_for_completion": True,
            "deferrable": way == "deferrable",
            "deferral_timeout": way == "deferrable",
            "poll_interval": 0.05,
            "retries": 2,
        }
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


@pytest.fixture
def wait(worker, emulator, create_run):
    """Return a function that makes a sensor for a flow run, by default an endless one."""

    def make(way, *, run_s=LONG, **arguments):
        emulator.plan_outcome(status="success", run_s=run_s)
        defaults = {
            "flow_run_id": create_run(),
            "deferrable": False,
            "deferral_timeout": way in IN_THE_TRIGGERER,
            "poke_interval": 0.05,
            "retries": 2,
        }
        return worker.task(FlowRunSensor, **{**defaults, **SENSORS[way], **arguments})

    return make


def to_the_end(task):
    """Run one attempt, in reschedule mode with all its polls."""
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    return ended


def next_attempt(task, emulator, clock):
    """Run a later attempt without limits, after the flow run has ended. Return its state and the number of flow runs.

    A POST that a busy machine delays is refused, because its start time is in the past, and then repeated.
    """
    clock.advance(LONG)
    task.deferral_timeout = False
    for limit in ("execution_timeout", "wait_timeout"):
        setattr(task.operator, limit, None)
    task.operator.timeout = 3600.0
    return to_the_end(task).state, len(emulator.ledger()["flows"][FLOW]["runs"])


@pytest.fixture
def missing_facts(log):
    """Return a function that returns the facts that a message lacks: the flow run, its last status, its page."""

    def missing(text, run_id, status=None):
        # On a machine that pauses, the limit may be over before the only read has ended.
        is_unread = any("could not be read" in line for line in log())
        status = status or f"(scheduled|inProgress{'|not known' if is_unread else ''})"
        return _missing(text, run_id, status)

    return missing


def _missing(text, run_id, status):
    facts = [re.escape(fact) for fact in (f"flow run {run_id}", f"see {PAGE}/{run_id}", f"flow {FLOW}")]
    return [fact for fact in (f"its last status is {status} ", *facts) if not re.search(fact, text)]


# --- the operators ---


def test_a_limit_is_reported_if_the_xcoms_were_deleted(ingest, monkeypatch):
    """Without XComs, the error is still the time limit; the next attempt finds the flow run in the task state."""
    monkeypatch.setattr("airflow_flowservice._airflow.task_context.read_xcom", lambda *_, **__: None)
    ended = ingest("deferrable", wait_timeout=timedelta(seconds=1)).run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))


@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_a_limit_is_reported_if_the_connection_was_deleted(ingest, wait, supervisor, kind):
    """The error is the time limit, which can be retried."""
    task = (
        ingest("deferrable", wait_timeout=1.0)
        if kind == "operator"
        else wait("deferrable", execution_timeout=timedelta(seconds=1))
    )
    assert "deferred" == task.step().state
    supervisor.connections.clear()
    ended = task.step("__fail__", {"error": "Trigger timeout"})
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))


def test_a_task_that_is_killed_while_creating_logs_it(ingest, log, monkeypatch):
    """The log states that a flow run may have been created."""

    executing = []
    make_order = OnDemandFlowRunOperator._order

    def order(operator, context):
        executing.append(operator)
        return make_order(operator, context)

    def killed(client, flow_id):
        executing[0].on_kill()
        raise ServerError("503")

    monkeypatch.setattr(OnDemandFlowRunOperator, "_order", order)
    monkeypatch.setattr(FlowServiceClient, "get_flow", killed)
    ingest("worker").run()
    assert any("the next attempt searches for it first" in line for line in log())


@pytest.mark.parametrize(
    ("way", "limit"),
    [
        ("worker", "execution_timeout"),
        ("worker", "wait_timeout"),
        ("deferrable", "execution_timeout"),
        ("deferrable", "wait_timeout"),
    ],
)
def test_an_operators_limit_ends_the_attempt_and_the_next_one_continues(
    ingest, runs_of, emulator, clock, way, limit, missing_facts
):
    """The attempt is retried, and the next one waits for the same flow run."""
    task = ingest(way, **{limit: timedelta(seconds=1)})
    ended = task.run()
    [run] = runs_of()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))
    assert [] == missing_facts(str(ended.error), run["id"])
    assert f"has not ended within {limit}, 1 second;" in ended.error.message
    assert "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z" == ended.error.window
    assert "the next attempt waits for the same run" in ended.error.remedy
    assert ("success", 1) == next_attempt(task, emulator, clock)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"wait_timeout": 90, "execution_timeout": timedelta(seconds=20)}, "execution_timeout, 20 seconds"),
        ({"wait_timeout": 20, "execution_timeout": timedelta(seconds=90)}, "wait_timeout, 20 seconds"),
    ],
)
def test_the_shorter_limit_applies_in_the_triggerer_and_is_named(ingest, limits, named):
    """The message names the limit that applied."""
    assert f"within {named};" in ingest("deferrable", **limits).run().error.message


def test_a_run_that_ended_before_the_limit_was_noticed_is_no_timeout(worker, clock):
    """If the triggerer was down, the worker reads the flow run again, and accepts its success."""
    task = worker.task(
        OnDemandFlowRunOperator,
        flow_id="c9cef9cb-c934-4467-8ef9-cbc934546741",
        wait_for_completion=True,
        deferrable=True,
        wait_timeout=60,
    )
    task.try_number = 1
    assert "deferred" == task.step().state
    clock.advance(60)
    assert "success" == task.step("__fail__", {"error": "Trigger timeout"}).state
    assert "success" == task.xcoms["flow_run"]["status"]


def test_an_error_of_the_last_read_does_not_replace_the_timeout(ingest, emulator, runs_of, log, missing_facts):
    """If the last read fails, the error is still the time limit."""
    task = ingest("deferrable", wait_timeout=60)
    emulator.plan_fault(kind="GET /runs/{id}", action="refuse", status=403, code="2120", message="no")
    ended = task.run()
    [run] = runs_of()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))
    assert [] == missing_facts(str(ended.error), run["id"], status="not known")


# --- the sensor ---


@pytest.mark.parametrize("way", SENSORS)
def test_the_sensors_timeout_is_final_and_a_clear_continues(wait, emulator, clock, way, missing_facts):
    """As in Airflow, `timeout` is not retried; the error is also Airflow's `AirflowSensorTimeout`."""
    airflows = versions.airflow_exception("AirflowSensorTimeout")
    task = wait(way, timeout=0.4)
    ended = to_the_end(task)
    kinds = [isinstance(ended.error, kind) for kind in (FlowRunTimeoutError, airflows)]
    assert ("failed", [True, True]) == (ended.state, kinds)
    assert [] == missing_facts(str(ended.error), task.operator.flow_run_id)
    assert "within timeout, 0.4 seconds;" in ended.error.message
    assert "clear this task: it waits for the same run" in ended.error.remedy
    task.clear()
    assert ("success", 1) == next_attempt(task, emulator, clock)


@pytest.mark.parametrize("way", ["poke", *IN_THE_TRIGGERER])
def test_the_sensors_execution_timeout_is_retried(wait, emulator, clock, way, missing_facts):
    """`execution_timeout` is retried in every mode, also in the triggerer."""
    task = wait(way, execution_timeout=timedelta(seconds=1), timeout=50)
    ended = task.run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))
    assert [] == missing_facts(str(ended.error), task.operator.flow_run_id)
    assert "within execution_timeout, 1 second;" in ended.error.message
    assert ("success", 1) == next_attempt(task, emulator, clock)


@pytest.mark.needs_airflow(3, 3, "task state, which the next poll reads")
def test_in_reschedule_mode_execution_timeout_limits_one_poll(wait, emulator, clock):
    """A poll that hangs ends the attempt; the error has the status that an earlier poll read."""
    task = wait("reschedule", execution_timeout=timedelta(seconds=1), timeout=50)
    until_seen(task)
    emulator.plan_fault(kind="GET /runs/{id}", action="slow", seconds=3)
    ended = task.step()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))
    assert "its last status is inProgress" in ended.error.message
    assert f"flow run {task.operator.flow_run_id}" in str(ended.error)
    assert f"see {PAGE}/{task.operator.flow_run_id}" in str(ended.error)
    assert ("success", 1) == next_attempt(task, emulator, clock)


def until_seen(task):
    """Poll until the flow run is in progress."""
    ended = task.run()
    while "inProgress" != task.supervisor.task_state["flowservice_status"]["said"]:
        ended = task.step()
    assert "up_for_reschedule" == ended.state


# --- soft_fail and never_fail ---


@pytest.mark.parametrize("way", SENSORS)
def test_soft_fail_skips_on_timeout_and_logs_the_run(wait, log, way, missing_facts):
    """`soft_fail` skips the task in every mode; the logged reason has the flow run."""
    task = wait(way, timeout=0.4, soft_fail=True)
    assert "skipped" == to_the_end(task).state
    [reason] = [line for line in log() if "Skipping task." in line]
    assert [] == missing_facts(reason, task.operator.flow_run_id)


@pytest.mark.parametrize("way", ["poke", *IN_THE_TRIGGERER])
def test_soft_fail_skips_on_execution_timeout(wait, log, way, missing_facts):
    """`soft_fail` skips the task in a poll and between two polls."""
    task = wait(way, execution_timeout=timedelta(seconds=1), timeout=50, soft_fail=True)
    assert "skipped" == task.run().state
    [reason] = [line for line in log() if "Skipping task." in line]
    assert [] == missing_facts(reason, task.operator.flow_run_id)


@pytest.mark.parametrize("way", SENSORS)
@pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
def test_soft_fail_and_never_fail_skip_on_a_failed_run(worker, emulator, create_run, log, way, how):
    """The logged reason has the errors of the flow run."""
    emulator.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-3001-500", "message": "no batch"}])
    run_id = create_run()
    arguments = {"deferrable": False, "poke_interval": 0.05, **SENSORS[way], how: True}
    task = worker.task(FlowRunSensor, flow_run_id=run_id, **arguments)
    assert "skipped" == to_the_end(task).state
    [reason] = [line for line in log() if "Skipping task." in line]
    assert "CONNECTOR-3001-500: no batch" in reason
    assert f"{PAGE}/{run_id}" in reason


@pytest.mark.parametrize("way", ["poke", *IN_THE_TRIGGERER])
@pytest.mark.parametrize(("how", "state"), [("soft_fail", "up_for_retry"), ("never_fail", "skipped")])
def test_retryable_errors_are_skipped_only_by_never_fail(worker, emulator, create_run, way, how, state):
    """If the service is down, `soft_fail` fails the attempt, and `never_fail` skips the task."""
    run_id = create_run()
    emulator.plan_fault(kind="GET /runs/{id}", action="answer", status=503, body="no")
    emulator.plan_fault(kind="GET /runs", action="answer", status=503, body="no")
    arguments = {"deferrable": False, "poke_interval": 0.05, "error_budget": 0.2, "retries": 2, **SENSORS[way]}
    assert state == worker.task(FlowRunSensor, flow_run_id=run_id, **arguments, **{how: True}).run().state


# --- requests ---


def test_a_poke_is_one_request_and_the_token_is_reused(wait, connection, emulator, each_read_takes):
    """A process requests one token, and sends one request per poll."""
    connection["extra"]["scopes"] = "openid,AdobeID,test_a_poke"
    each_read_takes(3.0)
    task = wait("poke", run_s=10.0)
    created = emulator.ledger()["requests"]
    assert "success" == to_the_end(task).state
    requests = since(created, emulator)
    assert 3 < requests["GET /runs/{id}"]
    assert {"GET /runs/{id}"} == set(requests)
    assert 1 == created["POST /ims/token/v3"]


def test_a_refused_token_is_renewed_once(wait, emulator, each_read_takes):
    """Many polls share one token until Flow Service refuses it."""
    each_read_takes(3.0)
    task = wait("poke", run_s=10.0)
    created = emulator.ledger()["requests"]
    emulator.plan_fault(kind="GET /runs/{id}", action="refuse", status=401, code="401013", message="no", times=1)
    to_the_end(task)
    assert 1 == since(created, emulator)["POST /ims/token/v3"]


def test_each_poll_of_a_rescheduled_sensor_is_one_request(wait, emulator):
    """A rescheduled sensor sends one request per poll."""
    task = wait("reschedule", timeout=50)
    created = emulator.ledger()["requests"]
    task.run()
    for _ in range(3):
        task.step()
    assert {"GET /runs/{id}": 4} == since(created, emulator)


def since(before, emulator):
    """Return the requests by kind since `before`."""
    now = emulator.ledger()["requests"]
    return {kind: now[kind] - before.get(kind, 0) for kind in now if now[kind] != before.get(kind, 0)}


# --- killing ---


def test_a_killed_sensor_logs_that_the_run_continues(wait, log):
    """`on_kill`, which Airflow's task runner calls, logs the flow run and its page."""
    task = wait("poke", timeout=0.2)
    to_the_end(task)
    task.last.on_kill()
    [line] = [line for line in log() if "Adobe cannot cancel" in line]
    run_id = task.operator.flow_run_id
    assert f"flow run {run_id}, so it continues; see {PAGE}/{run_id}." in line
    assert re.search(r"next attempt .*waits for it", line)
