# SPDX-License-Identifier: Apache-2.0
"""Tasks that share the token and the check of the dataflow: requests for each window, and errors with their remedy."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.fernet import Fernet

from airflow_flowservice.api import auth
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.exceptions import (
    DeltaColumnDiffersError,
    FlowDisabledError,
    FlowNotFoundError,
    FlowNotReadyError,
    RunRefusedError,
)
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.runs import flow_check

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
FIRST = datetime(2026, 1, 10, tzinfo=timezone.utc)
READ, POST, TOKEN = "GET /flows/{id}", "POST /runs", "POST /ims/token/v3"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Turn on the cache, in a temporary folder of this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__TOKEN_CACHE", "encrypted")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
    monkeypatch.setattr(auth, "_shared_tokens", {})
    return tmp_path / f"airflow-flowservice-{os.geteuid()}"


@pytest.fixture
def ingest(worker, monkeypatch):
    """Return a function that makes the task of a daily window, in a process without tokens in memory."""

    def make(day=0, **arguments):
        monkeypatch.setattr(auth, "_shared_tokens", {})
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "uncertain_patience": 1.0, "retries": 1}
        date = FIRST + timedelta(days=day)
        # Another task id, because an XCom of an earlier task would look like a second start of this one.
        return worker.task(OnDemandFlowRunOperator, date=date, task_id=f"day{day}", **{**defaults, **arguments})

    return make


@pytest.fixture
def count(emulator):
    return lambda kind: emulator.ledger()["requests"].get(kind, 0)


@pytest.fixture
def checked(ingest):
    """Create the flow runs of two windows, after which the dataflow has a delta column and is remembered."""
    assert ["success"] * 2 == [ingest(day).run().state for day in (0, 1)]


def in_processes(run, numbers):
    """Run a function for each number in a new process, as Airflow's executor does, and wait for the processes."""
    children = []
    for number in numbers:
        child = os.fork()
        if child == 0:
            try:
                run(number)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    deadline = time.monotonic() + 120
    for child in children:
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert 0 == ended[1]


# --- requests for each window ---


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("at_once", [1, 10], ids=["one after the other", "ten at once"])
def test_twenty_windows_in_twenty_processes_need_two_requests_each(ingest, supervisor, at_once):
    """Each window needs its flow runs and its POST. Token and dataflow are read a few times for all of them.

    The first flow run sets the delta column, so the dataflow is read again for the second one.
    """
    with running_emulator(Settings(queue_s=1.0, run_s=2.0, start_tolerance_s=3600.0)) as emulator:
        connection = supervisor.connections["flowservice_default"]
        connection["host"] = connection["extra"]["ims_url"] = emulator.url

        def run(day):
            assert "success" == ingest(day).run().state

        in_processes(run, [0])
        for day in range(1, 20, at_once):
            in_processes(run, range(day, min(day + at_once, 20)))
        requests = emulator.ledger()["requests"]
        assert {TOKEN: 1, READ: 2, "GET /runs": 20, POST: 20} == requests
        assert 20 == len(emulator.ledger()["flows"][FLOW]["runs"])
        assert 2.15 == sum(requests.values()) / 20


def test_without_the_cache_each_task_reads_token_and_dataflow(ingest, count, monkeypatch, folder):
    """`none` stores nothing."""
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__TOKEN_CACHE", "none")
    for day in range(3):
        assert "success" == ingest(day).run().state
    assert (3, 3, False) == (count(TOKEN), count(READ), folder.exists())


def test_without_a_fernet_key_only_the_check_is_shared(ingest, count, monkeypatch, folder):
    """A token is not written in clear text by default."""
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    for day in range(4):
        assert "success" == ingest(day).run().state
    assert (4, 2) == (count(TOKEN), count(READ))
    assert ["flow"] == [each.name.partition("-")[0] for each in folder.iterdir() if each.suffix != ".lock"]


def test_another_value_of_the_option_is_an_error(ingest, runs_of, monkeypatch):
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__TOKEN_CACHE", "memory")
    ended = ingest().run()
    assert "failed" == ended.state
    assert "token_cache in the section [flowservice]" in str(ended.error)
    assert [] == runs_of()


# --- a dataflow that changes after its check ---


def test_a_dataflow_that_was_disabled_is_reported_with_its_remedy(ingest, emulator, checked, count, runs_of):
    """Flow Service refuses the POST, and the check states why. The next task does not send a POST."""
    emulator.add_flow(id=FLOW, kind="table", delta_column="updated_at", state="disabled")
    ended = ingest(2).run()
    assert isinstance(ended.error, FlowDisabledError)
    assert "enable the dataflow in Experience Platform" in ended.error.remedy
    assert (3, 2) == (count(POST), len(runs_of()))
    assert isinstance(ingest(3).run().error, FlowDisabledError)
    assert 3 == count(POST)


def test_a_dataflow_that_does_not_pass_is_never_remembered(ingest, emulator, runs_of):
    """The next task succeeds after the dataflow is enabled again."""
    emulator.add_flow(id=FLOW, kind="table", state="disabled")
    assert isinstance(ingest().run().error, FlowDisabledError)
    emulator.add_flow(id=FLOW, kind="table", state="enabled")
    assert "success" == ingest().run().state
    assert 1 == len(runs_of())


def test_a_dataflow_in_a_passing_state_is_retried(ingest, emulator, checked):
    """The kind of the error decides about the retry, as without a remembered check."""
    emulator.add_flow(id=FLOW, kind="table", delta_column="updated_at", state="updating", state_s=3600)
    ended = ingest(2).run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, FlowNotReadyError))


def test_a_delta_column_that_the_dataflow_lost_is_sent(ingest, emulator, checked, runs_of, log):
    """The remembered dataflow has a column, so it was not sent. After the refusal, the request has it."""
    emulator.state.flows[FLOW].delta_column = None
    assert "success" == ingest(2).run().state
    assert 3 == len(runs_of())
    assert 1 == "\n".join(log()).count("the dataflow has changed; sending it again")


def test_another_delta_column_is_refused(ingest, checked, count):
    """The remembered dataflow does not decide alone: it is read again."""
    before = count(READ)
    ended = ingest(2, delta_column="created_at").run()
    assert isinstance(ended.error, DeltaColumnDiffersError)
    assert (before + 1, 2) == (count(READ), count(POST))


def test_a_dataflow_that_was_deleted_is_not_found(ingest, emulator, checked):
    """The error of the check replaces the refusal of the POST."""
    emulator.plan_fault(kind=POST, action="refuse", status=400, code="1430", message="gone")
    emulator.plan_fault(kind=READ, action="refuse", status=404, code="1430", message="gone")
    assert isinstance(ingest(2).run().error, FlowNotFoundError)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}])
def test_a_refusal_remains_the_error_if_the_check_fails(ingest, emulator, checked, count, fault):
    """An error that can pass does not hide the refusal."""
    emulator.plan_fault(kind=POST, action="refuse", status=400, code="1360000", message="as planned")
    emulator.plan_fault(kind=READ, action="refuse", **fault)
    ended = ingest(2).run()
    assert isinstance(ended.error, RunRefusedError)
    assert "as planned" in ended.error.message


def test_a_refusal_that_the_check_does_not_explain_is_sent_once(ingest, emulator, checked, count):
    """The same request is not repeated after a refusal."""
    emulator.plan_fault(kind=POST, action="refuse", status=400, code="1360000", message="as planned")
    before = count(READ)
    assert isinstance(ingest(2).run().error, RunRefusedError)
    assert (3, before + 1) == (count(POST), count(READ))


def test_a_retry_reads_the_dataflow(ingest, emulator, checked, count):
    """Whatever failed the earlier attempt, the next one checks the present dataflow."""
    emulator.plan_fault(kind="GET /runs", action="refuse", status=400, code="1200", nth=1)
    task, before = ingest(2), count(READ)
    assert "success" != task.run().state
    assert before == count(READ)
    task.run()
    assert before + 1 == count(READ)


def test_an_old_check_is_made_again(ingest, checked, count, monkeypatch):
    """A dataflow is trusted for some minutes only."""
    before = count(READ)
    ingest(2).run()
    assert before == count(READ)
    monkeypatch.setattr(flow_check, "_MAX_AGE_S", 0.0)
    ingest(3).run()
    assert before + 1 == count(READ)


def test_the_connection_test_requests_a_token(emulator, checked, count, monkeypatch):
    """A shared token would hide that the secret is no longer valid."""
    monkeypatch.setattr(auth, "_shared_tokens", {})
    before = count(TOKEN)
    assert FlowServiceHook().test_connection()[0]
    assert before + 1 == count(TOKEN)


def test_the_connection_test_ignores_the_tokens_of_its_process(emulator, checked, count):
    """The API server runs for days, and has a token of an earlier test or query."""
    hook = FlowServiceHook()
    assert hook.test_connection()[0]
    hook.client.fetch_token()
    emulator.plan_fault(kind=TOKEN, action="refuse", status=401, body={"error": "invalid_client"})
    assert (False, True) == (hook.test_connection()[0], bool(hook.client.fetch_token()))
