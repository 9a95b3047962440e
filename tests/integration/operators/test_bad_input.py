"""Bad input: a clear error that says which flow, which window, what Adobe said and what to do; nothing is lost."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

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
    """What a task ends with whose input is bad: the error. Nothing was created, and no retry is wasted."""

    def run(*, state="failed", **arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "retries": 2, "uncertain_patience": 0.3}
        ended = worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments}).run()
        assert state == ended.state
        assert [] == [run for flow in emulator.ledger()["flows"].values() for run in flow["runs"]]
        return ended.error

    return run


def shown(error, *parts):
    """Whether all of these are in the line that the user sees."""
    return [part for part in parts if str(part) not in str(error)] == []


# --- the connection ---


def test_a_missing_connection(refused, supervisor):
    """The message names the connection, and the command that makes it."""
    del supervisor.connections["flowservice_default"]
    error = refused()
    assert isinstance(error, ConfigurationError)
    assert "the connection 'flowservice_default' does not exist" == error.message
    assert "`airflow connections add flowservice_default --conn-type flowservice" in error.remedy
    assert (FLOW, WINDOW) == (error.flow_id, error.window)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"epoch_format": "bogus"}, "epoch_format must be 'string' or 'integer', not 'bogus'"),
        ({"timeout_s": "abc"}, "timeout_s is 'abc', which is not a number"),
        ({"timeout_s": -1}, "timeout_s must be a number of seconds above 0"),
        ({"max_attempts": "many"}, "max_attempts is 'many', which is not a number"),
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1 on"),
        ({"org_id": ""}, "org_id is missing"),
        ({"org_id": None}, "org_id is missing"),
        ({"ims_url": "http://ims.example.com"}, "would send the secret in the clear; use https://"),
        ({"access_token": "ready"}, "client_secret and access_token are both set"),
        ({"scopes": " , "}, "scopes is empty"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_connection_value_that_the_form_did_not_check(refused, connection, emulator, extra, message):
    """The message names the connection and the field; nothing is asked of anybody."""
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
        ({"login": None}, "client_id is missing"),
        ({"password": None}, "neither client_secret nor access_token is set"),
    ],
    ids=["plain http", "ftp", "no client id", "no secret"],
)
def test_a_connection_that_cannot_work(refused, connection, values, message):
    """A host that would send the secret in the clear is refused; so is half a credential."""
    connection.update(values)
    error = refused()
    assert isinstance(error, ConfigurationError)
    assert message in error.message
    assert "connection 'flowservice_default'" in error.message


def test_a_missing_org_id_says_where_to_set_it(refused, connection):
    """The remedy names the field of the connection."""
    del connection["extra"]["org_id"]
    assert "set org_id in the connection's extra" in refused().remedy


def test_a_wrong_secret(refused, connection):
    """IMS answers 401: the remedy names login and password; the secret is nowhere."""
    connection["password"] = "wrong-secret-value"
    error = refused()
    assert isinstance(error, AuthenticationError)
    assert (401, "invalid_client", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "The client secret is wrong." in error.message
    assert "set password (client secret) of the connection" in error.remedy
    assert "wrong-secret-value" not in str(error)


def test_a_token_that_has_expired_and_cannot_be_renewed(refused, connection):
    """A ready token is used as it is; the remedy says to replace it."""
    connection["password"] = None
    connection["extra"]["access_token"] = "stale-token-value"
    error = refused()
    assert (401, "401013") == (error.http_status, error.code)
    assert "replace access_token in the connection's extra" in error.remedy
    assert "stale-token-value" not in str(error)


def test_a_credential_that_may_only_read(refused, connection):
    """403, 1427: the remedy names the permission to ask for."""
    connection["login"] = "emulator-reader"
    error = refused()
    assert isinstance(error, CreateNotAllowedError)
    assert (403, "FLOW-1427-403", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "may not create flow runs" in error.message
    assert "'Manage Sources' permission" in error.remedy


def test_an_unknown_sandbox(refused, connection):
    """The remedy says that it is the name, not the title."""
    connection["extra"]["sandbox"] = "Production"
    error = refused()
    assert isinstance(error, SandboxError)
    assert (404, "FLOW-2100-404", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "'Production'" in error.message
    assert "the sandbox's name (not its title)" in error.remedy


def test_a_wrong_organization(refused, connection):
    """The remedy names org_id."""
    connection["extra"]["org_id"] = "SOMEBODY@AdobeOrg"
    error = refused()
    assert isinstance(error, OrganizationError)
    assert (401, "FLOW-2000-401", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert "'SOMEBODY@AdobeOrg'" in error.message
    assert "set org_id in the connection's extra" in error.remedy


# --- the dataflow ---


@pytest.mark.parametrize(
    ("check_flow", "status", "code"),
    [(True, 404, "FLOW-1101-404"), (False, 400, "FLOW-1430-400")],
    ids=["looked at before", "refused by the service"],
)
def test_an_unknown_flow(refused, check_flow, status, code):
    """Whether it is noticed before or by Flow Service, the error is the same class."""
    error = refused(flow_id=UNKNOWN, check_flow=check_flow)
    assert isinstance(error, FlowNotFoundError)
    assert (status, code, UNKNOWN, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert error.request_id
    assert "check flow_id" in error.remedy
    assert shown(error, UNKNOWN, WINDOW, status, code, error.request_id, error.remedy)


@pytest.mark.parametrize("check_flow", [True, False], ids=["looked at before", "refused by the service"])
def test_a_scheduled_flow(refused, check_flow):
    """1386: only one-time flows take on-demand runs."""
    error = refused(flow_id=HOURLY, check_flow=check_flow)
    assert isinstance(error, NotOnDemandError)
    assert (HOURLY, WINDOW) == (error.flow_id, error.window)
    assert "hour" in error.message
    assert "one-time ('once')" in error.remedy


def test_a_scheduled_flows_refusal_shows_adobes_code(refused):
    """What Flow Service said is kept."""
    error = refused(flow_id=HOURLY, check_flow=False)
    assert (400, "FLOW-1386-400", True) == (error.http_status, error.code, bool(error.request_id))


def test_a_disabled_flow(refused):
    """A run of it would never be carried out."""
    error = refused(flow_id=DISABLED)
    assert isinstance(error, FlowDisabledError)
    assert (DISABLED, WINDOW) == (error.flow_id, error.window)
    assert "is disabled" in error.message
    assert "enable the dataflow in Experience Platform" in error.remedy


def test_a_disabled_flow_that_nobody_looked_at(refused):
    """1380 says why in its message only, so that is shown."""
    error = refused(flow_id=DISABLED, check_flow=False)
    assert isinstance(error, RunRefusedError)
    assert (400, "FLOW-1380-400", DISABLED) == (error.http_status, error.code, error.flow_id)
    assert f"flow {DISABLED} is disabled" in error.message


@pytest.mark.parametrize("check_flow", [True, False], ids=["looked at before", "refused by the service"])
def test_a_wrong_delta_column(refused, emulator, check_flow):
    """1382: the flow has another one already."""
    emulator.add_flow(id=FLOW, kind="table", delta_column="updated_at")
    error = refused(delta_column="created_at", check_flow=check_flow)
    assert isinstance(error, DeltaColumnDiffersError)
    assert (FLOW, WINDOW) == (error.flow_id, error.window)
    assert "created_at" in error.message
    assert "updated_at" in error.message
    assert "set delta_column to the column of the flow's Copy transformation, or remove it" in error.remedy


def test_a_missing_delta_column(refused):
    """1383: the first run of a table-based flow must name it."""
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
def test_a_malformed_delta_column(refused, emulator, malformed):
    """The remedy shows both right forms."""
    error = refused(delta_column=malformed)
    assert isinstance(error, ConfigurationError)
    assert (FLOW, WINDOW) == (error.flow_id, error.window)
    assert "delta_column cannot be used" in error.message
    assert "the column's name, or to a mapping with 'name'" in error.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("flow_id", ["", None, "../runs", "a/b", "a,b", "flow?x=1"])
def test_a_flow_id_that_is_none(refused, emulator, flow_id):
    """Nothing that is no identifier reaches an address."""
    error = refused(flow_id=flow_id)
    assert isinstance(error, ConfigurationError)
    assert "flow_id" in error.message
    assert {"POST /runs"}.isdisjoint(emulator.ledger()["requests"])


def test_a_flow_id_whose_template_renders_to_nothing(refused, emulator):
    """The remedy points to the template."""
    error = refused(flow_id="{{ dag_run.conf.get('flow', '') }}", conf={"x": 1})
    assert "flow_id is ''" == error.message
    assert "if it is a template, check it" in error.remedy
    assert {} == emulator.ledger()["requests"]


# --- the window ---

SOON = datetime.now(timezone.utc) + timedelta(days=2)
WINDOWS = [
    ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "the window is reversed", "swap window_start and window_end"),
    ("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z", "the window is empty", "pass window_start and window_end"),
    ("2026-01-02T00:00:00Z", SOON.isoformat(), "ends in the future", "wait until the window is over"),
    ("2026-01-02T00:00:00", "2026-01-03T00:00:00Z", "has no time zone", "give window_start an offset"),
    ("2026-01-02T00:00:00Z", "2026-01-03T00:00:00", "has no time zone", "give window_end an offset"),
    (datetime(2026, 1, 2), datetime(2026, 1, 3), "has no time zone", "nobody can guess it"),  # noqa: DTZ001
    ("1769000000000", "1769100000000", "looks like milliseconds", "divide by 1000"),
    (1769000000, 1769100000000, "window_end is 1769100000000, which looks like milliseconds", "divide by 1000"),
    ("10000-01-01T00:00:00Z", "2026-01-03T00:00:00Z", "is not a moment in time", "ISO 8601 with an offset"),
    ("9999-12-31T23:59:59-14:00", "2026-01-03T00:00:00Z", "is out of range", "pass window_start and window_end"),
    ("1969-12-31T00:00:00Z", "2026-01-03T00:00:00Z", "is before 1970", "pass window_start and window_end"),
    ("2026-01-02T00:00:00Z", "99999999999", "ends in the future", "wait until the window is over"),
    ("yesterday", "2026-01-03T00:00:00Z", "'yesterday', which is not a moment in time", "ISO 8601 with an offset"),
    ("{{ dag_run.conf.get('x', '') }}", "2026-01-03T00:00:00Z", "window_start is empty", "check the template"),
    ("{{ dag_run.conf.get('x') }}", "2026-01-03T00:00:00Z", "rendered to 'None'", "check the template"),
    (True, "2026-01-03T00:00:00Z", "is not a moment in time", "aware datetime, ISO 8601"),
]


@pytest.mark.parametrize(("start", "end", "message", "remedy"), WINDOWS)
def test_a_window_that_cannot_be(refused, emulator, start, end, message, remedy):
    """The message names the argument and its value, the remedy what to write instead; nothing is asked."""
    error = refused(window_start=start, window_end=end, conf={"a": 1})
    assert isinstance(error, WindowError)
    assert FLOW == error.flow_id
    assert message in error.message
    assert remedy in error.remedy
    assert shown(error, FLOW, error.remedy)
    assert {} == emulator.ledger()["requests"]


def test_a_future_window_is_named(refused):
    """A run whose window is not over says which window, and what time it is."""
    end = SOON.replace(hour=0, minute=0, second=0, microsecond=0)
    error = refused(date=end)
    expected = f"{end - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}/{end:%Y-%m-%dT%H:%M:%SZ}"
    assert (FLOW, expected) == (error.flow_id, error.window)


def test_a_template_that_renders_to_a_native_none(refused):
    """A rendered None must not pass for a window that was never given."""
    start = "{{ dag_run.conf.get('start') }}"
    error = refused(native=True, window_start=start, window_end="2026-01-03T00:00:00Z", conf={"a": 1})
    assert isinstance(error, WindowError)
    assert "window_start is None" in error.message


@pytest.mark.parametrize("start_time", ["2026-01-02T00:00:00", "soon", "", 1769000000000])
def test_a_start_time_that_cannot_be(refused, start_time):
    """The message names the argument."""
    error = refused(start_time=start_time)
    assert (FLOW, WINDOW) == (error.flow_id, error.window)
    assert "start_time is" in error.message


def test_a_start_time_in_the_past(refused):
    """1360: Flow Service refuses it, and nothing is created."""
    error = refused(start_time="2026-01-02T00:00:00Z")
    assert (400, "FLOW-1360-400", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert "remove start_time" in error.remedy


def test_a_window_that_flow_service_refuses(refused, emulator):
    """1381: Adobe's own word is shown, with code and request id."""
    emulator.plan_fault(kind="POST /runs", action="refuse", status=400, code="1381", message="the end is too early")
    error = refused()
    assert (400, "FLOW-1381-400", FLOW, WINDOW) == (error.http_status, error.code, error.flow_id, error.window)
    assert "the end is too early" in error.message
    assert shown(error, FLOW, WINDOW, "HTTP status 400", "Adobe code FLOW-1381-400", error.request_id, error.remedy)


# --- what a service or a proxy answers ---

NONSENSE = [
    pytest.param("<html><body>Please log in</body></html>", "Please log in", id="a proxy's HTML"),
    pytest.param("", "", id="an empty 200"),
    pytest.param({"hello": "world"}, '"hello"', id="JSON of another shape"),
    pytest.param([1, 2], "[1, 2]", id="a JSON list"),
    pytest.param('{"items": [', "items", id="half of a JSON"),
]


@pytest.mark.parametrize(("body", "excerpt"), NONSENSE)
@pytest.mark.parametrize("kind", ["GET /flows/{id}", "POST /runs"])
def test_an_answer_that_says_nothing(refused, emulator, kind, body, excerpt):
    """An excerpt is shown, and the remedy is to check the host; a retry may help, and finds out first."""
    emulator.plan_fault(kind=kind, action="answer", body=body)
    error = refused(state="up_for_retry")
    assert isinstance(error, UnreadableAnswerError)
    assert (200, FLOW, WINDOW) == (error.http_status, error.flow_id, error.window)
    assert error.request_id
    assert excerpt in error.message
    assert "a proxy or a wrong host sends such a response" in error.remedy


@pytest.mark.parametrize(("body", "excerpt"), NONSENSE)
def test_a_token_answer_that_says_nothing(refused, connection, emulator, body, excerpt):
    """IMS's answer is no token: the remedy is to check ims_url."""
    connection["extra"]["scopes"] = f"openid,{abs(hash(str(body)))}"
    emulator.plan_fault(kind="POST /ims/token/v3", action="answer", body=body)
    error = refused(state="up_for_retry")
    assert "check ims_url in the connection's extra" in error.remedy
    assert (FLOW, WINDOW) == (error.flow_id, error.window)


# --- what the DAG's author wrote ---


@pytest.mark.parametrize("given", ["window_start", "window_end"])
def test_half_a_window(given):
    """Only one edge is an error when the DAG is parsed."""
    with pytest.raises(ConfigurationError) as caught:
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, **{given: "2026-01-02T00:00:00Z"})
    assert f"only {given} is given" == caught.value.message
    assert "give window_start and window_end, or neither" == caught.value.remedy


@pytest.mark.parametrize("name", ["poll_interval", "wait_timeout", "uncertain_patience"])
@pytest.mark.parametrize("value", [0, -1, "10", True, float("inf"), float("nan")], ids=str)
def test_seconds_that_are_none(name, value):
    """A poll interval of zero is an error when the DAG is parsed."""
    with pytest.raises(ConfigurationError) as caught:
        OnDemandFlowRunOperator(task_id="task", flow_id=FLOW, **{name: value})
    assert f"{name} is {value!r}" == caught.value.message
    assert f"set {name} to a positive number of seconds" == caught.value.remedy


@pytest.mark.parametrize("operator", [OnDemandFlowRunOperator, RetriggerFlowRunOperator])
def test_an_unknown_on_uncertain(operator):
    """A word that is not one of the three is an error when the DAG is parsed."""
    name = "flow_id" if operator is OnDemandFlowRunOperator else "flow_run_id"
    with pytest.raises(ConfigurationError) as caught:
        operator(task_id="task", on_uncertain="maybe", **{name: FLOW})
    assert "on_uncertain is 'maybe'" == caught.value.message
    assert "use one of ('fail', 'adopt', 'create')" == caught.value.remedy


@pytest.mark.parametrize("operator", [FlowRunSensor, RetriggerFlowRunOperator])
@pytest.mark.parametrize("rendered", ["", None])
def test_a_flow_run_id_that_is_none(worker, emulator, operator, rendered):
    """An upstream task that was skipped leaves no id: the remedy points to the template."""
    ended = worker.task(operator, flow_run_id=rendered, retries=2, deferrable=False).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError))
    assert f"flow_run_id is {rendered!r}" == ended.error.message
    assert "if it is a template, check it" in ended.error.remedy
    assert {} == emulator.ledger()["requests"]
