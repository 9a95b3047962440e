# SPDX-License-Identifier: Apache-2.0
"""Verify that a connection's settings are parsed once, with all errors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_flowservice.api.connection_settings import EXTRA_FIELDS, ConnectionSettings
from airflow_flowservice.exceptions import ConfigurationError
from airflow_flowservice.get_provider_info import CONNECTION_FIELDS


def parse(*, extra=None, **values):
    """Return the settings of a connection."""
    defaults = {"conn_id": "mine", "login": "client-1", "password": "p8e-very-secret"}
    fields = {"host": None, "schema": None, "port": None, **defaults, **values}
    return ConnectionSettings.parse(SimpleNamespace(**fields, extra_dejson=extra))


def test_extras_and_form_have_the_same_fields():
    assert list(CONNECTION_FIELDS) == list(EXTRA_FIELDS)


def test_valid_connection():
    """Without values in the extra, the client's defaults apply."""
    settings = parse(extra={"org_id": " ORG@AdobeOrg ", "timeout_s": "5", "sandbox": ""})
    assert {} == settings.errors
    assert ("https://platform.adobe.io", "ORG@AdobeOrg", "prod", 5.0, 5) == (
        settings.base_url,
        settings.org_id,
        settings.sandbox,
        settings.timeout_s,
        settings.max_attempts,
    )
    assert settings.org_id_error is None
    settings.raise_errors()
    assert "p8e-very-secret" not in repr(settings)


def test_defaults_are_those_of_the_client():
    """A connection without optional settings and a client without optional parameters are equal."""
    from airflow_flowservice.api.client import FlowServiceClient

    expected = FlowServiceClient(client_id="client-1", client_secret="p8e-very-secret", org_id="ORG@AdobeOrg")
    created = parse(extra={"org_id": "ORG@AdobeOrg"}).create_client()
    for name in ("base_url", "ims_url", "sandbox", "_epochs"):
        assert getattr(expected, name) == getattr(created, name), name
    assert expected._platform._timeout == created._platform._timeout
    assert expected._platform._max_attempts == created._platform._max_attempts
    assert expected._auth._scopes == created._auth._scopes


def test_one_error_per_invalid_setting():
    """Each invalid setting has its own error, with the connection's id and a remedy."""
    settings = parse(
        host="http://platform.adobe.io",
        login=None,
        password=None,
        extra={"epoch_format": "iso", "timeout_s": "soon", "max_attempts": 0, "scopes": ",", "sandbox": " "},
    )
    assert {
        "host",
        "login",
        "password",
        "org_id",
        "sandbox",
        "scopes",
        "epoch_format",
        "timeout_s",
        "max_attempts",
    } == set(settings.errors)
    assert all(error.message.startswith("connection 'mine': ") for error in settings.errors.values())
    assert all(error.remedy for error in settings.errors.values())


def test_all_errors_are_raised_together():
    """The message has each error, and the connection's id once."""
    with pytest.raises(ConfigurationError) as caught:
        parse(password=None, extra={"timeout_s": "soon"}).raise_errors()
    assert caught.value.message == (
        "connection 'mine': neither client_secret nor access_token is set; org_id is missing; "
        "timeout_s is 'soon', which is not a number"
    )
    assert "set org_id in the connection's extra" in caught.value.remedy
    assert "set timeout_s in the connection's extra to a number" in caught.value.remedy


def test_invalid_settings_are_replaced():
    """A client can be created despite errors, for checks of the valid settings."""
    client = parse(host="ftp://x", login="", password=None, extra={"timeout_s": "soon"}).create_client(max_attempts=2)
    assert ("https://platform.adobe.io", (10.0, 30.0)) == (client.base_url, client._platform._timeout)


@pytest.mark.parametrize(("org_id", "valid"), [("ORG@AdobeOrg", True), ("1234", False), ("", True)])
def test_org_id_of_another_format(org_id, valid):
    """An organization id without `@AdobeOrg` can be sent; a missing one has its own error."""
    assert valid is (parse(extra={"org_id": org_id}).org_id_error is None)


@pytest.mark.parametrize("extra", [None, {}, ""], ids=repr)
def test_without_an_extra_the_organization_is_missing(extra):
    assert ["org_id"] == list(parse(extra=extra).errors)
