# SPDX-License-Identifier: Apache-2.0
"""Lost responses, retries, clears and killed workers, which must not create a second flow run."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import BaseOperator, TaskGroup

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunUncertainError,
    NotSentError,
    RateLimitedError,
    ServerError,
)
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
LOST = pytest.mark.parametrize(
    "fault",
    [
        {"action": "record_and_close"},
        {"action": "record_and_status", "status": 500},
        {"action": "record_and_status", "status": 502},
        {"action": "record_and_half_body"},
    ],
    ids=["connection closed", "500", "502", "half a body"],
)


@pytest.fixture
def no_intents(monkeypatch):
    """Let tasks without task state store no intent, neither in the ledger nor in a Variable of the task."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER", "none")
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__INTENT_STORE", "none")


@pytest.fixture
def ingest(worker):
    """Return a function that makes a daily task of the table-based dataflow, which does not wait."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2, "uncertain_patience": 1.0}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


# --- requests to ingest again ---


@pytest.mark.parametrize(
    ("restate", "count"),
    [(True, 2), ([FLOW], 2), ([FLOW.upper(), "another"], 2), (["another"], 1), (False, 1)],
    ids=["all", "this", "several", "another", "none"],
)
def test_restating_is_only_for_the_requested_dataflows(ingest, runs_of, restate, count):
    """A DAG run can have tasks for several dataflows, and only one of them is to be ingested again."""
    assert "success" == ingest(wait_for_completion=True, poll_interval=0.05).run().state
    conf = {"flowservice": {"restate": restate}}
    again = ingest(task_id="again", wait_for_completion=True, poll_interval=0.05, conf=conf)
    assert "success" == again.run().state
    assert count == len(runs_of())


# --- lost responses ---


@LOST
def test_a_lost_response_does_not_create_a_second_run(ingest, emulator, runs_of, fault):
    """If the response is lost, the flow run is found by its window and adopted."""
    emulator.plan_fault(nth=1, **fault)
    task = ingest()
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "close"},
        {"action": "refuse", "status": 503},
        {"action": "half_body"},
        {"action": "answer", "body": ""},
        {"action": "answer", "body": {"items": []}},
        {"action": "answer", "body": "<html>Who are you?</html>"},
    ],
    ids=["connection closed", "503", "half a body", "an empty 200", "JSON of another shape", "a proxy's HTML"],
)
def test_an_unreadable_response_without_a_run_is_followed_by_one_run(ingest, emulator, runs_of, fault):
    """If nothing was created, the flow run is created once, after patience."""
    emulator.plan_fault(kind="POST /runs", nth=1, **fault)
    task = ingest(uncertain_patience=0.5)
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


def test_the_log_states_the_unknown_outcome_and_the_adopted_run(ingest, emulator, runs_of, log):
    """The log states why a flow run was adopted."""
    emulator.plan_fault(nth=1, action="record_and_close")
    ingest().run()
    [run] = runs_of()
    text = "\n".join(log())
    assert "The outcome of the POST is unknown" in text
    assert f"Found flow run {run['id']} (scheduled) of this window; no other is created" in text
    assert f"Flow run {run['id']} adopted for window {WINDOW}" in text


def test_posts_are_bounded_if_every_response_is_500(ingest, emulator, runs_of):
    """After three POSTs the attempt fails, and can be retried."""
    emulator.plan_fault(kind="POST /runs", action="refuse", status=500)
    ended = ingest(uncertain_patience=0.3).run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, ServerError))
    assert (500, FLOW, WINDOW) == (ended.error.http_status, ended.error.flow_id, ended.error.window)
    assert ended.error.request_id
    assert 3 == emulator.ledger()["requests"]["POST /runs"]
    assert [] == runs_of()


def test_a_retry_finds_a_run_that_appears_late(ingest, emulator, runs_of):
    """If all responses are lost and the flow run appears late, the retry adopts it."""
    emulator.plan_fault(action="record_and_status", status=500, nth=1)
    emulator.plan_fault(action="delay_runs", seconds=20)  # One second here.
    emulator.plan_fault(kind="GET /runs", action="refuse", status=400, code="1200", nth=2)
    task = ingest()
    assert "failed" == task.run().state
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


@pytest.mark.parametrize(("on_uncertain", "count"), [("adopt", 1), ("create", 2)])
def test_on_uncertain_decides_if_runs_show_no_window(ingest, emulator, runs_of, on_uncertain, count):
    """`on_uncertain` adopts the new flow run, or creates another."""
    emulator.plan_fault(kind="*", action="hide_windows")
    emulator.plan_fault(nth=1, action="record_and_close")
    task = ingest(on_uncertain=on_uncertain, uncertain_patience=0.5)
    assert "success" == task.run().state
    assert count == len(runs_of())
    assert runs_of()[-1]["id"] == task.xcoms["return_value"]


def test_the_default_fails_if_the_outcome_is_unknown(ingest, emulator, runs_of):
    """If new flow runs show no window, the task fails with the candidates, their pages and the remedies."""
    emulator.plan_fault(kind="*", action="hide_windows")
    emulator.plan_fault(nth=1, action="record_and_close")
    ended = ingest(uncertain_patience=0.5).run()
    [run] = runs_of()
    error = ended.error
    assert ("failed", True) == (ended.state, isinstance(error, FlowRunUncertainError))
    assert (FLOW, WINDOW) == (error.flow_id, error.window)
    assert run["id"] in error.message
    assert f"/platform/source/dataflows/{FLOW}/activity/{run['id']}" in error.message
    assert "on_uncertain='create'" in error.remedy
    assert "on_uncertain='adopt'" in error.remedy


def test_the_window_is_also_found_in_an_activity(worker, supervisor, clock):
    """A window that Flow Service shows in an activity, not in the params, is found."""
    with running_emulator(Settings(show_window="activity", queue_s=0.0, run_s=0.1), clock=clock) as emulator:
        supervisor.connections["flowservice_default"]["host"] = emulator.url
        supervisor.connections["flowservice_default"]["extra"]["ims_url"] = emulator.url
        emulator.plan_fault(nth=1, action="record_and_close")
        task = worker.task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", uncertain_patience=1.0)
        assert "success" == task.run().state
        assert 1 == len(emulator.ledger()["flows"][FLOW]["runs"])


@pytest.mark.parametrize("shape", ["items", "flat"])
def test_both_shapes_of_the_response_are_parsed(worker, supervisor, shape):
    """Adobe's tutorial and its OpenAPI file disagree about the response to a creation."""
    with running_emulator(Settings(answer_shape=shape)) as emulator:
        supervisor.connections["flowservice_default"]["host"] = emulator.url
        supervisor.connections["flowservice_default"]["extra"]["ims_url"] = emulator.url
        task = worker.task(OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at")
        assert "success" == task.run().state
        assert [task.xcoms["return_value"]] == [run["id"] for run in emulator.ledger()["flows"][FLOW]["runs"]]


# --- requests that are repeated at once ---


def test_a_429_is_repeated(ingest, emulator, runs_of):
    """After a 429 nothing was created, so the POST is repeated after `Retry-After`."""
    emulator.plan_fault(kind="POST /runs", action="refuse", status=429, headers={"Retry-After": "1"}, nth=1)
    assert "success" == ingest().run().state
    assert 1 == len(runs_of())


def test_a_persistent_429_is_a_retryable_error(ingest, emulator, runs_of):
    """After the client's attempts, nothing was created, and the remedy names the settings."""
    emulator.plan_fault(kind="POST /runs", action="refuse", status=429, headers={"Retry-After": "1"})
    ended = ingest().run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, RateLimitedError))
    assert (429, "429050", FLOW, WINDOW) == (
        ended.error.http_status,
        ended.error.code,
        ended.error.flow_id,
        ended.error.window,
    )
    assert "max_active_runs" in ended.error.remedy
    assert [] == runs_of()


def test_an_unreachable_host_is_a_retryable_error(ingest, connection, emulator, runs_of):
    """Without a connection, nothing is sent."""
    connection["host"] = "http://127.0.0.1:9"
    ended = ingest().run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, NotSentError))
    assert (FLOW, WINDOW) == (ended.error.flow_id, ended.error.window)
    assert "127.0.0.1:9" in ended.error.message
    assert "check the connection's host" in ended.error.remedy
    assert [] == runs_of()


def test_an_expired_token_is_renewed_once(ingest, emulator, runs_of):
    """After a 401 with an expired token, the client gets a new token."""
    emulator.plan_fault(kind="POST /runs", action="expire_tokens", nth=1)
    assert "success" == ingest().run().state
    assert 1 == len(runs_of())


# --- retries and clears ---


@pytest.mark.needs_airflow(3, 3, "task state")
def test_a_retry_resumes_its_run(ingest, runs_of, log):
    """If the worker was killed after the creation, the next attempt waits for the same flow run."""
    task = ingest(wait_for_completion=True, deferrable=False, poll_interval=0.05)
    task.try_number += 1
    task.operator.wait_for_completion = False
    task.step()
    task.operator.wait_for_completion = True
    assert "success" == task.run().state
    [run] = runs_of()
    assert run["id"] == task.xcoms["return_value"]
    assert any(f"Flow run {run['id']} of an earlier attempt is" in line for line in log())


def test_a_retry_finds_the_run_of_a_killed_attempt(ingest, emulator, runs_of, supervisor):
    """If the process was killed between POST and response, the next attempt finds the flow run by the intent."""
    task = ingest()
    task.run()
    [(key, text)] = [item for item in supervisor.variables.items() if item[0].startswith("flowservice.ledger.")]
    supervisor.variables[key] = json.dumps({**json.loads(text), "state": "claimed", "flow_run_id": None})
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


def test_a_retry_after_success_does_not_create_a_second_run(ingest, runs_of, clock):
    """If Airflow starts a task twice, the second start ends with the flow run of the first."""
    task = ingest()
    task.run()
    clock.advance(60)
    assert "success" == task.run().state
    assert ["success"] == [run["status"] for run in runs_of()]


def test_a_clear_requests_the_window_again(ingest, runs_of, clock):
    """If a task is cleared after its flow run ended, a new flow run of the same window is created."""
    task = ingest()
    task.run()
    clock.advance(60)
    task.clear()
    assert "success" == task.run().state
    assert 2 == len(runs_of())
    assert 1 == len({(run["window_start"], run["window_end"]) for run in runs_of()})


@pytest.mark.needs_airflow(3, 3, "task state")
def test_a_clear_while_the_run_is_active_waits_for_it(ingest, runs_of, clock):
    """Adobe cannot cancel a flow run, so a cleared task waits for the running one."""
    clock.stop()
    task = ingest()
    task.run()
    task.clear()
    assert "success" == task.run().state
    assert 1 == len(runs_of())


@pytest.mark.usefixtures("no_intents")
def test_without_task_state_the_log_states_reduced_protection(ingest, runs_of, log):
    """Airflow before 3.3 keeps no task state, and `intent_store` can turn off Variables."""
    assert "success" == ingest(store=False).run().state
    assert any("protection against double runs is reduced" in line for line in log())
    assert 1 == len(runs_of())


@pytest.mark.usefixtures("no_intents")
@pytest.mark.parametrize("do_xcom_push", [True, False])
def test_without_task_state_a_second_start_finds_its_run(ingest, runs_of, clock, do_xcom_push):
    """If Airflow starts a task again under the same number, XComs of the first start show it."""
    task = ingest(store=False, do_xcom_push=do_xcom_push)
    task.run()
    clock.advance(60)
    task.try_number = 0
    assert "success" == task.run().state
    assert ["success"] == [run["status"] for run in runs_of()]


@pytest.mark.usefixtures("no_intents")
def test_an_xcom_is_pushed_before_the_post(ingest, supervisor, monkeypatch):
    """A second start is recognized by an XCom, which is pushed before the POST."""
    pushed = []
    create_run = FlowServiceClient.create_run

    def create(*args, **kwargs):
        pushed.extend(key for task_id, key in supervisor.stored_xcoms if task_id == "task")
        return create_run(*args, **kwargs)

    monkeypatch.setattr(FlowServiceClient, "create_run", create)
    ingest(store=False).run()
    assert ["dataflow_url"] == pushed


@pytest.mark.usefixtures("no_intents")
def test_without_task_state_a_first_start_does_not_search(ingest, runs_of, create_run):
    """A flow run of the same window may be another DAG's."""
    create_run()
    assert "success" == ingest(store=False).run().state
    assert 2 == len(runs_of())


@pytest.mark.usefixtures("no_intents")
def test_without_task_state_a_retry_still_finds_its_run(ingest, runs_of):
    """If flow runs show their windows, the retry finds its flow run in the list."""
    task = ingest(store=False)
    task.run()
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "on a worker"])
def test_a_wait_without_responses_ends_with_its_budget_and_a_retry_continues(
    ingest, emulator, runs_of, monkeypatch, deferrable
):
    """The next attempt waits for the same flow run."""
    from airflow_flowservice.runs.create_once import CreateOnce

    def then_refuse_reads(self, order):
        outcome = once(self, order)
        for kind in ("GET /runs", "GET /runs/{id}"):
            emulator.plan_fault(kind=kind, action="refuse", status=503)
        return outcome

    once = CreateOnce.__call__
    task = ingest(wait_for_completion=True, deferrable=deferrable, poll_interval=0.1, error_budget=0.3)
    with monkeypatch.context() as patch:
        patch.setattr(CreateOnce, "__call__", then_refuse_reads)
        ended = task.run()
    assert ("up_for_retry", ServerError) == (ended.state, type(ended.error))
    emulator.clear_faults()
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


# --- flow runs named in the conf ---


def as_conf(adopt):
    return {"flowservice": {"adopt": adopt}}


@pytest.mark.parametrize("named", ["{}", {"task": "{}"}], ids=["for the DAG run", "for the task"])
def test_a_run_named_in_the_conf_is_adopted(ingest, create_run, runs_of, named, log):
    """If the conf names a flow run, the task waits for it, and creates nothing."""
    created = create_run()
    adopt = dict.fromkeys(named, created) if isinstance(named, dict) else created
    task = ingest(conf=as_conf(adopt), run_type="manual", wait_for_completion=True, deferrable=False, poll_interval=0.1)
    assert "success" == task.run().state
    assert created == task.xcoms["return_value"]
    assert ("success", 1440) == (task.xcoms["flow_run"]["status"], task.xcoms["flow_run"]["output_records"])
    assert [created] == [run["id"] for run in runs_of()]
    assert any("as the DAG run's conf requests" in line for line in log())


def test_a_run_named_for_another_task_is_ignored(ingest, runs_of):
    """If the conf names a flow run for another task of the DAG, this task creates its own."""
    task = ingest(conf=as_conf({"other": FLOW}), run_type="manual")
    BaseOperator(task_id="other", dag=task.operator.dag)
    assert "success" == task.run().state
    assert [task.xcoms["return_value"]] == [run["id"] for run in runs_of()]


def test_an_uncertain_window_is_resolved_by_conf(ingest, emulator, runs_of):
    """The remedy of the error works: a manual DAG run with the window and the flow run to adopt."""
    emulator.plan_fault(action="hide_windows")
    emulator.plan_fault(nth=1, action="record_and_close")
    assert "failed" == ingest().run().state
    [run] = runs_of()
    window = dict(zip(("window_start", "window_end"), WINDOW.split("/"), strict=True))
    again = ingest(conf={**window, **as_conf(run["id"])}, run_type="manual", date=None)
    assert "success" == again.run().state
    assert run["id"] == again.xcoms["return_value"]
    assert [run["id"]] == [each["id"] for each in runs_of()]


@pytest.mark.parametrize("asked", [["a run"], {"adopt": 7}, {"adopt": " "}, {"adopt": ["a run"]}], ids=str)
def test_a_conf_of_another_shape_is_refused(ingest, emulator, asked):
    """If the conf cannot be parsed, the task fails and creates nothing."""
    ended = ingest(conf={"flowservice": asked}, run_type="manual").run()
    assert "failed" == ended.state
    assert '{"flowservice": {"adopt": "FLOW_RUN_ID"}}' in str(ended.error)
    assert [] == emulator.ledger()["flows"][FLOW]["runs"]


@pytest.mark.parametrize("settings", [None, {}, {"adopt": None}], ids=str)
def test_a_conf_without_a_run_to_adopt_names_none(ingest, runs_of, settings):
    """The task creates a flow run."""
    assert "success" == ingest(conf={"flowservice": settings, "note": "x"}, run_type="manual").run().state
    assert 1 == len(runs_of())


@pytest.mark.parametrize(
    ("conf", "unknown"),
    [
        ({"flowservice": {"adpot": FLOW}}, "'adpot'"),
        ({"flowservice": {"Adopt": FLOW}}, "'Adopt'"),
        ({"flowservice": {"adopt": FLOW, "task": "task"}}, "'task'"),
        ({"flowservice": {"note": "hello"}}, "'note'"),
        ({"flow_service": {"adopt": FLOW}}, "'flow_service'"),
        ({"FlowService": {"adopt": FLOW}}, "'FlowService'"),
        ({"flowservice.adopt": FLOW}, "'flowservice.adopt'"),
    ],
    ids=str,
)
def test_an_unknown_key_of_the_conf_is_refused(ingest, runs_of, conf, unknown):
    """A misspelt `adopt` would create a second flow run, so it is refused."""
    ended = ingest(conf=conf, run_type="manual", retries=2).run()
    assert "failed" == ended.state
    assert isinstance(ended.error, ConfigurationError)
    assert f"has the unknown key {unknown}" in str(ended.error)
    assert '{"flowservice": {"adopt": "FLOW_RUN_ID"}}' in str(ended.error)
    assert [] == runs_of()


@pytest.mark.parametrize(
    ("task_id", "hint"),
    [("tsak", "did you mean 'task'?"), ("load", "did you mean 'group.load'?"), ("elsewhere", "which is no task")],
)
def test_a_task_id_of_the_conf_that_names_no_task_is_refused(ingest, runs_of, task_id, hint):
    """The error names the nearest task id, also one in a task group, and the task creates nothing."""
    task = ingest(conf=as_conf({task_id: FLOW, "task": FLOW}), run_type="manual", retries=2)
    with TaskGroup("group", dag=task.operator.dag):
        BaseOperator(task_id="load", dag=task.operator.dag)
    ended = task.run()
    assert "failed" == ended.state
    assert isinstance(ended.error, ConfigurationError)
    assert f"names {task_id!r}, which is no task" in str(ended.error)
    assert hint in str(ended.error)
    assert [] == runs_of()


@pytest.mark.parametrize("adopt", [FLOW, {"task": FLOW}, {"other": FLOW}], ids=["a run", "this task", "another task"])
def test_a_run_to_adopt_is_refused_in_a_backfill(ingest, runs_of, adopt):
    """All DAG runs of a backfill have the same conf, and would use the same flow run."""
    ended = ingest(conf=as_conf(adopt), run_type="backfill", retries=2).run()
    assert "failed" == ended.state
    assert isinstance(ended.error, ConfigurationError)
    assert "every run of this backfill has flowservice.adopt" in str(ended.error)
    assert "trigger the DAG manually" in str(ended.error)
    assert [] == runs_of()
