# SPDX-License-Identifier: Apache-2.0
"""Verify that a client validates its settings before anything is sent."""

from __future__ import annotations

import io
from datetime import datetime, timezone

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPResponse

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.api.http_session import retry_after_s
from airflow_flowservice.api.validation import is_loopback, path_segment, validate_base_url
from airflow_flowservice.exceptions import ConfigurationError

GOOD = {"client_id": "client-1", "client_secret": "p8e-very-secret", "org_id": "ORG@AdobeOrg"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"client_id": ""}, "client_id is missing"),
        ({"client_id": None}, "client_id is missing"),
        ({"client_id": "a\nb"}, "client_id has spaces around it, or characters"),
        ({"client_secret": None}, "neither client_secret nor access_token is set"),
        ({"client_secret": " "}, "neither client_secret nor access_token is set"),
        ({"client_secret": 5}, "neither client_secret nor access_token is set"),
        ({"access_token": "token"}, "both set"),
        (
            {"client_secret": None, "access_token": "a b\x00"},
            "access_token has spaces around it, or characters",
        ),
        ({"org_id": ""}, "org_id is missing"),
        ({"org_id": None}, "org_id is missing"),
        ({"org_id": "ÖRG@AdobeOrg"}, "org_id has spaces around it, or characters"),
        ({"sandbox": ""}, "sandbox is missing"),
        ({"sandbox": "prod "}, "sandbox has spaces around it"),
        ({"scopes": ""}, "scopes is empty"),
        ({"scopes": 5}, "scopes must be"),
        ({"scopes": ["a", 5]}, "scopes must be"),
        ({"epoch_format": "bogus"}, "epoch_format must be 'auto', 'string' or 'integer', not 'bogus'"),
        ({"timeout_s": "abc"}, "timeout_s must be a number of seconds above 0, not 'abc'"),
        ({"timeout_s": 0}, "timeout_s must be"),
        ({"timeout_s": -1}, "timeout_s must be"),
        ({"timeout_s": float("inf")}, "timeout_s must be"),
        ({"timeout_s": float("nan")}, "timeout_s must be"),
        ({"timeout_s": True}, "timeout_s must be"),
        ({"timeout_s": None}, "timeout_s must be"),
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1 on, not 0"),
        ({"max_attempts": 1.5}, "max_attempts must be"),
        ({"max_attempts": "many"}, "max_attempts must be"),
        ({"base_url": ""}, "base_url is empty"),
        ({"base_url": "http://platform.adobe.io"}, "would send the secret in the clear"),
        ({"base_url": "http://127.0.0.1.example.com"}, "would send the secret in the clear"),
        ({"base_url": "http://localhost.example.com"}, "would send the secret in the clear"),
        ({"base_url": "http://0.0.0.0"}, "would send the secret in the clear"),
        ({"base_url": "ftp://platform.adobe.io"}, "must begin with https://"),
        ({"base_url": "https://user:word@platform.adobe.io"}, "contains a user name or password"),
        ({"base_url": "https://platform.adobe.io?x=1"}, "is not the address of a host"),
        ({"base_url": "https://platform.adobe.io#x"}, "is not the address of a host"),
        ({"base_url": "https://"}, "is not the address of a host"),
        ({"base_url": "https://platform.adobe.io/a b"}, "is not the address of a host"),
        ({"base_url": "https://platform.adobe.io/../x"}, "is not the address of a host"),
        ({"base_url": "https://platform.adobe.io:port"}, "is not the address of a host"),
        ({"base_url": "https://[::1"}, "is not the address of a host"),
        ({"ims_url": "http://ims-na1.adobelogin.com"}, "ims_url 'http://ims-na1.adobelogin.com' would send"),
        ({"ims_url": None}, "ims_url is empty"),
    ],
)
def test_invalid_settings(wrong, message):
    """The error names the setting, has a remedy, and contains no secret."""
    with pytest.raises(ConfigurationError) as caught:
        FlowServiceClient(**{**GOOD, **wrong})

    assert message in caught.value.message
    assert caught.value.remedy
    assert not [secret for secret in ("very-secret", "word@") if secret in str(caught.value)]


def test_missing_organization_has_its_own_remedy():
    with pytest.raises(ConfigurationError) as caught:
        FlowServiceClient(**{**GOOD, "org_id": None})

    assert "set org_id in the connection's extra" in caught.value.remedy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("platform.adobe.io", "https://platform.adobe.io"),
        ("https://platform.adobe.io/", "https://platform.adobe.io"),
        ("https://platform.adobe.io///", "https://platform.adobe.io"),
        (" https://Platform.Adobe.io ", "https://platform.adobe.io"),
        ("https://platform.adobe.io/data/foundation/flowservice/", "https://platform.adobe.io"),
        ("https://gateway.example:8443/aep/", "https://gateway.example:8443/aep"),
        ("http://127.0.0.1:8710", "http://127.0.0.1:8710"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://localhost:8710/", "http://localhost:8710"),
        ("http://[::1]:8710", "http://[::1]:8710"),
        ("HTTPS://platform.adobe.io", "https://platform.adobe.io"),
    ],
)
def test_base_urls(given, expected):
    """A URL is normalized; the default scheme is https."""
    assert expected == validate_base_url(given, "base_url", known_path="/data/foundation/flowservice")


def test_settings_may_be_strings():
    """Connections contain strings, so numbers and lists may be strings."""
    client = FlowServiceClient(
        **GOOD, timeout_s="12.5", max_attempts="3", scopes="openid, AdobeID", epoch_format="integer"
    )

    assert client._platform._timeout == (10.0, 12.5)
    assert client._auth._scopes == "openid,AdobeID"


def test_repr():
    """The `repr` has host, organization and sandbox, but no credential."""
    client = FlowServiceClient(**GOOD, sandbox="dev")

    assert repr(client) == "<FlowServiceClient https://platform.adobe.io organization ORG@AdobeOrg sandbox dev>"


def test_properties():
    """URL, organization and sandbox can be read, for messages and links."""
    client = FlowServiceClient(**GOOD, base_url="platform.adobe.io/", sandbox="dev")

    assert (client.base_url, client.org_id, client.sandbox) == ("https://platform.adobe.io", "ORG@AdobeOrg", "dev")


def test_auth_headers():
    """The headers of a call are complete."""
    client = FlowServiceClient(client_id="client-1", access_token="ready", org_id="ORG@AdobeOrg")

    assert client.auth_headers() == {
        "Authorization": "Bearer ready",
        "x-api-key": "client-1",
        "x-gw-ims-org-id": "ORG@AdobeOrg",
        "x-sandbox-name": "prod",
    }


def test_netrc_is_ignored(monkeypatch, tmp_path):
    """A password in `.netrc` is sent neither to IMS nor to the platform."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    sent = {}

    def send(session, request, **options):
        sent[request.method] = request.headers.get("Authorization")
        answer = requests.Response()
        answer.status_code = 200
        answer.raw = HTTPResponse(io.BytesIO(b'{"access_token": "ours", "items": []}'), preload_content=False)
        return answer

    monkeypatch.setattr(requests.Session, "send", send)

    list(FlowServiceClient(**{**GOOD, "client_secret": "netrc"}).list_flows())

    assert sent == {"POST": None, "GET": "Bearer ours"}


def test_client_is_a_context_manager():
    with FlowServiceClient(**GOOD) as client:
        assert client.clock_offset is None


@given(st.text())
def test_any_text_is_a_url_or_a_typed_error(text):
    """No text raises another error, and plain http is allowed on this machine only."""
    try:
        found = validate_base_url(text, "base_url")
    except ConfigurationError:
        return
    host = found.partition("://")[2].partition("/")[0].rpartition(":")[0] or found.partition("://")[2]
    assert found.startswith("https://") or is_loopback(host.strip("[]"))


@given(st.text())
def test_any_identifier_is_one_segment_or_a_typed_error(text):
    """A valid identifier has no character that separates parts of a path or a filter."""
    try:
        found = path_segment(text, "flow_id")
    except ConfigurationError:
        return
    assert not set(found) & set("/\\?#, \n")
    assert found.strip(".")


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("5", 5),
        (" 5 ", 5),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("²", 0),
        ("9" * 5000, 999_999_999),
        ("Mon, 01 Jan 2024 00:00:30 GMT", 30),
        ("Mon, 01 Jan 2024 00:00:30", 30),
        ("Sun, 31 Dec 2023 23:59:59 GMT", 0),
        ("Mon, 01 Jan 99999 00:00:30 GMT", 0),
    ],
)
def test_retry_after(retry_after, seconds):
    """Seconds and dates are read; any other value requests no pause."""
    assert seconds == retry_after_s(retry_after, "Mon, 01 Jan 2024 00:00:00 GMT")


def test_retry_after_without_a_date_of_the_response(time_machine_at_noon):
    """Without `Date`, this machine's clock is used."""
    assert retry_after_s("Thu, 01 Jan 2026 12:00:10 GMT") == pytest.approx(10, abs=1)


@pytest.fixture
def time_machine_at_noon():
    import time_machine

    with time_machine.travel(datetime(2026, 1, 1, 12, tzinfo=timezone.utc), tick=False):
        yield


@given(st.text())
def test_any_retry_after_is_a_number(text):
    """An invalid header raises no error."""
    assert retry_after_s(text) >= 0
