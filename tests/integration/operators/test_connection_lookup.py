# SPDX-License-Identifier: Apache-2.0
"""Look-ups of a connection in which a secrets backend or the API server fails, or a template gives no id."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow_versions import VERSION

from airflow_flowservice.exceptions import ConfigurationError, NotSentError
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
SECRET = "token-of-the-vault"


class VaultBackend:
    """Secrets backend whose look-ups of connections do what the test sets; it has no other secrets."""

    def __init__(self, *answers: Any) -> None:
        self._answers = answers
        self.calls = 0

    def get_connection(self, conn_id: str, **_: Any) -> Any:
        answer = self._answers[min(self.calls, len(self._answers) - 1)]
        self.calls += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("get_"):
            return lambda *_, **__: None
        raise AttributeError(name)


@pytest.fixture
def backend(supervisor, monkeypatch):
    """Return a function that adds a secrets backend before Airflow's. The API server does not have the connection."""
    from airflow.sdk.execution_time import supervisor as module

    del supervisor.connections["flowservice_default"]

    def add(*answers):
        made = VaultBackend(*answers)
        others = module.ensure_secrets_backend_loaded()
        monkeypatch.setattr(module, "ensure_secrets_backend_loaded", lambda: [made, *others])
        return made

    return add


@pytest.fixture
def ingest(worker):
    """Return a function that makes a task with retries."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def test_failing_secrets_backend_is_retried(ingest, backend, emulator):
    """Airflow reports that the connection is not defined. The error contains no text of the backend."""
    backend(ConnectionError(f"https://vault: {SECRET}"))
    ended = ingest().run()
    assert ("up_for_retry", True) == (ended.state, isinstance(ended.error, NotSentError))
    assert "the connection 'flowservice_default' cannot be looked up: the secrets backend VaultBackend failed" in str(
        ended.error
    )
    assert "(ConnectionError)" in str(ended.error)
    assert (FLOW, WINDOW) == (ended.error.flow_id, ended.error.window)
    assert "[secrets] backend" in ended.error.remedy
    assert SECRET not in str(ended.error)
    assert {} == emulator.ledger()["requests"]


def test_secrets_backend_that_fails_once(ingest, backend, supervisor, connection, runs_of):
    """The second look-up finds the connection."""
    from airflow.sdk import Connection

    values = {name: connection[name] for name in ("conn_type", "host", "login", "password")}
    found = Connection(conn_id="flowservice_default", extra=json.dumps(connection["extra"]), **values)
    made = backend(TimeoutError(), found)
    assert "success" == ingest().run().state
    assert made.calls >= 2
    assert 1 == len(runs_of())


@pytest.mark.parametrize("field", ["extra", "password"])
def test_connection_with_a_value_of_another_type(ingest, backend, connection, runs_of, field):
    """Airflow does not accept such a connection, and logs nothing. Airflow before 3.3 accepts an object as extra."""
    from airflow.sdk import Connection

    values = {name: connection[name] for name in ("conn_type", "host", "login", "password")}
    values["extra"] = dict(connection["extra"]) if field == "extra" else json.dumps(connection["extra"])
    if field == "password":
        values["password"] = 12345678
    backend(Connection(conn_id="flowservice_default", **values))
    ended = ingest().run()
    if field == "extra" and VERSION < (3, 3):
        assert "success" == ended.state
        return
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert "that the secrets backend VaultBackend returns" in str(ended.error) or "must be text" in str(ended.error)
    assert "12345678" not in str(ended.error)
    assert [] == runs_of()


def test_failing_api_server_is_retried(ingest, supervisor, monkeypatch):
    """An error of the API server does not prove that the connection is missing."""
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    failure = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})
    monkeypatch.setattr(supervisor, "_on_GetConnection", lambda _: failure, raising=False)
    ended = ingest().run()
    assert "up_for_retry" == ended.state
    assert "does not exist" not in str(ended.error)


def test_missing_connection_is_final(ingest, backend):
    """If each backend responds, the connection does not exist."""
    backend(None)
    ended = ingest().run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert "the connection 'flowservice_default' does not exist" == ended.error.message


def test_triggerer_reports_a_failing_backend(backend):
    """The error can pass, so it counts against the error budget of the tasks that wait."""
    backend(ConnectionError(SECRET))
    with pytest.raises(NotSentError, match="the secrets backend VaultBackend failed"):
        asyncio.run(FlowServiceHook.connected("flowservice_default"))


@pytest.mark.parametrize(
    ("conn_id", "native"),
    [
        ("{{ dag_run.conf.get('conn') }}", False),
        ("{{ dag_run.conf.get('conn') }}", True),
        ("{{ dag_run.conf.get('conn', '') }}", False),
        ("  ", False),
        ("{{ ['a', 'b'] }}", True),
        ("{{ ['a', 'b'] }}", False),
    ],
    ids=["text None", "native None", "empty", "blanks", "native list", "text of a list"],
)
@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (OnDemandFlowRunOperator, {"flow_id": FLOW, "delta_column": "updated_at"}),
        (OnDemandFlowRunOperator, {"flow_name": "orders", "delta_column": "updated_at"}),
        (RetriggerFlowRunOperator, {"flow_run_id": "run-1"}),
        (FlowRunSensor, {"flow_run_id": "run-1", "deferrable": False}),
        (FlowRunSensor, {"flow_run_id": "run-1", "deferrable": True}),
    ],
    ids=["operator", "operator by name", "retrigger", "sensor", "deferrable sensor"],
)
def test_template_that_renders_to_no_connection(worker, operator, arguments, conn_id, native):
    """The error names the argument, and the task is not retried."""
    arguments = {**arguments, "flowservice_conn_id": conn_id, "native": native, "conf": {"x": 1}, "retries": 2}
    ended = worker.task(operator, **arguments).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert "flowservice_conn_id is " in ended.error.message
    assert "if it is a template, check it" in ended.error.remedy
