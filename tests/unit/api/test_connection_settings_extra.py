# SPDX-License-Identifier: Apache-2.0
"""Verify the errors of a connection's extra: unknown keys, wrong types, and text that is not a JSON object."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_flowservice.api.connection_settings import ConnectionSettings
from airflow_flowservice.exceptions import ConfigurationError

ORG = "ORG@AdobeOrg"


def parse(*, extra=None, **values):
    """Return the settings of a connection."""
    defaults = {"conn_id": "mine", "login": "client-1", "password": "p8e-very-secret"}
    fields = {"host": None, "schema": None, "port": None, **defaults, **values}
    return ConnectionSettings.parse(SimpleNamespace(**fields, extra_dejson=extra))


def error_of(*, extra, **values):
    """Return the only error of a connection."""
    with pytest.raises(ConfigurationError) as caught:
        parse(extra=extra, **values).raise_errors()
    return caught.value


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("sandbox-name", "sandbox"),
        ("sandbox_name", "sandbox"),
        ("x-sandbox-name", "sandbox"),
        ("sandboxName", "sandbox"),
        ("Sandbox", "sandbox"),
        (" sandbox", "sandbox"),
        ("sandbx", "sandbox"),
        ("extra__flowservice__sandbx", "sandbox"),
        ("scope", "scopes"),
        ("imsUrl", "ims_url"),
        ("ims", "ims_url"),
        ("accessToken", "access_token"),
        ("epochFormat", "epoch_format"),
        ("timeout", "timeout_s"),
        ("timeout_seconds", "timeout_s"),
        ("maxAttempts", "max_attempts"),
        ("retries", "max_attempts"),
    ],
)
def test_unknown_key_names_the_nearest_known_key(key, nearest):
    """An unknown key is an error, since its setting would otherwise have its default."""
    error = error_of(extra={"org_id": ORG, key: "dev"})
    assert repr(key) in error.message
    assert f"nearest known key: {nearest!r}" in error.message
    assert f"rename {key!r} to {nearest!r}" in error.remedy


@pytest.mark.parametrize("key", ["orgId", "orgid", "org-id", "ims_org", "x-gw-ims-org-id", "organization_id"])
def test_misspelled_org_id_is_not_reported_as_missing(key):
    error = error_of(extra={key: ORG})
    assert "org_id is missing" not in error.message
    assert (f"the extra has the unknown key {key!r} (nearest known key: 'org_id')") in error.message


@pytest.mark.parametrize(
    ("key", "field"),
    [("client_id", "login"), ("x-api-key", "login"), ("client_secret", "password"), ("base_url", "host")],
)
def test_unknown_key_that_belongs_to_a_field(key, field):
    """A value that belongs to a field of the connection has a remedy that names the field."""
    error = error_of(extra={"org_id": ORG, key: "value-1"}, **{field: None})
    assert f"move the value of {key!r} to the connection's {field}" in error.remedy
    assert "value-1" not in str(error)


def test_unknown_key_beside_the_known_key():
    """Both keys may have different values, so the remedy is to remove one of them."""
    error = error_of(extra={"org_id": ORG, "sandbox": "dev", "sandbox_name": "prod"})
    assert "remove 'sandbox_name' from the connection's extra, which also has 'sandbox'" in error.remedy


def test_unknown_key_without_a_near_key():
    """The remedy lists the known keys."""
    error = error_of(extra={"org_id": ORG, "qqq": 1})
    assert "the extra has the unknown key 'qqq'" in error.message
    assert "org_id, sandbox, scopes" in error.remedy


def test_two_unknown_keys_with_the_same_nearest_key():
    errors = parse(extra={"org_id": ORG, "sandboxName": "a", "x-sandbox-name": "b"}).errors
    assert {"sandbox", "x-sandbox-name"} == set(errors)


def test_unknown_key_does_not_contain_the_secret():
    assert "p8e-very-secret" not in str(error_of(extra={"org_id": ORG, "p8e-very-secret": ""}))


def test_keys_of_older_forms():
    """Older forms of Airflow store a key with the prefix `extra__flowservice__`, also for empty fields."""
    prefix = "extra__flowservice__"
    settings = parse(extra={f"{prefix}org_id": ORG, f"{prefix}sandbox": "dev", f"{prefix}ims_url": "", "ims_url": None})
    settings.raise_errors()
    assert (ORG, "dev", "https://ims-na1.adobelogin.com") == (settings.org_id, settings.sandbox, settings.ims_url)


def test_keys_with_and_without_prefix():
    """Equal values are valid; different values are an error."""
    both = {"org_id": ORG, "sandbox": "dev", "extra__flowservice__sandbox": "dev"}
    assert "dev" == parse(extra=both).sandbox
    error = error_of(extra={**both, "extra__flowservice__sandbox": "prod"})
    assert "'sandbox' and 'extra__flowservice__sandbox' have different values" in error.message


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('{"org_id": "ORG@AdobeOrg"}', "the extra was encoded twice"),
        ("text", "the extra is a JSON string, not a JSON object"),
        ([ORG], "the extra is a JSON array, not a JSON object"),
        ([], "the extra is a JSON array, not a JSON object"),
        (5, "the extra is a JSON number, not a JSON object"),
        (True, "the extra is a JSON boolean, not a JSON object"),
    ],
    ids=repr,
)
def test_extra_that_is_not_an_object(extra, message):
    """The extra has one error, and not an error for each missing setting."""
    error = error_of(extra=extra)
    assert message in error.message
    assert "missing" not in error.message
    assert "extra" in error.remedy


@pytest.mark.parametrize("text", ['{"org_id": "ORG@AdobeOrg",}', "org_id=ORG@AdobeOrg"])
def test_extra_that_is_not_json(text):
    """Airflow logs an exception and continues with an empty extra; the error states the position."""
    connection = SimpleNamespace(
        conn_id="mine", login="a", password="b", host=None, schema=None, port=None, extra=text, extra_dejson={}
    )
    with pytest.raises(ConfigurationError, match=r"the extra is not valid JSON: .* at line 1, column \d+") as caught:
        ConnectionSettings.parse(connection).raise_errors()
    assert ORG not in str(caught.value)


@pytest.mark.parametrize(
    "scopes",
    [
        ["openid", "AdobeID"],
        ["openid, AdobeID"],
        '["openid", "AdobeID"]',
        ' ["openid","AdobeID"] ',
        "openid,AdobeID",
        "openid AdobeID",
    ],
    ids=repr,
)
def test_scopes_as_text_or_list(scopes):
    assert "openid,AdobeID" == parse(extra={"org_id": ORG, "scopes": scopes}).scopes


@pytest.mark.parametrize("scopes", [{"a": 1}, [1], '["openid", 5]', '["openid"', "[]", [], True, 5], ids=repr)
def test_invalid_scopes(scopes):
    assert ["scopes"] == list(parse(extra={"org_id": ORG, "scopes": scopes}).errors)


@pytest.mark.parametrize("name", ["sandbox", "ims_url", "epoch_format", "org_id"])
@pytest.mark.parametrize("value", [["dev"], {"name": "dev"}, True, False, 1e5, []], ids=repr)
def test_text_of_another_type(name, value):
    """A value of another type is not sent as Python text, and does not mean the default."""
    assert f"{name} must be text, not a JSON " in error_of(extra={"org_id": ORG, name: value}).message


def test_whole_number_as_text():
    """Airflow converts values in a URI to JSON numbers."""
    assert "123" == parse(extra={"org_id": ORG, "sandbox": 123}).sandbox


@pytest.mark.parametrize("value", [1e12, "1e12", 86_401])
def test_timeout_that_is_too_long(value):
    assert "timeout_s is" in error_of(extra={"org_id": ORG, "timeout_s": value}).message


@pytest.mark.parametrize("name", ["timeout_s", "max_attempts"])
@pytest.mark.parametrize("value", [True, [], {}], ids=repr)
def test_number_of_another_type(name, value):
    assert f"{name} is {value!r}, which is not a number" in error_of(extra={"org_id": ORG, name: value}).message


def test_fraction_of_an_attempt():
    assert "max_attempts is 1.5, which is not" in error_of(extra={"org_id": ORG, "max_attempts": 1.5}).message
    assert 3 == parse(extra={"org_id": ORG, "max_attempts": 3.0}).max_attempts


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t"])
def test_line_break_after_the_credential(end):
    """Secrets that are copied from a file often end with a line break."""
    settings = parse(login=f"client-1{end}", password=f"p8e-very-secret{end}", extra={"org_id": f"{ORG}{end}"})
    settings.raise_errors()
    assert ("client-1", "p8e-very-secret", ORG) == (settings.client_id, settings.client_secret, settings.org_id)


@pytest.mark.parametrize(
    "path",
    [
        "/data",
        "/data/foundation",
        "/data/foundation/",
        "/data/foundation/flowservice",
        "/data/foundation/flowservice/runs",
        "/data/foundation/flowservice/flows/3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
        "/data/foundation/catalog",
        "//data/foundation",
    ],
)
@pytest.mark.parametrize("prefix", ["", "/gateway"])
def test_host_with_the_path_of_flow_service(path, prefix):
    expected = f"https://platform.adobe.io:8443{prefix}"
    settings = parse(host=f"https://platform.adobe.io{prefix}{path}", port=8443, extra={"org_id": ORG})
    assert ({}, expected) == (settings.errors, settings.base_url)


@pytest.mark.parametrize("path", ["/ims", "/ims/token", "/ims/token/v3", "/ims/token/v2"])
def test_ims_url_with_its_path(path):
    settings = parse(extra={"org_id": ORG, "ims_url": f"https://ims-na1.adobelogin.com{path}"})
    assert ({}, "https://ims-na1.adobelogin.com") == (settings.errors, settings.ims_url)


@pytest.mark.parametrize(
    "host",
    [
        "https://",
        "https:",
        "https:/",
        "http:/x",
        "https:/platform.adobe.io",
        "https:platform.adobe.io",
        "https:///platform.adobe.io",
        "//platform.adobe.io",
        "https://https://platform.adobe.io",
        "platform.adobe.io:/x",
        "/",
    ],
)
@pytest.mark.parametrize("port", [None, 443])
def test_host_that_is_not_an_address(host, port):
    errors = parse(host=host, port=port, extra={"org_id": ORG}).errors
    assert ["host"] == list(errors)
    assert "is not the address of a host" in errors["host"].message


@pytest.mark.parametrize("schema", ["dev", "prod", "aep/dev"])
def test_schema_with_another_meaning(schema):
    """A sandbox in the schema, which is the path of a URI, would be ignored."""
    error = error_of(host="platform.adobe.io", schema=schema, extra={"org_id": ORG})
    assert f"schema is {schema!r}" in error.message
    assert "extra" in error.remedy


@pytest.mark.parametrize("schema", ["https", "HTTPS", "data/foundation", "data/foundation/flowservice/runs", ""])
def test_schema_without_another_meaning(schema):
    """In a URI, the path of Flow Service becomes the schema."""
    assert {} == parse(host="platform.adobe.io", schema=schema, extra={"org_id": ORG}).errors
