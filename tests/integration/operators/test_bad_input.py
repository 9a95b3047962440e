# SPDX-License-Identifier: Apache-2.0
"""Tests of invalid input: the error names the flow, the window, Adobe's code and message, and the remedy."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.sdk import DAG, task_group

from airflow_flowservice.exceptions import (
    AuthenticationError,
    ConfigurationError,
    CreateNotAllowedError,
    DeltaColumnDiffersError,
    DeltaColumnMissingError,
    FlowDisabledError,
    FlowNotFoundError,
    NotOnDemandError,
    OrganizationError,
    RunRefusedError,
    SandboxError,
    UnreadableAnswerError,
    WindowError,
)
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
HOURLY = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"
DISABLED = "7d15ab1e-0f10-4d15-8ab1-ed0000000001"
WINDOW = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def refused(worker, emulator):
    """Return a function that runs a task with invalid input and returns its error.

    The task creates no flow run, and fails without a retry (unless `state` is another one).
    """

    def run(*, state="failed", **arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2, "uncertain_patience": 0.3}
        ended = worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments}).run()
        assert state == ended.state
        assert [] == [run for flow in emulator.ledger()["flows"].values() for run in flow["runs"]]
        return ended.error

    return run


def shown(error, *parts):
    """Return whether the text of the error contains all parts."""
    return [part for part in parts if str(part) not in str(error)] == []


# --- the connection ---


def test_missing_connection(refused, supervisor):
    """The error names the connection, and the command that creates it."""
    del supervisor.connections["flowservice_default"]
    error = refused()
    assert isinstance(error, ConfigurationError)
    assert "the connection 'flowservice_default' does not exist" == error.message
    assert "`airflow connections add flowservice_default --conn-type flowservice" in error.remedy
    assert (FLOW, WINDOW) == (error.flow_id, error.window)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"epoch_format": "bogus"}, "epoch_format must be 'auto', 'string' or 'integer', not 'bogus'"),
        ({"timeout_s": "abc"}, "timeout_s is 'abc', which is not a number"),
        ({"timeout_s": -1}, "timeout_s must be a number of seconds above 0"),
        ({"max_attempts": "many"}, "max_attempts is 'many', which is not a number"),
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1 on"),
        ({"org_id": ""}, "org_id is missing"),
        ({"org_id": None}, "org_id is missing"),
        ({"ims_url": "http://ims.example.com"}, "would send the secret in the clear; use https://"),
        ({"access_token": "ready"}, "client_secret and access_token are both set"),
        ({"scopes": " , "}, "scopes is empty"),
        ({"sandbox_name": "dev"}, "the extra has the unknown key 'sandbox_name' (nearest known key: 'sandbox')"),
        ({"timeout_s": 1e12}, "timeout_s is 1000000000000.0 seconds; the maximum is 86400"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_invalid_connection_value(refused, connection, emulator, extra, message):
    """The error names the connection and the field, and no request is sent."""
    connection["extra"].update(extra)
    error = refused()
    assert isinstance(error, ConfigurationError)
    assert error.message.startswith("connection 'flowservice_default': ")
    assert message in error.message
    assert error.remedy
    assert (FLOW, WINDOW) == (error.flow_id, error.window)
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "http://platform.example.com"}, "would send the secret in the clear; use https://"),
        ({"host": "ftp://platform.example.com"}, "must begin with https://"),
        ({"host": "https://"}, "is not the address of a host"),
        ({"host": "http:/x"}, "is not the address of a host"),
        ({"host": "platform.example.com", "schema": "dev"}, "schema is 'dev', but can only be http or https"),
        ({"login": None}, "client_id is missing"),
        ({"password": None}, "neither client_secret nor access_token is set"),
    ],
    ids=["plain http", "ftp", "scheme only", "one slash", "schema", "no client id", "no secret"],
)
def test_invalid_host_or_credential(refused, connection, values, message):
    """A host without TLS and an incomplete credential are refused."""
    connection.update(values)
    error = refused()
    assert isinstance(error, ConfigurationError)
    assert message in error.message
    assert "connection 'flowservice_default'" in error.message


def test_remedy_for_a_missing_org_id(refused, connection):
    """The remedy names the field of the connection."""
    del connection["extra"]["org_id"]
    assert "set org_id in the connection's extra" in refused().remedy


def test_wrong_secret(refused, connection):
    """If IMS responds with 401, the remedy names the password. The error does not contain the secret."""
    connection["password"] = "wrong-secret-value"
    error = refused()
    assert isinstance(error, AuthenticationError)
    assert (401, "invalid_client", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "The client secret is wrong." in error.message
    assert "set password (client secret) of the connection" in error.remedy
    assert "wrong-secret-value" not in str(error)


def test_expired_token_without_a_client_secret(refused, connection):
    """A token in the connection cannot be renewed; the remedy is to replace it."""
    connection["password"] = None
    connection["extra"]["access_token"] = "stale-token-value"
    error = refused()
    assert (401, "401013") == (error.http_status, error.code)
    assert "replace access_token in the connection's extra" in error.remedy
    assert "stale-token-value" not in str(error)


def test_credential_with_read_permission_only(refused, connection):
    """For 403 with code 1427, the remedy names the missing permission."""
    connection["login"] = "emulator-reader"
    error = refused()
    assert isinstance(error, CreateNotAllowedError)
    assert (403, "FLOW-1427-403", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "may not create flow runs" in error.message
    assert "'Manage Sources' permission" in error.remedy


def test_unknown_sandbox(refused, connection):
    """The remedy states that the name is required, not the title."""
    connection["extra"]["sandbox"] = "Production"
    error = refused()
    assert isinstance(error, SandboxError)
    assert (404, "FLOW-2100-404", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "'Production'" in error.message
    assert "the sandbox's name (not its title)" in error.remedy


def test_wrong_organization(refused, connection):
    """The remedy names org_id."""
    connection["extra"]["org_id"] = "OTHER@AdobeOrg"
    error = refused()
    assert isinstance(error, OrganizationError)
    assert (401, "FLOW-2000-401", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert "'OTHER@AdobeOrg'" in error.message
    assert "set org_id in the connection's extra" in error.remedy


# --- the dataflow ---


@pytest.mark.parametrize(
    ("check_flow", "status", "code"),
    [(True, 404, "FLOW-1101-404"), (False, 400, "FLOW-1430-400")],
    ids=["checked before", "refused by the service"],
)
def test_unknown_flow(refused, check_flow, status, code):
    """The check and Flow Service cause the same class of error."""
    error = refused(flow_id=UNKNOWN, check_flow=check_flow)
    assert isinstance(error, FlowNotFoundError)
    assert (status, code, UNKNOWN, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "check flow_id" in error.remedy
    assert shown(error, UNKNOWN, WINDOW, status, code, error.request_id, error.remedy)


@pytest.mark.parametrize("check_flow", [True, False], ids=["checked before", "refused by the service"])
def test_scheduled_flow(refused, check_flow):
    """Code 1386: only one-time flows accept on-demand runs."""
    error = refused(flow_id=HOURLY, check_flow=check_flow)
    assert isinstance(error, NotOnDemandError)
    assert (HOURLY, WINDOW) == (error.flow_id, error.window)
    assert "hour" in error.message
    assert "one-time ('once')" in error.remedy


def test_refusal_of_a_scheduled_flow_shows_adobes_code(refused):
    """The error has the status, the code and the request id of Flow Service."""
    error = refused(flow_id=HOURLY, check_flow=False)
    assert (400, "FLOW-1386-400", True) == (error.http_status, error.code, bool(error.request_id))


def test_disabled_flow(refused):
    """Flow Service never executes a run of a disabled flow."""
    error = refused(flow_id=DISABLED)
    assert isinstance(error, FlowDisabledError)
    assert (DISABLED, WINDOW) == (error.flow_id, error.window)
    assert "is disabled" in error.message
    assert "enable the dataflow in Experience Platform" in error.remedy


def test_disabled_flow_without_a_check(refused):
    """Code 1380 has the reason only in its message, so the error shows the message."""
    error = refused(flow_id=DISABLED, check_flow=False)
    assert isinstance(error, RunRefusedError)
    assert (400, "FLOW-1380-400", DISABLED) == (error.http_status, error.code, error.flow_id)
    assert f"flow {DISABLED} is disabled" in error.message


@pytest.mark.parametrize("check_flow", [True, False], ids=["checked before", "refused by the service"])
def test_wrong_delta_column(refused, emulator, check_flow):
    """Code 1382: the flow already has another delta column."""
    emulator.add_flow(id=FLOW, kind="table", delta_column="updated_at")
    error = refused(delta_column="created_at", check_flow=check_flow)
    assert isinstance(error, DeltaColumnDiffersError)
    assert (FLOW, WINDOW) == (error.flow_id, error.window)
    assert "created_at" in error.message
    assert "updated_at" in error.message
    assert "set delta_column to the column of the flow's Copy transformation, or remove it" in error.remedy


def test_missing_delta_column(refused):
    """Code 1383: the first run of a table-based flow must have a delta column."""
    error = refused(delta_column=None)
    assert isinstance(error, DeltaColumnMissingError)
    assert (400, "FLOW-1383-400", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "set delta_column" in error.remedy


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "  ",
        {},
        {"name": ""},
        {"name": 7},
        {"column": "updated_at"},
        {"name": "updated_at", "timezone": ""},
        ["updated_at"],
        7,
    ],
    ids=str,
)
def test_malformed_delta_column(refused, emulator, malformed):
    """The remedy shows both valid forms."""
    error = refused(delta_column=malformed)
    assert isinstance(error, ConfigurationError)
    assert (FLOW, WINDOW) == (error.flow_id, error.window)
    assert "delta_column cannot be used" in error.message
    assert "the column's name, or to a mapping with 'name'" in error.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("flow_id", ["", "../runs", "a/b", "a,b", "flow?x=1"])
def test_invalid_flow_id(refused, emulator, flow_id):
    """Only an identifier is put into a URL."""
    error = refused(flow_id=flow_id)
    assert isinstance(error, ConfigurationError)
    assert "flow_id" in error.message
    assert {"POST /runs"}.isdisjoint(emulator.ledger()["requests"])


def test_flow_id_template_that_renders_to_empty_text(refused, emulator):
    """The remedy mentions the template."""
    error = refused(flow_id="{{ dag_run.conf.get('flow', '') }}", conf={"x": 1})
    assert "flow_id is ''" == error.message
    assert "if it is a template, check it" in error.remedy
    assert {} == emulator.ledger()["requests"]


# --- the window ---

SOON = datetime.now(timezone.utc) + timedelta(days=2)
WINDOWS = [
    ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "the window is reversed", "swap window_start and window_end"),
    ("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z", "the window is empty", "remove window_start and window_end"),
    ("{{ data_interval_start }}", "{{ data_interval_end }}", "the window is empty", "remove window_start and"),
    pytest.param(
        "2026-01-02T00:00:00Z",
        SOON.isoformat(),
        "ends in the future",
        "wait until the window has ended",
        # A name without the time: pytest-xdist needs the same one in each process.
        id="in two days",
    ),
    ("2026-01-02T00:00:00", "2026-01-03T00:00:00Z", "has no time zone", "give window_start an offset"),
    ("2026-01-02T00:00:00Z", "2026-01-03T00:00:00", "has no time zone", "give window_end an offset"),
    (datetime(2026, 1, 2), datetime(2026, 1, 3), "has no time zone", "no zone is assumed"),  # noqa: DTZ001
    ("1769000000000", "1769100000000", "looks like milliseconds", "divide by 1000"),
    (1769000000, 1769100000000, "window_end is 1769100000000, which looks like milliseconds", "divide by 1000"),
    ("10000-01-01T00:00:00Z", "2026-01-03T00:00:00Z", "is not a valid time", "ISO 8601 with an offset"),
    ("9999-12-31T23:59:59-14:00", "2026-01-03T00:00:00Z", "is out of range", "pass window_start and window_end"),
    ("1969-12-31T00:00:00Z", "2026-01-03T00:00:00Z", "is before 1970", "pass window_start and window_end"),
    (
        "2026-01-02T00:00:00Z",
        "99999999999",
        "5138-11-16T09:46:39Z in epoch seconds, more than a year ahead",
        "ISO 8601",
    ),
    ("2026-01-02T00:00:00Z", "5138-11-16T09:46:39Z", "ends in the future", "wait until the window has ended"),
    ("yesterday", "2026-01-03T00:00:00Z", "'yesterday', which is not a valid time", "ISO 8601 with an offset"),
    ("{{ dag_run.conf.get('x', '') }}", "2026-01-03T00:00:00Z", "window_start is empty", "check the template"),
    ("{{ dag_run.conf.get('x') }}", "2026-01-03T00:00:00Z", "rendered to 'None'", "check the template"),
    (True, "2026-01-03T00:00:00Z", "is not a valid time", "aware datetime, ISO 8601"),
]


@pytest.mark.parametrize(("start", "end", "message", "remedy"), WINDOWS)
def test_invalid_window(refused, emulator, start, end, message, remedy):
    """The message names the argument and its value, the remedy a valid form. No request is sent."""
    error = refused(window_start=start, window_end=end, conf={"a": 1})
    assert isinstance(error, WindowError)
    assert FLOW == error.flow_id
    assert message in error.message
    assert remedy in error.remedy
    assert shown(error, FLOW, error.remedy)
    assert {} == emulator.ledger()["requests"]


def test_error_names_a_future_window(refused):
    """The error has the window that has not ended."""
    end = SOON.replace(hour=0, minute=0, second=0, microsecond=0)
    error = refused(date=end)
    expected = f"{end - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}/{end:%Y-%m-%dT%H:%M:%SZ}"
    assert (FLOW, expected) == (error.flow_id, error.window)


def test_template_that_renders_to_native_none(refused):
    """A rendered None is not a missing argument."""
    start = "{{ dag_run.conf.get('start') }}"
    error = refused(native=True, window_start=start, window_end="2026-01-03T00:00:00Z", conf={"a": 1})
    assert isinstance(error, WindowError)
    assert "window_start is None" in error.message
    assert "check the template of window_start" in error.remedy
    assert "the task reads conf and params without templates" in error.remedy


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize(
    "column",
    [
        "{{ dag_run.conf.get('c') }}",
        "{{ dag_run.conf['nothing'] }}",
        "{{ dag_run.conf['nothing'] | tojson }}",
        "{{ dag_run.conf['empty'] }}",
        "{{ dag_run.conf['list'] }}",
        "{{ dag_run.conf['list'] | tojson }}",
        "{{ dag_run.conf['mapping'] }}",
        "{{ dag_run.conf['mapping'] | tojson }}",
        {"name": "{{ dag_run.conf.get('c') }}"},
    ],
    ids=str,
)
def test_delta_column_that_rendered_to_nothing(refused, emulator, column, native):
    """Adobe would keep a column `None` for all flow runs of the dataflow, so no request is sent."""
    conf = {"nothing": None, "empty": "", "list": ["a", "b"], "mapping": {"column": "updated_at"}}
    error = refused(delta_column=column, conf=conf, native=native, run_type="manual")
    assert isinstance(error, ConfigurationError)
    assert "delta_column cannot be used" in error.message
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize(
    ("date", "start"),
    [
        ("{{ ds_nodash }}", "20260110"),
        ("{{ logical_date.strftime('%Y%m%d%H') }}", "2026011000"),
        ("{{ ts_nodash[:8] ~ '000000' }}", "20260110000000"),
        ("{{ dag_run.conf['day'] }}", "20260109"),
        ("{{ dag_run.conf['day'] | float }}", "20260109"),
    ],
)
@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_window_of_dates_in_digits(refused, emulator, date, start, native):
    """Rendered as text or as a number, digits that read as a date are no epoch seconds."""
    error = refused(
        window_start=date, window_end="2026-01-11T00:00:00Z", conf={"day": 20260109}, native=native, run_type="manual"
    )
    assert isinstance(error, WindowError)
    assert f"window_start is {start}, which reads as the date 2026-01-" in error.message
    assert "ISO 8601 with an offset" in error.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("start_time", ["2026-01-02T00:00:00", "soon", "", 1769000000000])
def test_invalid_start_time(refused, start_time):
    """The message names the argument."""
    error = refused(start_time=start_time)
    assert (FLOW, WINDOW) == (error.flow_id, error.window)
    assert "start_time is" in error.message


def test_start_time_in_the_past(refused):
    """Code 1360: Flow Service refuses the request, and creates no flow run."""
    error = refused(start_time="2026-01-02T00:00:00Z")
    assert (400, "FLOW-1360-400", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert "remove start_time" in error.remedy


def test_window_that_flow_service_refuses(refused, emulator):
    """Code 1381: the error shows Adobe's message, code and request id."""
    emulator.plan_fault(kind="POST /runs", action="refuse", status=400, code="1381", message="the end is too early")
    error = refused()
    assert (400, "FLOW-1381-400", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert "the end is too early" in error.message
    assert shown(error, FLOW, WINDOW, "HTTP status 400", "Adobe code FLOW-1381-400", error.request_id, error.remedy)


# --- unreadable responses ---

NONSENSE = [
    pytest.param("<html><body>Please log in</body></html>", "Please log in", id="a proxy's HTML"),
    pytest.param("", "", id="an empty 200"),
    pytest.param({"hello": "world"}, '"hello"', id="JSON of another shape"),
    pytest.param([1, 2], "[1, 2]", id="a JSON list"),
    pytest.param('{"items": [', "items", id="half of a JSON"),
]


@pytest.mark.parametrize(("body", "excerpt"), NONSENSE)
@pytest.mark.parametrize("kind", ["GET /flows/{id}", "POST /runs"])
def test_unreadable_response(refused, emulator, kind, body, excerpt):
    """The error shows an excerpt, and the remedy is to check the host. A retry is possible."""
    emulator.plan_fault(kind=kind, action="answer", body=body)
    error = refused(state="up_for_retry")
    assert isinstance(error, UnreadableAnswerError)
    assert (200, FLOW, WINDOW) == (error.http_status, error.flow_id, error.window)
    assert error.request_id
    assert excerpt in error.message
    assert "a proxy or a wrong host sends such a response" in error.remedy


@pytest.mark.parametrize(("body", "excerpt"), NONSENSE)
def test_unreadable_token_response(refused, connection, emulator, body, excerpt):
    """If the response contains no token, the remedy is to check ims_url."""
    connection["extra"]["scopes"] = f"openid,{abs(hash(str(body)))}"
    emulator.plan_fault(kind="POST /ims/token/v3", action="answer", body=body)
    error = refused(state="up_for_retry")
    assert "check ims_url in the connection's extra" in error.remedy
    assert (FLOW, WINDOW) == (error.flow_id, error.window)


# --- arguments in the DAG file ---


@pytest.mark.parametrize("given", ["window_start", "window_end"])
def test_window_with_one_edge(given):
    """The error is raised when the DAG is parsed."""
    with pytest.raises(ConfigurationError) as caught:
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, **{given: "2026-01-02T00:00:00Z"})
    assert f"only {given} is given" == caught.value.message
    assert "give window_start and window_end, or neither" == caught.value.remedy


@pytest.mark.parametrize("name", ["poll_interval", "wait_timeout", "uncertain_patience"])
@pytest.mark.parametrize("value", [0, -1, "10", True, float("inf"), float("nan")], ids=str)
def test_invalid_seconds(name, value):
    """The error is raised when the DAG is parsed."""
    with pytest.raises(ConfigurationError) as caught:
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, **{name: value})
    assert f"{name} is {value!r}" == caught.value.message
    assert f"set {name} to a positive number of seconds" == caught.value.remedy


@pytest.mark.parametrize("operator", [OnDemandFlowRunOperator, RetriggerFlowRunOperator])
def test_unknown_on_uncertain(operator):
    """Other values raise an error when the DAG is parsed."""
    name = "flow_id" if operator is OnDemandFlowRunOperator else "flow_run_id"
    with pytest.raises(ConfigurationError) as caught:
        operator(task_id="task", on_uncertain="maybe", **{name: FLOW})
    assert "on_uncertain is 'maybe'" == caught.value.message
    assert "use one of ('fail', 'adopt', 'create', 'ask')" == caught.value.remedy


@pytest.mark.parametrize("operator", [FlowRunSensor, RetriggerFlowRunOperator])
@pytest.mark.parametrize("rendered", ["", None])
def test_missing_flow_run_id(worker, emulator, operator, rendered):
    """A skipped upstream task returns no id; the remedy mentions the template."""
    ended = worker.task(operator, flow_run_id=rendered, retries=2, deferrable=False).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert f"flow_run_id is {rendered!r}" == ended.error.message
    assert "if it is a template, check it" in ended.error.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("rendered", ["None", "none", " ", "null", "{{ none }}", "{{ params.get('x') }}"])
@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (FlowRunSensor, {"mode": "poke"}),
        (FlowRunSensor, {"mode": "reschedule"}),
        (FlowRunSensor, {"deferrable": True}),
        (RetriggerFlowRunOperator, {}),
        (RetriggerFlowRunOperator, {"wait_for_completion": True, "deferrable": True}),
    ],
    ids=str,
)
def test_flow_run_id_that_renders_to_no_value(worker, emulator, operator, arguments, rendered):
    """The first poll refuses it, without a retry and without a request."""
    defaults = {"deferrable": False, "retries": 2}
    ended = worker.task(operator, flow_run_id=rendered, **{**defaults, **arguments}).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert ended.error.message.startswith("flow_run_id is ")
    assert "if it is a template, check it" in ended.error.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("operator", [FlowRunSensor, RetriggerFlowRunOperator])
def test_flow_run_id_that_renders_to_a_list(worker, emulator, operator, native):
    """A template over a mapped task gives a list; the remedy names `map_indexes` and `.output`."""
    ended = worker.task(operator, flow_run_id="{{ ['a', 'b'] }}", native=native, deferrable=False, retries=2).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert shown(ended.error, "map_indexes", "`.output`")
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("operator", [FlowRunSensor, RetriggerFlowRunOperator])
def test_blanks_around_a_flow_run_id_are_stripped(worker, create_run, emulator, wait_for_end, operator):
    """A template in several lines has a line break at its end."""
    emulator.plan_outcome(status="failed")
    run_id = create_run()
    wait_for_end(run_id)
    ended = worker.task(operator, flow_run_id=f" {run_id}\n", deferrable=False).run()
    assert ("failed" if operator is FlowRunSensor else "success") == ended.state
    assert getattr(ended.error, "flow_run_id", run_id) == run_id


@pytest.mark.parametrize("rendered", ["None", "null", "{{ params.get('x') }}"])
def test_flow_id_that_renders_to_no_value(refused, emulator, rendered):
    """The dataflow's id is refused in the same way."""
    error = refused(flow_id=rendered)
    assert isinstance(error, ConfigurationError)
    assert error.message.startswith("flow_id is ")
    assert {} == emulator.ledger()["requests"]


@pytest.mark.needs_airflow(3, 1, "a finalizer that knows mapped tasks which could not be made")
@pytest.mark.parametrize(
    ("operator", "over", "field"),
    [
        (OnDemandFlowRunOperator, {"window_start": "2026-01-05T00:00:00Z"}, "flow_id"),
        (OnDemandFlowRunOperator, {"window": "week"}, "flow_id"),
        (OnDemandFlowRunOperator, {"poll_interval": -1}, "flow_id"),
        (OnDemandFlowRunOperator, {"window_offset": 5}, "flow_id"),
        (RetriggerFlowRunOperator, {"on_uncertain": "maybe"}, "flow_run_id"),
        (FlowRunSensor, {"on_empty": "maybe"}, "flow_run_id"),
        (FlowRunSensor, {"error_budget": 0}, "flow_run_id"),
    ],
    ids=str,
)
def test_mapped_arguments_are_refused_without_a_retry(worker, emulator, operator, over, field):
    """Airflow makes a mapped task on the worker; the error has the dataflow or the flow run."""

    def mapped(*, dag, task_id, **arguments):
        with dag:
            return operator.partial(task_id=task_id, **arguments).expand_kwargs([over])

    ended = worker.task(mapped, map_index=0, retries=2, **{field: FLOW}).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert FLOW == getattr(ended.error, field)
    assert {} == emulator.ledger()["requests"]


EDGES = {"window_start": ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]}
EDGES["window_end"] = ["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]


@pytest.mark.parametrize("map_index", range(4))
def test_edges_that_expand_combines_are_refused(worker, emulator, map_index):
    """`expand()` gives four windows, of which one contains two others and one is empty."""

    def mapped(*, dag, task_id):
        with dag:
            return OnDemandFlowRunOperator.partial(task_id=task_id, flow_id=FLOW, retries=2).expand(**EDGES)

    ended = worker.task(mapped, map_index=map_index).run()
    assert ("failed", FLOW) == (ended.state, ended.error.flow_id)
    assert "combines each start with each end" in ended.error.message
    assert "use expand_kwargs" in ended.error.remedy
    assert {} == emulator.ledger()["requests"]


def test_edges_that_expand_of_a_task_group_combines_are_refused():
    """The DAG cannot be imported."""

    @task_group
    def group(start, end):
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, window_start=start, window_end=end)

    with DAG("dag", schedule="@daily"), pytest.raises(ConfigurationError, match="combines each start with each end"):
        group.expand(start=EDGES["window_start"], end=EDGES["window_end"])


def test_pairs_of_edges_can_be_mapped(worker, emulator):
    """`expand_kwargs()` of a task or of a task group gives each task one window."""

    def in_group(*, dag, task_id):
        @task_group
        def group(start, end):
            OnDemandFlowRunOperator(
                task_id=task_id, flow_id=FLOW, delta_column="updated_at", window_start=start, window_end=end
            )

        with dag:
            group.expand_kwargs([{"start": EDGES["window_start"][0], "end": EDGES["window_end"][0]}])
        return dag.get_task(f"group.{task_id}")

    def mapped(*, dag, task_id):
        with dag:
            partial = OnDemandFlowRunOperator.partial(task_id=task_id, flow_id=FLOW, delta_column="updated_at")
            return partial.expand_kwargs([{name: values[0] for name, values in EDGES.items()}])

    assert ["success"] * 2 == [worker.task(made, map_index=0).run().state for made in (in_group, mapped)]


def test_plain_arguments_are_refused_when_the_dag_is_parsed():
    """The import error of a plain task is the class itself, with the dataflow."""
    with pytest.raises(ConfigurationError) as caught:
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, window="week")
    assert (ConfigurationError, FLOW) == (type(caught.value), caught.value.flow_id)


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (OnDemandFlowRunOperator, {"flow_id": FLOW, "delta_column": "updated_at"}),
        (RetriggerFlowRunOperator, {"flow_run_id": UNKNOWN}),
        (FlowRunSensor, {"flow_run_id": UNKNOWN}),
    ],
    ids=str,
)
def test_connection_id_is_templated(worker, emulator, operator, arguments):
    """If the rendered connection does not exist, the error names its rendered id."""
    given = {"flowservice_conn_id": "flowservice_{{ ds_nodash }}", "deferrable": False, "retries": 2, **arguments}
    ended = worker.task(operator, **given).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert "the connection 'flowservice_20260110' does not exist" == ended.error.message


def test_templated_connection_is_used(worker, emulator, supervisor):
    """All requests of creating and of waiting in the triggerer use the rendered connection."""
    supervisor.connections["platform_eu"] = supervisor.connections.pop("flowservice_default")
    arguments = {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True, "deferrable": True}
    task = worker.task(
        OnDemandFlowRunOperator,
        flowservice_conn_id="platform_{{ dag_run.conf['region'] }}",
        conf={"region": "eu"},
        poll_interval=0.05,
        **arguments,
    )
    assert "success" == task.run().state
