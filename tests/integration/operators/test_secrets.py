"""Secrets and tokens appear in no log, exception, repr, XCom, rendered template or trigger."""

from __future__ import annotations

import http.client
import io
import json
import logging
import traceback
from urllib.parse import quote, quote_plus

import pytest
from airflow_versions import VERSION, redact

from airflow_flowservice._airflow import connections
from airflow_flowservice.emulator import Settings, running_emulator
from airflow_flowservice.exceptions import FlowServiceError
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
SECRET = "p@ss/w+rd &x=1"


def leaks(text, *secrets):
    """Secrets that a text shows, in any spelling."""
    spellings = {
        form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret), quote(secret))
    }
    return sorted(form for form in spellings if form in str(text))


@pytest.fixture
def strict(clock, supervisor):
    """An emulator whose client secret has characters that URLs and forms encode; Airflow's connection fits."""
    with running_emulator(Settings(client_secret=SECRET, queue_s=1.0, run_s=2.0), clock=clock) as running:
        connection = supervisor.connections["flowservice_default"]
        connection.update(host=running.url, password=SECRET)
        connection["extra"]["ims_url"] = running.url
        yield running


@pytest.fixture
def token(strict):
    """The token that the client uses."""
    return FlowServiceHook().client.fetch_token()


@pytest.fixture
def everything(monkeypatch, capsys):
    """All that is logged at DEBUG, by anybody, and what `http.client` prints: as it is, without any masking."""
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
    """The daily task, waiting in the triggerer."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "uncertain_patience": 0.3, "poll_interval": 0.05}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def test_no_module_logs_a_secret_even_at_debug(ingest, strict, token, everything):
    """Not ours, not urllib3's: without the help of Airflow's masker."""
    assert "success" == ingest(wait_for_completion=True, deferrable=False).run().state
    logged, _ = everything()
    assert "POST /data/foundation/flowservice/runs" in logged
    assert [] == leaks(logged, SECRET, token)


def test_airflow_masks_what_http_client_prints(ingest, strict, token, everything):
    """`http.client`'s debug output shows requests as they are sent; Airflow knows all spellings of our secrets."""
    strict.state.expire_tokens()
    ingest().run()
    _, printed = everything()
    used = list(strict.state._tokens)
    assert "client_secret=" in printed
    assert [] != leaks(printed, SECRET)
    assert [] == leaks(redact(printed), SECRET, token, *used)


def test_secret_and_tokens_are_given_to_airflows_masker(strict, supervisor, monkeypatch):
    """Before their first use, and each new token too."""
    masked = []
    monkeypatch.setattr(connections, "mask", masked.append)
    hook = FlowServiceHook()
    first = hook.client.fetch_token()
    strict.state.expire_tokens()
    list(hook.client.list_flows(limit=1))
    second = hook.client.fetch_token()
    assert first != second
    assert [SECRET, first, second] == list(dict.fromkeys(masked))


def test_a_ready_token_is_given_to_airflows_masker(supervisor, connection, monkeypatch):
    """`access_token` in the extra is a secret too."""
    masked = []
    monkeypatch.setattr(connections, "mask", masked.append)
    connection["password"] = None
    connection["extra"]["access_token"] = "ready-token-value"
    assert "Bearer ready-token-value" == FlowServiceHook().get_auth_headers()["Authorization"]
    assert {"ready-token-value"} == set(masked)


@pytest.mark.parametrize("form", [SECRET, quote(SECRET, safe=""), quote_plus(SECRET)])
def test_airflow_masks_each_spelling(strict, supervisor, form):
    """Plain, in a URL, in a form."""
    assert FlowServiceHook().client
    assert "sent: ***" == redact(f"sent: {form}")


def _the_secret_comes_back(strict, token):
    body = {"error": "invalid_client", "error_description": f"the secret {SECRET} is wrong"}
    strict.state.expire_tokens()
    strict.plan_fault(kind="POST /ims/token/v3", action="refuse", status=401, body=body)


def _the_token_comes_back(strict, token):
    strict.plan_fault(action="refuse", status=403, code="403003", message=f"Bearer {token} has no profile")


def _a_proxy_shows_the_request(strict, token):
    body = f"<html>Authorization: Bearer {token}\nclient_secret={quote_plus(SECRET)}</html>"
    strict.plan_fault(kind="GET /flows/{id}", action="answer", body=body)


def _the_answer_is_lost(strict, token):
    strict.plan_fault(kind="GET /flows/{id}", action="close")


def _the_creation_fails(strict, token):
    strict.plan_fault(kind="POST /runs", action="refuse", status=500, body={"message": f"token {token}"})


def _ims_sends_nonsense(strict, token):
    strict.state.expire_tokens()
    body = {"access_token": "", "client_secret": SECRET}
    strict.plan_fault(kind="POST /ims/token/v3", action="answer", body=body)


TROUBLE = pytest.mark.parametrize(
    "trouble",
    [
        _the_secret_comes_back,
        _the_token_comes_back,
        _a_proxy_shows_the_request,
        _the_answer_is_lost,
        _the_creation_fails,
        _ims_sends_nonsense,
    ],
    ids=lambda trouble: trouble.__name__.strip("_"),
)


@TROUBLE
def test_no_error_shows_a_secret(ingest, strict, token, everything, trouble):
    """Message, repr, fields, the chain behind it and the traceback: also when a server sends the secret back."""
    trouble(strict, token)
    error = ingest().run().error
    assert isinstance(error, FlowServiceError)
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    chain = [error]
    while (behind := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(behind)
    shown = [trace, json.dumps(error.to_dict()), *map(str, chain), *map(repr, chain)]
    assert [] == leaks("\n".join(shown), SECRET, token)


@TROUBLE
def test_no_log_of_trouble_shows_a_secret(ingest, strict, token, everything, trouble):
    """What our modules log of it, without the help of Airflow's masker."""
    trouble(strict, token)
    ingest().run()
    logged, _ = everything()
    assert [] == leaks(logged, SECRET, token)


@pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "in the triggerer"])
def test_a_flow_runs_own_errors_show_no_secret(ingest, strict, token, everything, supervisor, deferrable):
    """Should Adobe ever repeat what it was sent: not in the log, not in the XCom, not in the error."""
    told = f"Bearer {token} of {SECRET} and {quote_plus(SECRET)} was refused"
    strict.plan_outcome(status="failed", errors=[{"code": "CONNECTOR-2001-500", "message": told}])
    done = ingest(wait_for_completion=True, deferrable=deferrable).run()
    logged, _ = everything()
    summary = supervisor.stored_xcoms["task", "flow_run"]
    assert ("failed", "Bearer *** of *** and *** was refused") == (summary["status"], summary["errors"][0]["message"])
    assert "CONNECTOR-2001-500" in str(done.error)
    sent = [message for message in supervisor.sent if type(message).__name__ != "MaskSecret"]
    assert [] == leaks(f"{logged}{done.error!r}{done.error}{sent!r}", SECRET, token)


def test_no_repr_shows_a_secret(ingest, strict, token, supervisor):
    """Of hook, client, credential, operator and trigger."""
    hook = FlowServiceHook()
    task = ingest(wait_for_completion=True, deferrable=True)
    task.run()
    seen = [hook, hook.client, hook.client._auth, vars(task.operator), *task.triggers, vars(task.triggers[0])]
    assert [] == leaks(" ".join(map(repr, seen)), SECRET, token)


def test_nothing_that_reaches_airflows_database_shows_a_secret(ingest, strict, token, supervisor):
    """XComs, rendered templates, the trigger's arguments, task state: all that the worker sends."""
    task = ingest(wait_for_completion=True, deferrable=True)
    task.run()
    sent = [message for message in supervisor.sent if type(message).__name__ != "MaskSecret"]
    kinds = {"DeferTask", "SetXCom", "SetRenderedFields"} | ({"SetTaskStateStore"} if VERSION >= (3, 3) else set())
    assert kinds <= {type(m).__name__ for m in sent}
    assert [] == leaks(" ".join(map(repr, sent)), SECRET, token)
    assert [] == leaks(repr(task.triggers[0].serialize()), SECRET, token)


def test_credentials_never_travel_in_an_address(ingest, strict, token, everything):
    """Query strings are logged by proxies and servers."""
    ingest().run()
    logged, _ = everything()
    assert [] == [line for line in logged.splitlines() if "client_secret" in line or "access_token" in line]
