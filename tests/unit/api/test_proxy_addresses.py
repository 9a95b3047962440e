# SPDX-License-Identifier: Apache-2.0
"""Addresses of a proxy that cannot be used, and that contain a password."""

from __future__ import annotations

import traceback

import pytest

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.exceptions import ConfigurationError

PASSWORD = "pr0xy-passw0rd"
UNREACHABLE = "https://127.0.0.1:1"


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:{}@127.0.0.1:99999",
        "http://user:{}#x@127.0.0.1:1",
        "http://user:{}/x@127.0.0.1:1",
        "http://user:{}?x@127.0.0.1:1",
        "http://user:{}@[::1",
        "http://user:{}@proxy:port",
        "ftp://user:{}@127.0.0.1:1",
        "user:{}@127.0.0.1:1",
        "http://user:{}@",
        "http://user:{}@:3128",
        "http://user:{}@/",
    ],
)
def test_invalid_address_of_a_proxy_does_not_show_its_password(monkeypatch, caplog, proxy):
    """An unquoted character in the password makes the rest of it a part of the host."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy.format(PASSWORD))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    caplog.set_level("DEBUG")
    client = FlowServiceClient(
        base_url=UNREACHABLE, ims_url=UNREACHABLE, client_id="client", client_secret="secret-value", org_id="A@AdobeOrg"
    )
    with pytest.raises(ConfigurationError, match="no request can be sent to") as caught:
        client.fetch_token()
    assert "HTTPS_PROXY" in caught.value.remedy
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert PASSWORD not in shown
