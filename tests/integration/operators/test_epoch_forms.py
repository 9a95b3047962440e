# SPDX-License-Identifier: Apache-2.0
"""Adobe's pages disagree about two requests: with each Flow Service, a window gets exactly one flow run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from airflow_flowservice.api import transport
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.exceptions import FlowNotReadyError, RunRefusedError
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
TIMES = ("startTime", "windowStartTime", "windowEndTime")
STRICT = [(form, refusal) for form in ("string", "integer") for refusal in ("code", "validation")]


@pytest.fixture(scope="module", params=STRICT, ids=lambda value: "-".join(value))
def strict(request: Any) -> Iterator[Any]:
    """Run an emulator that accepts one type of times, in both forms of its refusal."""
    form, refusal = request.param
    settings = Settings(epoch_format=form, epoch_refusal=refusal, queue_s=0.0, run_s=0.1, retrigger_action="RE_TRIGGER")
    with running_emulator(settings) as running:
        yield running


@pytest.fixture
def service(strict, supervisor, monkeypatch):
    """Return the strict emulator, reset; the process has not remembered any type."""
    monkeypatch.setattr(transport, "_accepted", {})
    strict.reset()
    connection = supervisor.connections["flowservice_default"]
    connection["host"] = connection["extra"]["ims_url"] = strict.url
    return strict


@pytest.fixture
def ingest(worker, service):
    """Return a function that makes a task of the table-based dataflow."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2, "uncertain_patience": 1.0}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def runs(service):
    return list(service.state.runs.values())


def posts(service):
    return service.ledger()["requests"]["POST /runs"]


@pytest.mark.parametrize(
    "waiting", [{}, pytest.param({"wait_for_completion": True, "deferrable": False}, marks=pytest.mark.slow)]
)
def test_one_flow_run_with_the_accepted_type(ingest, service, log, contract, waiting):
    """The refused POST created nothing; the accepted type is remembered and logged one time."""
    assert "success" == ingest(**waiting).run().state
    kind = service.settings.epoch_format
    expected = 1 if kind == "string" else 2
    [run] = runs(service)
    assert {str if kind == "string" else int} == {type(run.params[name]) for name in TIMES}
    assert expected == posts(service)

    assert "success" == ingest(task_id="another", window_offset=timedelta(days=-1)).run().state
    assert (2, expected + 1) == (len(runs(service)), posts(service))
    logged = [line for line in log() if "sends integers" in line]
    assert (kind == "integer") == (len(logged) == 1)
    assert contract.times >= {"str" if kind == "string" else "int"}


def test_a_remembered_type_that_is_refused_is_replaced(ingest, service, monkeypatch):
    """The accepted type can change, and another one is tried each time."""
    other = "integer" if service.settings.epoch_format == "string" else "string"
    key = (service.url, "emulator-client", "EMULATOR@AdobeOrg", "prod")
    transport._accepted[key] = other
    assert "success" == ingest().run().state
    assert (1, 2) == (len(runs(service)), posts(service))
    assert service.settings.epoch_format == transport._accepted[key]


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("action", ["record_and_close", "record_and_status", "record_and_half_body", "close"])
def test_a_lost_response_does_not_create_a_second_run(ingest, service, action, nth):
    """A lost response is compared with the flow runs, also that of the second form."""
    service.plan_fault(kind="POST /runs", action=action, nth=nth)
    assert "success" == ingest().run().state
    [run] = runs(service)
    assert {run.id} == {each["id"] for each in service.ledger()["flows"][FLOW]["runs"]}


@pytest.mark.parametrize(
    "strict", [each for each in STRICT if each[0] != "string"], indirect=True, ids=lambda value: "-".join(value)
)
def test_the_other_form_waits_for_no_hung_attempt(ingest, service, monkeypatch):
    """After a long delay another attempt may be running, so the retry compares first."""
    monkeypatch.setattr(transport, "MAX_OTHER_FORM_DELAY_S", -1.0)
    task = ingest()
    assert "up_for_retry" == task.run().state
    assert [] == runs(service)
    monkeypatch.setattr(transport, "MAX_OTHER_FORM_DELAY_S", 60.0)
    assert "success" == task.run().state
    assert 1 == len(runs(service))


def test_a_type_that_is_set_is_the_only_one(ingest, service, supervisor):
    """Without `auto`, the refusal is final, and its remedy names the setting."""
    other = "integer" if service.settings.epoch_format == "string" else "string"
    supervisor.connections["flowservice_default"]["extra"]["epoch_format"] = other
    ended = ingest().run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, RunRefusedError))
    assert "epoch_format" in ended.error.remedy
    assert (0, 1) == (len(runs(service)), posts(service))


def test_the_other_name_of_the_action(ingest, worker, service):
    """The action of the OpenAPI file is sent only because the tutorial's is unknown (1401)."""
    service.plan_outcome(status="failed")
    task = ingest()
    assert "success" == task.run().state
    [failed] = runs(service)
    service.state.end_runs(FLOW, count=None)
    again = worker.task(
        RetriggerFlowRunOperator, task_id="again", flow_run_id=failed.id, deferrable=False, uncertain_patience=1.0
    )
    assert "success" == again.run().state
    assert [None, failed.id] == [run.parent_id for run in runs(service)]
    assert 2 == service.ledger()["requests"]["POST /runs/{id}/action"]


@pytest.mark.parametrize("check_flow", [True, False], ids=["checked before", "refused by the service"])
@pytest.mark.parametrize("state", ["updating", "enabling", "enabled-finalizing", "initializing", "pending"])
def test_a_passing_state_is_retried(worker, emulator, runs_of, clock, state, check_flow):
    """A task that meets a passing state creates nothing, and its retry creates the flow run."""
    emulator.add_flow(id=FLOW, state=state, state_s=600)
    task = worker.task(
        OnDemandFlowRunOperator, flow_id=FLOW, delta_column="updated_at", retries=1, check_flow=check_flow
    )
    ended = task.run()
    assert ("up_for_retry", []) == (ended.state, runs_of())
    assert check_flow == isinstance(ended.error, FlowNotReadyError)
    clock.advance(600)
    assert "success" == task.run().state
    assert 1 == len(runs_of())
