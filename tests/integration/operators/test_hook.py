# SPDX-License-Identifier: Apache-2.0
"""Verify that `FlowServiceHook` creates auth headers and a client from an Airflow connection, and reports errors."""

from __future__ import annotations

import asyncio
import json

import pytest

from airflow_flowservice._airflow import connections
from airflow_flowservice.exceptions import AuthenticationError, ConfigurationError
from airflow_flowservice.hooks import FlowServiceHook, client_of

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"


@pytest.fixture
def hook(supervisor):
    """Return the hook of `flowservice_default`."""
    return FlowServiceHook()


@pytest.fixture
def connect():
    """Return a function that creates a client from a connection's values."""
    from airflow.sdk import Connection

    def make(*, extra=None, **values):
        defaults = {"conn_id": "mine", "conn_type": "flowservice", "login": "client", "password": "secret"}
        extras = json.dumps({"org_id": "ORG@AdobeOrg", **(extra or {})})
        return client_of(Connection(**{**defaults, **values}, extra=extras))

    return make


# --- connection to client ---


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "https://platform.adobe.io"),
        ({"host": ""}, "https://platform.adobe.io"),
        ({"host": "platform-va7.adobe.io"}, "https://platform-va7.adobe.io"),
        ({"host": "https://platform.adobe.io/"}, "https://platform.adobe.io"),
        ({"host": " platform.adobe.io "}, "https://platform.adobe.io"),
        ({"host": "platform.adobe.io", "schema": "https"}, "https://platform.adobe.io"),
        ({"host": "platform.adobe.io", "port": 8443}, "https://platform.adobe.io:8443"),
        ({"host": "https://platform.adobe.io:9443", "port": 8443}, "https://platform.adobe.io:9443"),
        ({"host": "http://127.0.0.1:8710"}, "http://127.0.0.1:8710"),
        ({"host": "127.0.0.1", "schema": "http", "port": 8710}, "http://127.0.0.1:8710"),
        ({"host": "http://localhost", "port": 8710}, "http://localhost:8710"),
        ({"host": "http://[::1]", "port": 8710}, "http://[::1]:8710"),
    ],
    ids=str,
)
def test_platform_url(connect, values, url):
    """The host may have a scheme and a port."""
    assert url == connect(**values).base_url


def test_connection_in_uri_form(emulator, supervisor, monkeypatch):
    """`AIRFLOW_CONN_...` may be a URI, with the scheme in its path and the extras in its query."""
    address = emulator.url.removeprefix("http://")
    uri = (
        f"flowservice://emulator-client:emulator-secret@{address}/http"
        f"?org_id=EMULATOR%40AdobeOrg&ims_url={emulator.url.replace(':', '%3A').replace('/', '%2F')}&timeout_s=5"
    )
    monkeypatch.setenv("AIRFLOW_CONN_FLOW_BY_URI", uri)
    client = FlowServiceHook("flow_by_uri").client
    assert (emulator.url, "EMULATOR@AdobeOrg") == (client.base_url, client.org_id)
    assert FLOW == client.get_flow(FLOW).id


@pytest.mark.parametrize(("timeout", "attempts"), [("5", "2"), (5, 2), (5.0, 2), ("", ""), (None, None)], ids=str)
def test_numbers_may_be_strings(connect, timeout, attempts):
    """Airflow's form sends numbers; URIs and older forms send strings. An empty field has no value."""
    assert (
        "mine-org@AdobeOrg"
        == connect(extra={"org_id": "mine-org@AdobeOrg", "timeout_s": timeout, "max_attempts": attempts}).org_id
    )


def test_default_sandbox_is_prod(connect):
    assert ["prod", "prod", "dev"] == [connect(extra={"sandbox": name}).sandbox for name in (None, "", "dev")]


def test_client_is_created_once(hook):
    """`client` and `get_conn` return the same client, so connections are kept alive."""
    assert hook.client is hook.get_conn()


def test_missing_connection_has_a_remedy(supervisor):
    """The message names the requested id."""
    with pytest.raises(ConfigurationError, match="the connection 'nowhere' does not exist") as caught:
        FlowServiceHook("nowhere").get_conn()
    assert "airflow connections add nowhere --conn-type flowservice" in caught.value.remedy


GOOD = {"conn_type": "flowservice", "login": "client", "password": "q9x7cret", "extra": {"org_id": "ORG@AdobeOrg"}}
UNREADABLE = {
    "trailing comma": ('{"conn_type": "flowservice", "password": "q9x7cret",}', "is not valid JSON"),
    "org_id beside extra": (json.dumps({**GOOD, "org_id": "ORG@AdobeOrg"}), "has the unknown key 'org_id'"),
    "unquoted https": (
        "flowservice://client:q9x7cret@platform.adobe.io/?ims_url=https://ims-na1.adobelogin.com",
        "has a '://' that is not quoted",
    ),
    "unquoted slash": ("flowservice://client:q9x7/cret@platform.adobe.io", "has a port that is not a number"),
    "number as login": (json.dumps({**GOOD, "login": 5}), "has a login that is not text"),
    "quotation marks": (f"'{json.dumps(GOOD)}'", "begins with a quotation mark"),
    "no format": ("q9x7cret", "is neither a JSON object nor a URI"),
}


@pytest.mark.parametrize(("value", "cause"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("in_triggerer", [False, True], ids=["task", "triggerer"])
def test_unreadable_environment_variable(supervisor, monkeypatch, value, cause, in_triggerer):
    """Airflow reports that the connection does not exist; the error names the variable and the cause."""
    monkeypatch.setenv("AIRFLOW_CONN_UNREADABLE", value)

    def read():
        if in_triggerer:
            return asyncio.run(connections.get_connection_async("unreadable"))
        return FlowServiceHook("unreadable").get_conn()

    with pytest.raises(ConfigurationError) as caught:
        read()
    text = str(caught.value)
    assert f"the environment variable AIRFLOW_CONN_UNREADABLE {cause}" in text
    assert "does not exist" not in text
    assert "q9x7" not in text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (json.dumps(json.dumps({"org_id": "ORG@AdobeOrg"})), "the extra was encoded twice"),
        ('{"org_id": "ORG@AdobeOrg",}', "the extra is not valid JSON"),
        ('{"orgId": "ORG@AdobeOrg"}', "the extra has the unknown key 'orgId' (nearest known key: 'org_id')"),
    ],
)
def test_invalid_extra(extra, message):
    """An extra that cannot be used is not reported as a missing org_id."""
    from airflow.sdk import Connection

    with pytest.raises(ConfigurationError) as caught:
        client_of(Connection(conn_id="mine", conn_type="flowservice", login="a", password="b", extra=extra))
    assert message in caught.value.message
    assert "org_id is missing" not in caught.value.message


def test_line_break_after_the_secret(hook, connection, emulator):
    """IMS receives the secret without the line break."""
    connection["password"] += "\n"
    connection["extra"]["scopes"] = ["openid", "AdobeID"]
    assert FLOW == hook.client.get_flow(FLOW).id


def test_secret_is_masked_without_its_line_break(monkeypatch):
    """Airflow masks the password as it is stored; the client uses it without the line break."""
    from airflow.sdk import Connection

    masked = []
    monkeypatch.setattr("airflow_flowservice._airflow.versions.mask_secret", masked.append)
    client_of(
        Connection(
            conn_id="mine", conn_type="flowservice", login="a", password="q9x7cret\n", extra='{"org_id": "O@AdobeOrg"}'
        )
    )
    assert {"q9x7cret", "q9x7cret\n"} <= set(masked)


def test_auth_headers(hook, emulator):
    """The headers are Authorization with a valid token, API key, organization and sandbox."""
    headers = hook.get_auth_headers()
    assert {
        "x-api-key": "emulator-client",
        "x-gw-ims-org-id": "EMULATOR@AdobeOrg",
        "x-sandbox-name": "prod",
    } == {name: value for name, value in headers.items() if name != "Authorization"}
    scheme, _, token = headers["Authorization"].partition(" ")
    assert ("Bearer", "emulator-client") == (scheme, emulator.state.token_owner(token))


def test_auth_headers_with_a_wrong_secret(hook, connection):
    connection["password"] = "wrong"
    with pytest.raises(AuthenticationError):
        hook.get_auth_headers()


# --- pages ---


@pytest.mark.parametrize(
    ("ids", "tail"),
    [
        ({"flow_id": FLOW, "flow_run_id": "run-1"}, f"/{FLOW}/activity/run-1"),
        ({"flow_id": FLOW}, f"/{FLOW}"),
        ({"flow_id": None}, ""),
        ({"flow_id": None, "flow_run_id": "run-1"}, ""),
        ({"flow_id": "a/../b", "flow_run_id": "x y#?"}, "/a%2F..%2Fb/activity/x%20y%23%3F"),
    ],
)
def test_urls_in_experience_platform(hook, ids, tail):
    """The URL is that of the run, the dataflow, or the list of dataflows; ids are quoted."""
    expected = f"https://experience.adobe.com/#/@EMULATOR@AdobeOrg/sname:prod/platform/source/dataflows{tail}"
    assert expected == hook.run_url(**ids)


def test_sandbox_is_quoted_in_urls(hook, connection):
    connection["extra"]["sandbox"] = "a/b?c"
    assert "/sname:a%2Fb%3Fc/platform" in hook.run_url(flow_id=FLOW)


# --- test_connection ---


def test_successful_connection_test(hook, emulator):
    """The message names platform, organization and sandbox."""
    ok, message = hook.test_connection()
    assert ok is True
    assert (
        f"Connected to {emulator.url}, organization EMULATOR@AdobeOrg, sandbox prod; dataflows can be read." == message
    )


def test_successful_connection_test_without_dataflow(hook, emulator):
    emulator.plan_fault(kind="GET /flows", action="answer", body={"items": []})
    ok, message = hook.test_connection()
    assert (True, True) == (ok, message.endswith("there is no dataflow to read."))


def _wrong_secret(connection, emulator):
    connection["password"] = "wrong"


def _wrong_organization(connection, emulator):
    connection["extra"]["org_id"] = "OTHER@AdobeOrg"


def _wrong_sandbox(connection, emulator):
    connection["extra"]["sandbox"] = "Prod"


def _wrong_host(connection, emulator):
    connection["host"] = "http://127.0.0.1:9"


def _no_permission(connection, emulator):
    emulator.plan_fault(kind="GET /flows", action="refuse", status=403, code="2120", message="You may not")


def _a_proxy(connection, emulator):
    emulator.plan_fault(kind="GET /flows", action="answer", body="<html>Log in</html>")


def _plain_http(connection, emulator):
    connection["host"] = "http://platform.adobe.io"


def _no_organization(connection, emulator):
    del connection["extra"]["org_id"]


WRONG = {
    _wrong_secret: (
        "returned no token for client id emulator-client",
        "set password (client secret) of the connection",
    ),
    _wrong_organization: ("OTHER@AdobeOrg", "set org_id in the connection's extra"),
    _wrong_sandbox: ("There is no sandbox 'Prod'", "the sandbox's name (not its title)"),
    _wrong_host: ("no connection to 127.0.0.1:9 could be made", "check the connection's host"),
    _no_permission: ("You may not", "product profile or role with the permission"),
    _a_proxy: ("Log in", "a proxy or a wrong host sends such a response"),
    _plain_http: ("would send the secret in the clear", "use https://"),
    _no_organization: ("org_id is missing", "set org_id in the connection's extra"),
}


@pytest.mark.parametrize("break_it", WRONG, ids=lambda break_it: break_it.__name__.strip("_"))
def test_failed_connection_test(hook, connection, emulator, break_it):
    """A wrong secret, organization, sandbox, host and a missing permission each have their own remedy."""
    break_it(connection, emulator)
    ok, message = hook.test_connection()
    assert (False, []) == (ok, [part for part in WRONG[break_it] if part not in message])


def test_connection_test_of_a_missing_connection(supervisor):
    """The result is a message, not a traceback."""
    ok, message = FlowServiceHook("nowhere").test_connection()
    assert (False, True) == (ok, "the connection 'nowhere' does not exist" in message)


def test_all_invalid_settings_are_reported_together(hook, connection):
    """The message of the button *Test* has every error of the connection."""
    connection["extra"].update(org_id="", timeout_s="soon")
    connection["host"] = "http://platform.adobe.io"
    ok, message = hook.test_connection()
    parts = ("use https://", "org_id is missing", "timeout_s is 'soon', which is not a number")
    assert (False, []) == (ok, [part for part in parts if part not in message])
