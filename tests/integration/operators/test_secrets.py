# SPDX-License-Identifier: Apache-2.0
"""Verify that logs, exceptions, reprs, XComs, rendered templates and triggers contain no secret."""

from __future__ import annotations

import http.client
import io
import json
import logging
import traceback
from urllib.parse import quote, quote_plus

import pytest
from airflow_versions import redact

from airflow_flowservice._airflow import connections
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.exceptions import FlowServiceError
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
SECRET = "p@ss/w+rd &x=1"


def leaks(text, *secrets):
    """Return the spellings of secrets that a text contains."""
    spellings = {
        form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret), quote(secret))
    }
    return sorted(form for form in spellings if form in str(text))


@pytest.fixture
def strict(clock, supervisor):
    """Run an emulator whose client secret has characters that URLs and forms encode, and set the connection."""
    with running_emulator(Settings(client_secret=SECRET, queue_s=1.0, run_s=2.0), clock=clock) as running:
        connection = supervisor.connections["flowservice_default"]
        connection.update(host=running.url, password=SECRET)
        connection["extra"]["ims_url"] = running.url
        yield running


@pytest.fixture
def token(strict):
    """Return the client's token."""
    return FlowServiceHook().client.fetch_token()


@pytest.fixture
def everything(monkeypatch, capsys):
    """Return a function that returns all log messages at DEBUG and the output of `http.client`, without masking."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.DEBUG)
    root = logging.getLogger()
    loggers = [
        root,
        logging.getLogger("urllib3"),
        logging.getLogger("requests"),
        logging.getLogger("airflow_flowservice"),
    ]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        monkeypatch.setattr(logger, "disabled", False)
        logger.manager._clear_cache()
    root.addHandler(handler)
    yield lambda: (stream.getvalue(), capsys.readouterr().out)
    root.removeHandler(handler)
    logging.getLogger().manager._clear_cache()


@pytest.fixture
def ingest(worker):
    """Return a function that creates the daily task, which waits in the triggerer."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "uncertain_patience": 0.3, "poll_interval": 0.05}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def test_no_module_logs_a_secret_even_at_debug(ingest, strict, token, everything):
    """Neither this package nor urllib3 logs a secret. Airflow's masker is not involved."""
    assert "success" == ingest(wait_for_completion=True, deferrable=False).run().state
    logged, _ = everything()
    assert "POST /data/foundation/flowservice/runs" in logged
    assert [] == leaks(logged, SECRET, token)


def test_airflow_masks_the_output_of_http_client(ingest, strict, token, everything):
    """The debug output of `http.client` contains requests; Airflow masks all spellings of the secrets."""
    strict.state.expire_tokens()
    ingest().run()
    _, printed = everything()
    used = list(strict.state._tokens)
    assert "client_secret=" in printed
    assert [] != leaks(printed, SECRET)
    assert [] == leaks(redact(printed), SECRET, token, *used)


def test_secret_and_tokens_are_masked(strict, supervisor):
    """The secret and each new token are masked before their first use: by Airflow, and by this package."""
    hook = FlowServiceHook()
    first = hook.client.fetch_token()
    strict.state.expire_tokens()
    list(hook.client.list_flows(limit=1))
    second = hook.client.fetch_token()
    assert first != second
    masked = [msg.value for msg in supervisor.sent if type(msg).__name__ == "MaskSecret"]
    own = [SECRET, quote(SECRET, safe=""), quote_plus(SECRET), first, second]
    assert set(own) <= {text for text in masked if isinstance(text, str)}
    assert masked.index(SECRET) < masked.index(first) < masked.index(second)
    assert [1] * len(own) == [masked.count(text) for text in own]


def test_ready_token_is_masked(supervisor, connection, monkeypatch):
    """`access_token` in the extra is a secret."""
    masked = []
    monkeypatch.setattr(connections, "mask", masked.append)
    connection["password"] = None
    connection["extra"]["access_token"] = "ready-token-value"
    assert "Bearer ready-token-value" == FlowServiceHook().get_auth_headers()["Authorization"]
    assert {"ready-token-value"} == set(masked)


@pytest.mark.parametrize("form", [SECRET, quote(SECRET, safe=""), quote_plus(SECRET)])
def test_airflow_masks_each_spelling(strict, supervisor, form):
    """Airflow masks the plain secret, and the secret in a URL and in a form."""
    assert FlowServiceHook().client
    assert "sent: ***" == redact(f"sent: {form}")


def _ims_returns_the_secret(strict, token):
    body = {"error": "invalid_client", "error_description": f"the secret {SECRET} is wrong"}
    strict.state.expire_tokens()
    strict.plan_fault(kind="POST /ims/token/v3", action="refuse", status=401, body=body)


def _service_returns_the_token(strict, token):
    strict.plan_fault(action="refuse", status=403, code="403003", message=f"Bearer {token} has no profile")


def _proxy_returns_the_request(strict, token):
    body = f"<html>Authorization: Bearer {token}\nclient_secret={quote_plus(SECRET)}</html>"
    strict.plan_fault(kind="GET /flows/{id}", action="answer", body=body)


def _response_is_lost(strict, token):
    strict.plan_fault(kind="GET /flows/{id}", action="close")


def _creation_fails(strict, token):
    strict.plan_fault(kind="POST /runs", action="refuse", status=500, body={"message": f"token {token}"})


def _ims_returns_no_token(strict, token):
    strict.state.expire_tokens()
    body = {"access_token": "", "client_secret": SECRET}
    strict.plan_fault(kind="POST /ims/token/v3", action="answer", body=body)


FAULTS = pytest.mark.parametrize(
    "inject_fault",
    [
        _ims_returns_the_secret,
        _service_returns_the_token,
        _proxy_returns_the_request,
        _response_is_lost,
        _creation_fails,
        _ims_returns_no_token,
    ],
    ids=lambda inject_fault: inject_fault.__name__.strip("_"),
)


@FAULTS
def test_errors_have_no_secret(ingest, strict, token, everything, inject_fault):
    """Message, repr, fields, causes and traceback have no secret, even if a server returns it."""
    inject_fault(strict, token)
    error = ingest().run().error
    assert isinstance(error, FlowServiceError)
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    chain = [error]
    while (behind := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(behind)
    shown = [trace, json.dumps(error.to_dict()), *map(str, chain), *map(repr, chain)]
    assert [] == leaks("\n".join(shown), SECRET, token)


@FAULTS
def test_logs_of_errors_have_no_secret(ingest, strict, token, everything, inject_fault):
    """The logs of this package have no secret. Airflow's masker is not involved."""
    inject_fault(strict, token)
    ingest().run()
    logged, _ = everything()
    assert [] == leaks(logged, SECRET, token)


@pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "in the triggerer"])
def test_errors_of_flow_runs_have_no_secret(ingest, strict, token, everything, supervisor, deferrable):
    """If Adobe returns a secret, log, XCom and error do not contain it."""
    message = f"Bearer {token} of {SECRET} and {quote_plus(SECRET)} was refused"
    strict.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-2001-500", "message": message}])
    done = ingest(wait_for_completion=True, deferrable=deferrable).run()
    logged, _ = everything()
    summary = supervisor.stored_xcoms["task", "flow_run"]
    assert ("failed", "Bearer *** of *** and *** was refused") == (summary["status"], summary["errors"][0]["message"])
    assert "CONNECTOR-2001-500" in str(done.error)
    sent = [message for message in supervisor.sent if type(message).__name__ != "MaskSecret"]
    assert [] == leaks(f"{logged}{done.error!r}{done.error}{sent!r}", SECRET, token)


def test_reprs_have_no_secret(ingest, strict, token, supervisor):
    """The reprs of hook, client, credential, operator and trigger have no secret."""
    hook = FlowServiceHook()
    task = ingest(wait_for_completion=True, deferrable=True)
    task.run()
    seen = [hook, hook.client, hook.client._auth, vars(task.operator), *task.triggers, vars(task.triggers[0])]
    assert [] == leaks(" ".join(map(repr, seen)), SECRET, token)


def test_database_has_no_secret(ingest, strict, token, supervisor):
    """XComs, rendered templates, the trigger's arguments and task state have no secret."""
    task = ingest(wait_for_completion=True, deferrable=True)
    task.run()
    sent = [message for message in supervisor.sent if type(message).__name__ != "MaskSecret"]
    kinds = {"DeferTask", "SetXCom", "SetRenderedFields", "PutVariable"}
    assert kinds <= {type(m).__name__ for m in sent}
    assert [] == leaks(" ".join(map(repr, sent)), SECRET, token)
    assert [] == leaks(repr(task.triggers[0].serialize()), SECRET, token)


def test_urls_have_no_credentials(ingest, strict, token, everything):
    """Proxies and servers log query strings."""
    ingest().run()
    logged, _ = everything()
    assert [] == [line for line in logged.splitlines() if "client_secret" in line or "access_token" in line]
