"""Time limits in every way of waiting: the task ends, says for which run, and a later attempt waits for that one."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import FlowRunTimeoutError, ServerError
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
PAGE = f"https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows/{FLOW}/activity"
# Seconds of the emulator; no test lasts so long.
LONG = 100_000.0
SENSORS = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
    "start_from_trigger": {"start_from_trigger": True, "deferrable": None},
}
IN_THE_TRIGGERER = ("deferrable", "start_from_trigger")


@pytest.fixture
def ingest(worker, emulator):
    """An operator that waits for a run which goes on for ever."""
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
    """A sensor for a run that goes on for ever."""

    def make(way, **arguments):
        emulator.plan_outcome(status="success", run_s=LONG)
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
    """One attempt, with all the times that a worker takes the sensor up in reschedule mode."""
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    return ended


def waits_on(task, emulator, clock):
    """A later attempt, after the run has ended and without the limits: its state, and all POSTs so far."""
    clock.advance(LONG)
    task.deferral_timeout = False
    for limit in ("execution_timeout", "wait_timeout"):
        setattr(task.operator, limit, None)
    task.operator.timeout = 3600.0
    return to_the_end(task).state, emulator.ledger()["requests"]["POST /runs"]


def untold(text, run_id, status="(scheduled|inProgress)"):
    """What a message should name and does not, of the run, its last status and its page."""
    facts = [re.escape(fact) for fact in (f"flow run {run_id}", f"see {PAGE}/{run_id}", f"flow {FLOW}")]
    return [fact for fact in (f"its last status is {status} ", *facts) if not re.search(fact, text)]


# --- the operators ---


def test_a_limit_is_told_when_nobody_knows_the_run_any_more(ingest, monkeypatch):
    """Somebody has deleted the XComs; the next attempt finds the run by what is in the task's state."""
    monkeypatch.setattr("airflow_flowservice._airflow.task_context.read_xcom", lambda *_, **__: None)
    ended = ingest("deferrable", wait_timeout=timedelta(seconds=1)).run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))


@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_a_limit_is_told_when_the_connection_is_gone(ingest, wait, supervisor, kind):
    """The time limit is what ended the wait, and what a retry may mend."""
    task = (
        ingest("deferrable", wait_timeout=1.0)
        if kind == "operator"
        else wait("deferrable", execution_timeout=timedelta(seconds=1))
    )
    assert "deferred" == task.step().state
    supervisor.connections.clear()
    ended = task.step("__fail__", {"error": "Trigger timeout"})
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))


def test_a_task_that_is_killed_in_the_middle_of_its_post_says_so(ingest, log, monkeypatch):
    """A flow run may be there, and nobody knows its id yet."""

    def killed(operator, order, hook):
        operator.on_kill()
        raise ServerError("503")

    monkeypatch.setattr(OnDemandFlowRunOperator, "_prepare", killed)
    ingest("worker").run()
    assert any("the next attempt looks for it first" in line for line in log())


@pytest.mark.parametrize(
    ("way", "limit"),
    [
        ("worker", "execution_timeout"),
        ("worker", "wait_timeout"),
        ("deferrable", "execution_timeout"),
        ("deferrable", "wait_timeout"),
    ],
)
def test_an_operators_limit_ends_the_attempt_and_the_next_one_waits_on(ingest, runs_of, emulator, clock, way, limit):
    """Retried, since the next attempt has the same run to wait for."""
    task = ingest(way, **{limit: timedelta(seconds=1)})
    ended = task.run()
    [run] = runs_of()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))
    assert [] == untold(str(ended.error), run["id"])
    assert f"has not ended within {limit}, 1 second;" in ended.error.message
    assert "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z" == ended.error.window
    assert "the next attempt waits for the same run" in ended.error.remedy
    assert ("success", 1) == waits_on(task, emulator, clock)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"wait_timeout": 90, "execution_timeout": timedelta(seconds=20)}, "execution_timeout, 20 seconds"),
        ({"wait_timeout": 20, "execution_timeout": timedelta(seconds=90)}, "wait_timeout, 20 seconds"),
    ],
)
def test_the_shorter_limit_bounds_the_time_in_the_triggerer_and_is_the_one_named(ingest, limits, named):
    """Whoever reads the message knows which of the two to raise."""
    assert f"within {named};" in ingest("deferrable", **limits).run().error.message


def test_a_run_that_ended_before_the_limit_was_noticed_is_no_timeout(worker, clock):
    """A triggerer that was away does not fail a window that is in: a last look is taken on the worker."""
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


def test_a_last_look_that_fails_leaves_the_limits_own_message(ingest, emulator, runs_of, log):
    """The error stays the time limit's, whatever the service answers just then."""
    task = ingest("deferrable", wait_timeout=60)
    emulator.plan_fault(kind="GET /runs/{id}", action="refuse", status=403, code="2120", message="no")
    ended = task.run()
    [run] = runs_of()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))
    assert [] == untold(str(ended.error), run["id"], status="not known")


# --- the sensor ---


@pytest.mark.parametrize("way", SENSORS)
def test_the_sensors_timeout_is_final_and_a_clear_waits_on(wait, emulator, clock, way):
    """As Airflow has it, `timeout` is not retried; the error is Airflow's as well as ours."""
    airflows = versions.airflow_exception("AirflowSensorTimeout")
    task = wait(way, timeout=0.4)
    ended = to_the_end(task)
    kinds = [isinstance(ended.error, kind) for kind in (FlowRunTimeoutError, airflows)]
    assert ("failed", [True, True]) == (ended.state, kinds)
    assert [] == untold(str(ended.error), task.operator.flow_run_id)
    assert "within timeout, 0.4 seconds;" in ended.error.message
    assert "clear this task: it waits for the same run" in ended.error.remedy
    task.clear()
    assert ("success", 1) == waits_on(task, emulator, clock)


@pytest.mark.parametrize("way", ["poke", *IN_THE_TRIGGERER])
def test_the_sensors_execution_timeout_is_retried(wait, emulator, clock, way):
    """Also in the triggerer, where it is as final as `timeout` unless it is told apart."""
    task = wait(way, execution_timeout=timedelta(seconds=1), timeout=50)
    ended = task.run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))
    assert [] == untold(str(ended.error), task.operator.flow_run_id)
    assert "within execution_timeout, 1 second;" in ended.error.message
    assert ("success", 1) == waits_on(task, emulator, clock)


@pytest.mark.needs_airflow(3, 3, "task state, which tells the next look")
def test_in_reschedule_mode_execution_timeout_bounds_one_look(wait, emulator, clock):
    """A look that hangs ends the attempt; what an earlier look saw is told."""
    task = wait("reschedule", execution_timeout=timedelta(seconds=1), timeout=50)
    until_seen(task)
    emulator.plan_fault(kind="GET /runs/{id}", action="slow", seconds=3)
    ended = task.step()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowRunTimeoutError))
    assert "its last status is inProgress" in ended.error.message
    assert f"flow run {task.operator.flow_run_id}" in str(ended.error)
    assert f"see {PAGE}/{task.operator.flow_run_id}" in str(ended.error)
    assert ("success", 1) == waits_on(task, emulator, clock)


def until_seen(task):
    """Looks until the run goes on."""
    ended = task.run()
    while "inProgress" != task.supervisor.task_state["flowservice_status"]["said"]:
        ended = task.step()
    assert "up_for_reschedule" == ended.state


# --- soft_fail and never_fail ---


@pytest.mark.parametrize("way", SENSORS)
def test_soft_fail_skips_on_timeout_and_says_for_which_run(wait, log, way):
    """Skipped in every mode, and the log's reason is not just that `soft_fail` is set."""
    task = wait(way, timeout=0.4, soft_fail=True)
    assert "skipped" == to_the_end(task).state
    [reason] = [line for line in log() if "Skipping task." in line]
    assert [] == untold(reason, task.operator.flow_run_id)


@pytest.mark.parametrize("way", ["poke", *IN_THE_TRIGGERER])
def test_soft_fail_skips_on_execution_timeout(wait, log, way):
    """Whether it strikes in a look or between two."""
    task = wait(way, execution_timeout=timedelta(seconds=1), timeout=50, soft_fail=True)
    assert "skipped" == task.run().state
    [reason] = [line for line in log() if "Skipping task." in line]
    assert [] == untold(reason, task.operator.flow_run_id)


@pytest.mark.parametrize("way", SENSORS)
@pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
def test_soft_fail_and_never_fail_skip_on_a_failed_run(worker, emulator, create_run, log, way, how):
    """The reason is the run's own error."""
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
def test_what_a_retry_can_mend_is_for_never_fail_alone(worker, emulator, create_run, way, how, state):
    """A service that is away is no failure that `soft_fail` hides; `never_fail` skips on anything."""
    run_id = create_run()
    emulator.plan_fault(kind="GET /runs/{id}", action="answer", status=503, body="no")
    emulator.plan_fault(kind="GET /runs", action="answer", status=503, body="no")
    arguments = {"deferrable": False, "poke_interval": 0.05, "error_budget": 0.2, "retries": 2, **SENSORS[way]}
    assert state == worker.task(FlowRunSensor, flow_run_id=run_id, **arguments, **{how: True}).run().state


# --- requests ---


def test_a_poke_is_one_request_and_the_token_is_kept(wait, connection, emulator):
    """While the process lives, its token does; nothing else is asked."""
    connection["extra"]["scopes"] = "openid,AdobeID,test_a_poke"
    task = wait("poke", timeout=1.0)
    created = emulator.ledger()["requests"]
    to_the_end(task)
    asked = since(created, emulator)
    assert 3 < asked["GET /runs/{id}"]
    assert {"GET /runs/{id}"} == set(asked)
    assert 1 == created["POST /ims/token/v3"]


def test_a_poke_is_one_request_and_a_token_that_is_refused_is_renewed_once(wait, emulator):
    """The token is one for many looks, until Flow Service takes it no more."""
    task = wait("poke", timeout=1.0)
    created = emulator.ledger()["requests"]
    emulator.plan_fault(kind="GET /runs/{id}", action="refuse", status=401, code="401013", message="no", times=1)
    to_the_end(task)
    assert 1 == since(created, emulator)["POST /ims/token/v3"]


def test_each_look_of_a_rescheduled_sensor_is_one_request(wait, emulator):
    """Nothing else is asked."""
    task = wait("reschedule", timeout=50)
    created = emulator.ledger()["requests"]
    task.run()
    for _ in range(3):
        task.step()
    assert {"GET /runs/{id}": 4} == since(created, emulator)


def since(before, emulator):
    """Requests by kind, since the ledger said `before`."""
    now = emulator.ledger()["requests"]
    return {kind: now[kind] - before.get(kind, 0) for kind in now if now[kind] != before.get(kind, 0)}


# --- killing ---


def test_a_killed_sensor_says_that_the_run_goes_on_and_where(wait, log):
    """What the signal handler of Airflow's task runner calls."""
    task = wait("poke", timeout=0.2)
    to_the_end(task)
    task.last.on_kill()
    [line] = [line for line in log() if "Adobe cannot cancel" in line]
    run_id = task.operator.flow_run_id
    assert f"flow run {run_id}, so it goes on; see {PAGE}/{run_id}." in line
    assert re.search(r"next attempt .*waits for it", line)
