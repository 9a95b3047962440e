# SPDX-License-Identifier: Apache-2.0
"""Connections whose fields are no texts, as a custom secrets backend can return them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_flowservice.api.connection_settings import ConnectionSettings

EXTRA = {"org_id": "ORG@AdobeOrg", "sandbox": "dev"}


def settings_of(**fields: Any) -> ConnectionSettings:
    known = dict.fromkeys(("host", "schema", "port"))
    defaults = {"conn_id": "mine", "login": "client", "password": "secret-value", "extra": EXTRA}
    return ConnectionSettings.parse(SimpleNamespace(**{**known, **defaults, **fields}, extra_dejson={}))


@pytest.mark.parametrize("extra", [EXTRA, b'{"org_id": "ORG@AdobeOrg", "sandbox": "dev"}'], ids=["object", "bytes"])
def test_extra_may_be_an_object(extra):
    found = settings_of(extra=extra)
    assert ({}, "ORG@AdobeOrg", "dev") == (dict(found.errors), found.org_id, found.sandbox)


@pytest.mark.parametrize("extra", [["org_id"], 7, (1,), True], ids=str)
def test_extra_of_another_type_is_an_error(extra):
    """The parser reports all errors of a connection, and raises none."""
    assert "not a JSON object" in settings_of(extra=extra).errors["extra"].message


@pytest.mark.parametrize("field", ["host", "login", "password", "schema"])
@pytest.mark.parametrize("value", [12345678, b"bytes-value", ["list-value"], {"a": "dict-value"}, True], ids=repr)
def test_field_of_another_type_is_an_error(field, value):
    """The error names the field and the type, and never the value, which may be a secret."""
    found = settings_of(**{field: value})
    error = found.errors["host" if field == "schema" else field]
    assert f"connection 'mine': {field} must be text, not a value of type {type(value).__name__}" == error.message
    assert f"store {field} of the connection as text" in error.remedy
    shown = " ".join(f"{each} {each.remedy}" for each in found.errors.values())
    assert [] == [part for part in ("12345678", "bytes-value", "list-value", "dict-value") if part in shown]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000], ids=["arrays", "objects"])
def test_extra_that_is_nested_too_deeply(text):
    """The JSON parser raises another exception than for invalid JSON."""
    assert "connection 'mine': the extra is not valid JSON" == settings_of(extra=text).errors["extra"].message


@pytest.mark.parametrize(
    "host", ["a.com;x", "a.com,b.com", "https://*.a.com", "a.com\u200b", "https://'a.com'", "<host>"], ids=ascii
)
def test_host_with_characters_that_no_host_has(host):
    """Otherwise, each request would fail as a network error, and be retried."""
    assert "base_url is not the address of a host" in settings_of(host=host).errors["host"].message
